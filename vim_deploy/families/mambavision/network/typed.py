"""Where a MambaVision rounds in a 16-bit graph.

Norms and the mean over the last map are float32. The scan computes in float32 on rounded inputs and
gives rounded tokens; convolutions compute in the type of what they are given.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import nn

from vim_deploy.families.mambavision.network.layers import ConvBlock
from vim_deploy.families.mambavision.network.mixers import Attention, Mixer
from vim_deploy.families.mambavision.network.model import Block, MambaVision
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
    model = cast(MambaVision, network)
    for layer in model.patch_embed.conv_down:
        dtype = type_of("patch_embed")
        round_inputs(layer, convolution_type(dtype) if isinstance(layer, nn.Conv2d) else dtype)
    round_outputs(model.patch_embed, torch.float32)
    for index, block in model.numbered_blocks():
        role = partial(type_of, block=index)
        round_inputs(block, role("residual"))
        if isinstance(block, ConvBlock):
            _type_maps(block, role)
        else:
            _type_tokens(cast(Block, block), role)
    for _, downsample in model.downsamples():
        dtype = convolution_type(type_of("downsample"))
        store_in(downsample.reduction[0], dtype)
        round_inputs(downsample, dtype)
        round_outputs(downsample, torch.float32)
    round_inputs(model.norm, torch.float32)
    if isinstance(model.head, nn.Linear):
        _type_linear(model.head, type_of("head"))
        round_outputs(model.head, torch.float32)


def _type_maps(block: ConvBlock, role: TypeOf) -> None:
    dtype = role("conv_block")
    for convolution in (block.conv1, block.conv2):
        round_inputs(convolution, convolution_type(dtype))
    round_inputs(block.act1, dtype)
    block.act1.register_forward_hook(gelu_in_steps)
    round_outputs(block.conv2, role("residual"))
    store_in(block, role("residual"))


def _type_tokens(block: Block, role: TypeOf) -> None:
    for norm in (block.norm1, block.norm2):
        round_inputs(norm, torch.float32)
    if isinstance(block.mixer, Mixer):
        _type_mixer(block.mixer, role)
    else:
        _type_attention(cast(Attention, block.mixer), role)
    for layer in (block.mlp.fc1, block.mlp.fc2):
        _type_linear(layer, role("mlp"))
    round_inputs(block.mlp.act, role("mlp"))
    block.mlp.act.register_forward_hook(gelu_in_steps)
    for part in (block.mixer, block.mlp):
        round_outputs(part, role("residual"))
    # The factors of layer scale.
    store_in(block, role("residual"))


def _type_mixer(mixer: Mixer, role: TypeOf) -> None:
    for name in ("in_proj", "x_proj", "out_proj"):
        _type_linear(getattr(mixer, name), role(name))
    for convolution in (mixer.conv1d_x, mixer.conv1d_z):
        round_inputs(convolution, convolution_type(role("conv")))
        round_inputs(convolution.act, role("conv"))
    # The bias belongs to the scan, which adds it in float32.
    mixer.dt_proj.weight.data = mixer.dt_proj.weight.data.to(role("dt_proj"))
    round_inputs(mixer.dt_proj, role("dt_proj"))
    round_inputs(mixer.scan, role("scan"), positions=_SCAN_ACTIVATIONS)


def _type_attention(mixer: Attention, role: TypeOf) -> None:
    _type_linear(mixer.qkv, role("qkv"))
    for norm in (mixer.q_norm, mixer.k_norm):
        if isinstance(norm, nn.LayerNorm):
            round_inputs(norm, torch.float32)
    round_inputs(mixer.attend, role("attention"))
    _type_linear(mixer.proj, role("proj"))


def _type_linear(layer: nn.Linear, dtype: torch.dtype) -> None:
    store_in(layer, dtype)
    round_inputs(layer, dtype)
