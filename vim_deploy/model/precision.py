"""The PyTorch twin of a half-precision graph: the same module, rounding where the graph rounds.

Weights and activations of each role have the type that the policy gives it, the convolution and
the scan compute in float32 on rounded inputs, and norms, embeddings and pooling stay float32: what
``graph.precision`` does to a fused graph. Hooks do it from outside; the module's code is the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from vim_deploy.model.dense.typing import type_dense
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.rounding import round_inputs, round_outputs, store
from vim_deploy.model.vim import Block, VisionMamba
from vim_deploy.precisions import TABLE, Precision
from vim_deploy.recipe.precision_policy import PrecisionPolicy

#: Roles that are nothing but an ONNX convolution.
_CONVOLUTIONS = ("patch_embed",)
#: Activations among the arguments of a ``ScanBranch``: u, dt, x_dbl and xz.
_SCAN_ACTIVATIONS = (0, 1, 3, 6)

_Type = Callable[..., torch.dtype]


def typed_twin(
    module: DeployedModel, precision: Precision, policy: PrecisionPolicy
) -> DeployedModel:
    """A copy of ``module`` that computes in ``precision`` where ``policy`` lets it.

    Inputs and outputs are those of ``module``, float32 where they are float.
    """
    twin = copy.deepcopy(module)
    row = TABLE[precision]
    half: torch.dtype = getattr(torch, row.dtype)

    def type_of(role: str, block: int | None = None) -> torch.dtype:
        if policy.keeps_fp32(role, block) or (not row.convolutions and role in _CONVOLUTIONS):
            return torch.float32
        return half

    _type_vim(twin.model.vim, type_of)
    if twin.model.dense is not None:
        type_dense(twin.model, type_of)
    return twin


def _type_vim(model: VisionMamba, type_of: _Type) -> None:
    store(model.patch_embed.proj, type_of("patch_embed"))
    round_inputs(model.patch_embed, type_of("patch_embed"))
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
        store(model.head, type_of("head"))
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
            store(linear, type_of(name.removesuffix("_b")))
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
