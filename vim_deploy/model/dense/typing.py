"""The half-precision twin of what stands behind the blocks: necks and heads.

Their layers compute in the type of what they are given (``model.dense.layers``), so rounding their
inputs is all there is to do; channel norms stay float32, like every norm.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from vim_deploy.model.dense.detector import DetectionBackbone
from vim_deploy.model.dense.layers import (
    AdaptiveAverage,
    ChannelNorm,
    ConvModule,
    ConvNorm,
    UpsampleByFour,
    UpsampleByTwo,
)
from vim_deploy.model.dense.segmentor import Segmentor
from vim_deploy.model.rounding import round_inputs, round_outputs, store

#: Layers that take a type from their input.
_FOLLOWERS = (AdaptiveAverage, ConvModule, ConvNorm, UpsampleByFour, UpsampleByTwo, nn.MaxPool2d)


def type_dense(model: nn.Module, type_of: Callable[[str], torch.dtype]) -> None:
    """Round the neck and the heads of ``model`` where the graph rounds; roles as in policies."""
    for part in _necks(model):
        _type_part(part, type_of("neck"))
    if isinstance(model, Segmentor):
        for name in ("decode_head", "auxiliary_head"):
            head = getattr(model, name, None)
            if head is not None:
                _type_part(head, type_of("decode_head"))
                store(head.conv_seg, type_of("head"))
                round_inputs(head.conv_seg, type_of("head"))
                round_outputs(head.conv_seg, torch.float32)


def _necks(model: nn.Module) -> list[nn.Module]:
    if isinstance(model, DetectionBackbone):
        return model.levels
    backbone = model.backbone if isinstance(model, Segmentor) else model
    names = ("fpn1", "fpn2", "fpn3", "fpn4")
    return [getattr(backbone, name) for name in names if hasattr(backbone, name)]


def _type_part(part: nn.Module, dtype: torch.dtype) -> None:
    for module in part.modules():
        if isinstance(module, _FOLLOWERS):
            round_inputs(module, dtype)
        elif isinstance(module, ChannelNorm):
            round_inputs(module, torch.float32)
    if isinstance(part, nn.Sequential | nn.MaxPool2d):
        round_outputs(part, torch.float32)
