"""Where a Vim rounds in a 16-bit graph, and the necks and heads around one.

Necks and heads of dense models compute in the type of what they are given (``dense.layers``), so
rounding their inputs is all there is to do; channel norms stay float32, like every norm. Of a
detector boxes, and what is pooled from them, are float32, and its layers widen what they give.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from vim_deploy.families.vim.network.build import VimNetwork
from vim_deploy.families.vim.network.dense.detector_heads import Detector
from vim_deploy.families.vim.network.dense.layers import (
    AdaptiveAverage,
    ChannelNorm,
    ConvModule,
    ConvNorm,
    UpsampleByFour,
    UpsampleByTwo,
)
from vim_deploy.families.vim.network.dense.segmentor import Segmentor
from vim_deploy.families.vim.network.inner import necks_of
from vim_deploy.families.vim.network.vim import Block, VisionMamba
from vim_deploy.model.rounding import (
    convolution_type,
    gelu_in_steps,
    round_inputs,
    round_outputs,
    store_in,
)

#: Activations among the arguments of a ``ScanBranch``: u, dt, x_dbl and xz.
_SCAN_ACTIVATIONS = (0, 1, 3, 6)

_Type = Callable[..., torch.dtype]
#: Layers that begin with a convolution or are a pooling.
_CONVOLUTIONS = (ConvModule, ConvNorm, UpsampleByFour, UpsampleByTwo, nn.MaxPool2d)


def type_network(network: VimNetwork, type_of: _Type) -> None:
    """Let ``network`` round where the graph of its export rounds, in place."""
    _type_vim(network.vim, type_of)
    if network.dense is not None:
        _type_dense(network, type_of)


def _type_vim(model: VisionMamba, type_of: _Type) -> None:
    # Nothing but a convolution.
    embedding = convolution_type(type_of("patch_embed"))
    store_in(model.patch_embed.proj, embedding)
    round_inputs(model.patch_embed, embedding)
    round_outputs(model.patch_embed, torch.float32)
    if model.config.if_rope:
        round_inputs(model.rope, type_of("rope"))
        for buffer in (model.rope.freqs_cos, model.rope.freqs_sin):
            buffer.data = buffer.data.to(type_of("rope"))
    for index, block in enumerate(model.layers):
        assert isinstance(block, Block)
        _type_block(block, lambda role, index=index: type_of(role, index))
    if hasattr(model, "norm_f"):
        round_inputs(model.norm_f, torch.float32)
    if isinstance(model.head, nn.Linear):
        store_in(model.head, type_of("head"))
        round_inputs(model.head, type_of("head"))
        round_outputs(model.head, torch.float32)


def _type_block(block: Block, type_of: _Type) -> None:
    round_inputs(block, type_of("residual"))
    # The sums of two-layer mode and the last one are float32, like the norm that reads them.
    round_outputs(block, torch.float32)
    round_inputs(block.norm, torch.float32)
    mixer = block.mixer
    for name in ("in_proj", "out_proj", "x_proj", "x_proj_b"):
        if (linear := getattr(mixer, name, None)) is not None:
            store_in(linear, type_of(name.removesuffix("_b")))
    round_inputs(mixer.in_proj, type_of("in_proj"))
    for suffix in ("", "_b"):
        if not hasattr(mixer, f"conv1d{suffix}"):
            continue
        convolution = getattr(mixer, f"conv1d{suffix}")
        round_inputs(convolution, type_of("conv"), torch.float32)
        round_outputs(convolution, type_of("conv"))
        round_inputs(getattr(mixer, f"x_proj{suffix}"), type_of("x_proj"))
        steps = getattr(mixer, f"dt_proj{suffix}")
        # Its bias belongs to the scan, which adds it in float32.
        steps.weight.data = steps.weight.data.to(type_of("dt_proj"))
        round_inputs(steps, type_of("dt_proj"))
    for scan in (mixer.scan, mixer.scan_b):
        round_inputs(scan, type_of("scan"), torch.float32, positions=_SCAN_ACTIVATIONS)
    # The directions are summed and scaled in float32; their sum is rounded once.
    round_inputs(mixer.out_proj, type_of("scan"), type_of("out_proj"))
    if hasattr(mixer, "gamma"):
        mixer.gamma.data = mixer.gamma.data.to(type_of("scan"))


def _type_dense(model: nn.Module, type_of: _Type) -> None:
    """Round the neck and the heads of ``model`` where the graph rounds; roles as in policies."""
    for _, part in necks_of(model):
        _type_part(part, type_of("neck"))
    if isinstance(model, Segmentor):
        for name in ("decode_head", "auxiliary_head"):
            head = getattr(model, name, None)
            if head is not None:
                _type_part(head, type_of("decode_head"))
                _type_logits(head.conv_seg, type_of("head"))
    if isinstance(model, Detector):
        heads: tuple[tuple[str, nn.Module | None], ...] = (
            ("rpn_head", model.proposal_generator.rpn_head),
            ("box_head", model.roi_heads.box_head),
            ("box_head", model.roi_heads.box_predictor),
            ("mask_head", getattr(model.roi_heads, "mask_head", None)),
        )
        for role, layers in heads:
            if layers is not None:
                _type_head(layers, type_of(role))


def _type_head(part: nn.Module, dtype: torch.dtype) -> None:
    """Convolutions and linear layers of a detector's head; a ReLU rounds nothing further."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d | UpsampleByTwo):
            round_inputs(module, convolution_type(dtype))
        if isinstance(module, nn.Conv2d) and not isinstance(module, ConvNorm):
            store_in(module, convolution_type(dtype))
        elif isinstance(module, nn.Linear):
            store_in(module, dtype)
            round_inputs(module, dtype)
        elif isinstance(module, ChannelNorm):
            round_inputs(module, torch.float32)


def _type_part(part: nn.Module, dtype: torch.dtype) -> None:
    for module in part.modules():
        if isinstance(module, _CONVOLUTIONS):
            round_inputs(module, convolution_type(dtype))
        if isinstance(module, ConvModule | AdaptiveAverage | nn.GELU):
            # Of a ConvModule this is the ReLU.
            round_outputs(module, dtype)
        if isinstance(module, AdaptiveAverage):
            round_inputs(module, dtype)
        elif isinstance(module, nn.GELU):
            round_inputs(module, dtype)
            module.register_forward_hook(gelu_in_steps)
        elif isinstance(module, ChannelNorm):
            round_inputs(module, torch.float32)
    if isinstance(part, nn.Sequential | nn.MaxPool2d):
        round_outputs(part, torch.float32)


def _type_logits(convolution: nn.Conv2d, dtype: torch.dtype) -> None:
    dtype = convolution_type(dtype)
    store_in(convolution, dtype)
    round_inputs(convolution, dtype)
    round_outputs(convolution, torch.float32)
