"""The half-precision twin of what stands behind the blocks: necks and heads.

Their layers compute in the type of what they are given (``model.dense.layers``), so rounding their
inputs is all there is to do; channel norms stay float32, like every norm. ONNX has no convolution
and no pooling in bfloat16 in any opset that we write (17 to 21): there the graph computes them in
float32, and so does the twin.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vim_deploy.model.dense.layers import (
    AdaptiveAverage,
    ChannelNorm,
    ConvModule,
    ConvNorm,
    UpsampleByFour,
    UpsampleByTwo,
)
from vim_deploy.model.dense.parts import necks_of
from vim_deploy.model.dense.segmentor import Segmentor
from vim_deploy.model.rounding import round_inputs, round_outputs, store
from vim_deploy.precisions import TABLE

_WITH_CONVOLUTIONS = tuple(getattr(torch, row.dtype) for row in TABLE.values() if row.convolutions)
#: Layers that begin with a convolution or are a pooling.
_CONVOLUTIONS = (ConvModule, ConvNorm, UpsampleByFour, UpsampleByTwo, nn.MaxPool2d)


def type_dense(model: nn.Module, type_of: Callable[[str], torch.dtype]) -> None:
    """Round the neck and the heads of ``model`` where the graph rounds; roles as in policies."""
    for _, part in necks_of(model):
        _type_part(part, type_of("neck"))
    if isinstance(model, Segmentor):
        for name in ("decode_head", "auxiliary_head"):
            head = getattr(model, name, None)
            if head is not None:
                _type_part(head, type_of("decode_head"))
                _type_logits(head.conv_seg, type_of("head"))


def _type_part(part: nn.Module, dtype: torch.dtype) -> None:
    for module in part.modules():
        if isinstance(module, _CONVOLUTIONS):
            round_inputs(module, _convolution_type(dtype))
        if isinstance(module, ConvModule | AdaptiveAverage | nn.GELU):
            # Of a ConvModule this is the ReLU.
            round_outputs(module, dtype)
        if isinstance(module, AdaptiveAverage):
            round_inputs(module, dtype)
        elif isinstance(module, nn.GELU):
            round_inputs(module, dtype)
            module.register_forward_hook(_gelu_in_steps)
        elif isinstance(module, ChannelNorm):
            round_inputs(module, torch.float32)
    if isinstance(part, nn.Sequential | nn.MaxPool2d):
        round_outputs(part, torch.float32)


def _convolution_type(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in _WITH_CONVOLUTIONS else torch.float32


def _type_logits(convolution: nn.Conv2d, dtype: torch.dtype) -> None:
    dtype = _convolution_type(dtype)
    store(convolution, dtype)
    round_inputs(convolution, dtype)
    round_outputs(convolution, torch.float32)


def _gelu_in_steps(_module: nn.Module, arguments: tuple[Tensor, ...], _output: Tensor) -> Tensor:
    """x (1 + erf(x / sqrt 2)) / 2 operator by operator, as the graph has it, each one rounded."""
    (x,) = arguments
    # The graph's constants have its type, too.
    root = torch.tensor(math.sqrt(2), dtype=x.dtype)
    return x * (torch.erf(x / root) + 1) * 0.5
