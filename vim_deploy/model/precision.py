"""The PyTorch twin of a half-precision graph: the same module, rounding where the graph rounds.

Weights and activations of each role have the type that the policy gives it, the convolution and
the scan compute in float32 on rounded inputs, and norms, embeddings and pooling stay float32: what
``graph.precision`` does to a fused graph. Hooks do it from outside; the module's code is the same.

Necks and heads of dense models compute in the type of what they are given (``model.dense.layers``),
so rounding their inputs is all there is to do; channel norms stay float32, like every norm. Of a
detector boxes, and what is pooled from them, are float32, and its layers widen what they give.
Where ONNX has no convolution in a precision, graph and twin compute it in float32.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vim_deploy.model.dense.detector_heads import Detector
from vim_deploy.model.dense.layers import (
    AdaptiveAverage,
    ChannelNorm,
    ConvModule,
    ConvNorm,
    UpsampleByFour,
    UpsampleByTwo,
)
from vim_deploy.model.dense.segmentor import Segmentor
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.inner_outputs import necks_of
from vim_deploy.model.vim import Block, VisionMamba
from vim_deploy.precisions import TABLE, Precision
from vim_deploy.recipe.precision_policy import PrecisionPolicy

#: Activations among the arguments of a ``ScanBranch``: u, dt, x_dbl and xz.
_SCAN_ACTIVATIONS = (0, 1, 3, 6)

_Type = Callable[..., torch.dtype]
_WITH_CONVOLUTIONS = tuple(getattr(torch, row.dtype) for row in TABLE.values() if row.convolutions)
#: Layers that begin with a convolution or are a pooling.
_CONVOLUTIONS = (ConvModule, ConvNorm, UpsampleByFour, UpsampleByTwo, nn.MaxPool2d)


def typed_twin(
    module: DeployedModel, precision: Precision, policy: PrecisionPolicy
) -> DeployedModel:
    """A copy of ``module`` that computes in ``precision`` where ``policy`` lets it.

    Inputs and outputs are those of ``module``, float32 where they are float.
    """
    twin = copy.deepcopy(module)
    half: torch.dtype = getattr(torch, TABLE[precision].dtype)

    def type_of(role: str, block: int | None = None) -> torch.dtype:
        return torch.float32 if policy.keeps_fp32(role, block) else half

    _type_vim(twin.model.vim, type_of)
    if twin.model.dense is not None:
        _type_dense(twin.model, type_of)
    return twin


def _type_vim(model: VisionMamba, type_of: _Type) -> None:
    # Nothing but a convolution.
    embedding = _convolution_type(type_of("patch_embed"))
    _store(model.patch_embed.proj, embedding)
    _round_inputs(model.patch_embed, embedding)
    _round_outputs(model.patch_embed, torch.float32)
    if model.config.if_rope:
        _round_inputs(model.rope, type_of("rope"))
        for buffer in (model.rope.freqs_cos, model.rope.freqs_sin):
            buffer.data = buffer.data.to(type_of("rope"))
    for index, block in enumerate(model.layers):
        assert isinstance(block, Block)
        _type_block(block, lambda role, index=index: type_of(role, index))
    if hasattr(model, "norm_f"):
        _round_inputs(model.norm_f, torch.float32)
    if isinstance(model.head, nn.Linear):
        _store(model.head, type_of("head"))
        _round_inputs(model.head, type_of("head"))
        _round_outputs(model.head, torch.float32)


def _type_block(block: Block, type_of: _Type) -> None:
    _round_inputs(block, type_of("residual"))
    # The sums of two-layer mode and the last one are float32, like the norm that reads them.
    _round_outputs(block, torch.float32)
    _round_inputs(block.norm, torch.float32)
    mixer = block.mixer
    for name in ("in_proj", "out_proj", "x_proj", "x_proj_b"):
        if (linear := getattr(mixer, name, None)) is not None:
            _store(linear, type_of(name.removesuffix("_b")))
    _round_inputs(mixer.in_proj, type_of("in_proj"))
    for suffix in ("", "_b"):
        if not hasattr(mixer, f"conv1d{suffix}"):
            continue
        convolution = getattr(mixer, f"conv1d{suffix}")
        _round_inputs(convolution, type_of("conv"), torch.float32)
        _round_outputs(convolution, type_of("conv"))
        _round_inputs(getattr(mixer, f"x_proj{suffix}"), type_of("x_proj"))
        steps = getattr(mixer, f"dt_proj{suffix}")
        # Its bias belongs to the scan, which adds it in float32.
        steps.weight.data = steps.weight.data.to(type_of("dt_proj"))
        _round_inputs(steps, type_of("dt_proj"))
    for scan in (mixer.scan, mixer.scan_b):
        _round_inputs(scan, type_of("scan"), torch.float32, positions=_SCAN_ACTIVATIONS)
    # The directions are summed and scaled in float32; their sum is rounded once.
    _round_inputs(mixer.out_proj, type_of("scan"), type_of("out_proj"))
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
            _round_inputs(module, _convolution_type(dtype))
        if isinstance(module, nn.Conv2d) and not isinstance(module, ConvNorm):
            _store(module, _convolution_type(dtype))
        elif isinstance(module, nn.Linear):
            _store(module, dtype)
            _round_inputs(module, dtype)
        elif isinstance(module, ChannelNorm):
            _round_inputs(module, torch.float32)


def _type_part(part: nn.Module, dtype: torch.dtype) -> None:
    for module in part.modules():
        if isinstance(module, _CONVOLUTIONS):
            _round_inputs(module, _convolution_type(dtype))
        if isinstance(module, ConvModule | AdaptiveAverage | nn.GELU):
            # Of a ConvModule this is the ReLU.
            _round_outputs(module, dtype)
        if isinstance(module, AdaptiveAverage):
            _round_inputs(module, dtype)
        elif isinstance(module, nn.GELU):
            _round_inputs(module, dtype)
            module.register_forward_hook(_gelu_in_steps)
        elif isinstance(module, ChannelNorm):
            _round_inputs(module, torch.float32)
    if isinstance(part, nn.Sequential | nn.MaxPool2d):
        _round_outputs(part, torch.float32)


def _convolution_type(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in _WITH_CONVOLUTIONS else torch.float32


def _type_logits(convolution: nn.Conv2d, dtype: torch.dtype) -> None:
    dtype = _convolution_type(dtype)
    _store(convolution, dtype)
    _round_inputs(convolution, dtype)
    _round_outputs(convolution, torch.float32)


def _gelu_in_steps(_module: nn.Module, arguments: tuple[Tensor, ...], _output: Tensor) -> Tensor:
    """x (1 + erf(x / sqrt 2)) / 2 operator by operator, as the graph has it, each one rounded."""
    (x,) = arguments
    # The graph's constants have its type, too.
    root = torch.tensor(math.sqrt(2), dtype=x.dtype)
    return x * (torch.erf(x / root) + 1) * 0.5


def _store(module: nn.Module, dtype: torch.dtype) -> None:
    """Weights of one layer in ``dtype``."""
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.to(dtype)


def _cast(value: Any, dtypes: tuple[torch.dtype, ...]) -> Any:  # noqa: ANN401 - any argument
    if isinstance(value, Tensor) and value.is_floating_point():
        for dtype in dtypes:
            value = value.to(dtype)
    return value


def _round_inputs(
    module: nn.Module, *dtypes: torch.dtype, positions: tuple[int, ...] | None = None
) -> None:
    """Cast the arguments at ``positions`` (None: all) through ``dtypes`` before every call."""

    def hook(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            _cast(value, dtypes) if positions is None or position in positions else value
            for position, value in enumerate(arguments)
        )

    module.register_forward_pre_hook(hook)


def _round_outputs(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast what every call gives to ``dtype``."""

    def hook(_module: nn.Module, _arguments: object, output: Any) -> Any:  # noqa: ANN401
        if isinstance(output, tuple):
            return tuple(_cast(value, (dtype,)) for value in output)
        return _cast(output, (dtype,))

    module.register_forward_hook(hook)
