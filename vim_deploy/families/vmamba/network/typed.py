"""Where a VMamba rounds in a 16-bit graph.

Norms and the mean over the last map are float32. The scan computes in float32 on rounded inputs,
and gives rounded tokens, which are summed in that type.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vim_deploy.families.vmamba.config import DIRECTIONS
from vim_deploy.families.vmamba.network.vssm import Block, VMamba
from vim_deploy.model.network import Network, TypeOf
from vim_deploy.model.rounding import (
    convolution_type,
    gelu_in_steps,
    round_inputs,
    round_outputs,
    store_in,
)

#: Activations among the arguments of a ``Scan``: u, dt and x_dbl.
_SCAN_ACTIVATIONS = (0, 1, 3)


def type_network(network: Network, type_of: TypeOf) -> None:
    """Let ``network`` round where the graph of its export rounds, in place."""
    model = cast(VMamba, network)
    _type_layers(model.patch_embed, type_of("patch_embed"))
    for index, block in enumerate(model.blocks):
        _type_block(block, partial(type_of, block=index))
    for level in model.levels:
        if level.downsample is not None:
            _type_layers(level.downsample, type_of("downsample"))
    round_inputs(model.classifier.norm, torch.float32)
    if isinstance(model.classifier.head, nn.Linear):
        # A Gemm: the bias is added before it rounds.
        store_in(model.classifier.head, type_of("head"))
        round_inputs(model.classifier.head, type_of("head"))
        round_outputs(model.classifier.head, torch.float32)


def _type_layers(layers: nn.Module, dtype: torch.dtype) -> None:
    """Convolutions, norms and GELUs of one role."""
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            store_in(module, convolution_type(dtype))
            round_inputs(module, convolution_type(dtype))
        elif isinstance(module, nn.LayerNorm):
            round_inputs(module, torch.float32)
        elif isinstance(module, nn.GELU):
            _type_gelu(module, dtype)


def _type_block(block: Block, type_of: TypeOf) -> None:
    mixer = block.op
    round_inputs(block.norm, torch.float32)
    _type_linear(mixer.in_proj, type_of("in_proj"))
    _type_layers(mixer.conv2d, type_of("conv"))
    round_inputs(mixer.act, type_of("conv"))
    for name in DIRECTIONS:
        direction = getattr(mixer, name)
        round_inputs(direction.x_proj, type_of("x_proj"))
        round_inputs(direction.dt_proj, type_of("dt_proj"))
        round_inputs(direction.scan, type_of("scan"), torch.float32, positions=_SCAN_ACTIVATIONS)
        round_outputs(direction.scan, type_of("scan"))
    round_inputs(mixer.out_norm, torch.float32)
    _type_linear(mixer.out_proj, type_of("out_proj"))
    round_inputs(block.residual, type_of("residual"))
    if block.has_mlp:
        round_inputs(block.norm2, torch.float32)
        for layer in (block.mlp.fc1, block.mlp.fc2):
            _type_linear(layer, type_of("mlp"))
        _type_gelu(block.mlp.act, type_of("mlp"))
        round_inputs(block.residual2, type_of("residual"))


def _type_linear(layer: nn.Linear, dtype: torch.dtype) -> None:
    store_in(layer, dtype)
    round_inputs(layer, dtype)
    if layer.bias is not None:
        layer.register_forward_hook(_bias_apart)


def _bias_apart(module: nn.Module, arguments: tuple[Tensor, ...], _output: Tensor) -> Tensor:
    """x W + b as the graph has it on maps: the product is rounded before the bias is added."""
    layer = cast(nn.Linear, module)
    return F.linear(arguments[0], layer.weight) + layer.bias


def _type_gelu(module: nn.GELU, dtype: torch.dtype) -> None:
    round_inputs(module, dtype)
    module.register_forward_hook(gelu_in_steps)
