"""What the shapes of a Vision Mamba state dict tell about its architecture."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vim_deploy.families import FAMILIES, FIRST
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.rope import rope_tables
from vim_deploy.model.keys import cannot_infer

_LAYER = re.compile(r"layers\.(\d+)\.")
_MIXER = "layers.0.mixer."
#: Rope tables hold cosines and sines, at most 1; checkpoints may store them in bfloat16, whose
#: spacing just below 1 is 2**-8 (8 bits of precision). Another formula is off by far more.
ROPE_TOLERANCE = 2.0**-8


@dataclass(frozen=True)
class Shapes:
    """Everything about an architecture that can be read from tensor shapes and key names.

    Attributes:
        cls_tokens: number of class tokens: 0, 1 or 2.
        tokens: rows of ``pos_embed``; None without one.
        rope_grid: patches per side of the rope tables; None without rope.
        pt_hw_seq_len: grid that the rope tables are scaled to; None without rope.
        direction: ``none``, ``v1`` or ``v2``.
        layer_scale: whether there is a ``gamma``.
    """

    embed_dim: int
    channels: int
    patch_hw: tuple[int, int]
    depth: int
    d_state: int
    d_inner: int
    d_conv: int
    dt_rank: int
    conv_bias: bool
    bias: bool
    direction: str
    layer_scale: bool
    rms_norm: bool
    num_classes: int
    cls_tokens: int
    tokens: int | None
    rope_grid: int | None
    pt_hw_seq_len: int | None

    @property
    def patches(self) -> int | None:
        """Patches per image; None when neither pos_embed nor rope tells."""
        if self.tokens is not None:
            return self.tokens - self.cls_tokens
        return None if self.rope_grid is None else self.rope_grid**2

    def differences(self, config: VimConfig) -> list[str]:
        """What of ``config``, image size, stride and classes apart, these shapes contradict."""
        ssm = config.ssm
        tokens = len(config.cls_positions)
        pairs: dict[str, tuple[object, object]] = {
            "embed_dim": (self.embed_dim, config.embed_dim),
            "channels": (self.channels, config.channels),
            "patch size": (self.patch_hw, config.patch_hw),
            "depth": (self.depth, config.depth),
            "d_state": (self.d_state, config.d_state),
            "inner channels": (self.d_inner, config.d_inner),
            "d_conv": (self.d_conv, ssm["d_conv"]),
            "dt_rank": (self.dt_rank, ssm["dt_rank"]),
            "conv_bias": (self.conv_bias, ssm["conv_bias"]),
            "bias": (self.bias, ssm["bias"]),
            "bimamba_type": (self.direction, config.direction_type),
            "layer scale": (self.layer_scale, config.init_layer_scale is not None),
            "rms_norm": (self.rms_norm, config.rms_norm),
            "class tokens": (self.cls_tokens, tokens),
            "position embedding": (self.tokens is not None, config.if_abs_pos_embed),
            "rope": (self.rope_grid is not None, config.if_rope),
        }
        return [f"{name} {found}, not {want}" for name, (found, want) in pairs.items()
                if found != want]  # fmt: skip


def measure(state_dict: Mapping[str, Tensor]) -> Shapes:
    """Read the shapes.

    Raises:
        VimDeployError: VIM-407 when these are not the keys of a Vision Mamba.
    """
    refuse_other_models(state_dict)
    patch = _tensor(state_dict, "patch_embed.proj.weight", 4)
    a_log = _tensor(state_dict, _MIXER + "A_log", 2)
    embed_dim, channels, patch_h, patch_w = patch.shape
    rope_grid, pretrained = _rope(state_dict, embed_dim)
    return Shapes(
        embed_dim=embed_dim,
        channels=channels,
        patch_hw=(patch_h, patch_w),
        depth=_depth(state_dict),
        d_state=a_log.shape[1],
        d_inner=a_log.shape[0],
        d_conv=_tensor(state_dict, _MIXER + "conv1d.weight", 3).shape[2],
        dt_rank=_tensor(state_dict, _MIXER + "dt_proj.weight", 2).shape[1],
        conv_bias=_MIXER + "conv1d.bias" in state_dict,
        bias=_MIXER + "in_proj.bias" in state_dict,
        direction=_direction(state_dict),
        layer_scale=_MIXER + "gamma" in state_dict,
        rms_norm="layers.0.norm.bias" not in state_dict,
        num_classes=_rows(state_dict, "head.weight", 2) or 0,
        cls_tokens=sum(k.startswith("cls_token") and "." not in k for k in state_dict),
        tokens=_rows(state_dict, "pos_embed", 3, axis=1),
        rope_grid=rope_grid,
        pt_hw_seq_len=pretrained,
    )


def refuse_other_models(state_dict: Mapping[str, Tensor]) -> None:
    """VIM-407 for the keys of anything but a Vim."""
    first = {key.partition(".")[0] for key in state_dict}
    if not state_dict.keys() >= {*FIRST.keys}:
        pairs = "; nor ".join(
            f"{' and '.join(family.keys)} ({family.title})" for family in FAMILIES
        )
        raise cannot_infer(
            "these are not the weights of a Vision Mamba or of another family that is known here",
            f"there are not {pairs}; keys start with {', '.join(sorted(first)[:8])}",
            "give a checkpoint of the authors' code, or its keywords with --config",
        )


def _tensor(state_dict: Mapping[str, Tensor], key: str, axes: int) -> Tensor:
    tensor = state_dict.get(key)
    if tensor is None or tensor.ndim != axes or 0 in tensor.shape:
        found = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
        raise cannot_infer(
            f"the architecture cannot be inferred: {key} {found}",
            f"expected {axes} axes, none of them empty",
        )
    return tensor


def _rows(state_dict: Mapping[str, Tensor], key: str, axes: int, axis: int = 0) -> int | None:
    return _tensor(state_dict, key, axes).shape[axis] if key in state_dict else None


def _depth(state_dict: Mapping[str, Tensor]) -> int:
    indices = {int(match[1]) for key in state_dict if (match := _LAYER.match(key))}
    missing = next(index for index in range(len(indices) + 1) if index not in indices)
    if missing != len(indices):
        raise cannot_infer(
            "the architecture cannot be inferred: layers are not numbered without gaps",
            f"there are {len(indices)} layers, but no layers.{missing}",
        )
    return len(indices)


def _direction(state_dict: Mapping[str, Tensor]) -> str:
    if _MIXER + "conv1d_b.weight" in state_dict:
        return "v2"
    return "v1" if _MIXER + "A_b_log" in state_dict else "none"


def _rope(state_dict: Mapping[str, Tensor], dim: int) -> tuple[int | None, int | None]:
    """Grid of the rope tables and the grid they are scaled to.

    The angle of grid row 1 at frequency w is ``pt_hw_seq_len / grid * w``. The lowest frequency is
    taken, where that angle is far below a full turn and its sine can be inverted.
    """
    if "rope.freqs_cos" not in state_dict:
        return None, None
    cosines = _tensor(state_dict, "rope.freqs_cos", 2)
    sines = _tensor(state_dict, "rope.freqs_sin", 2)
    grid = math.isqrt(cosines.shape[0])
    if tuple(cosines.shape) != (grid * grid, dim) or sines.shape != cosines.shape or dim % 4:
        raise cannot_infer(
            "the architecture cannot be inferred: the rope tables have an unknown form",
            f"freqs_cos {tuple(cosines.shape)}, freqs_sin {tuple(sines.shape)}; expected "
            f"[grid * grid, {dim}]",
        )
    if grid == 1:
        # Only position 0, whose angles are 0 at any scale: the default, which has no effect.
        return 1, VimConfig.pt_hw_seq_len
    unit = rope_tables(dim, grid, 1)
    channel = dim // 2 - 1
    ratio = math.atan2(float(sines[grid, channel]), float(cosines[grid, channel])) / math.atan2(
        float(unit[1][grid, channel]), float(unit[0][grid, channel])
    )
    pretrained = round(ratio)
    if pretrained < 1 or not rope_agrees((cosines, sines), rope_tables(dim, grid, pretrained)):
        raise cannot_infer(
            "the architecture cannot be inferred: the rope tables do not follow the formula",
            f"the nearest pt_hw_seq_len is {ratio:.3f}",
        )
    return grid, pretrained


def rope_agrees(found: tuple[Tensor, Tensor], computed: tuple[Tensor, Tensor]) -> bool:
    """Whether two pairs of (cosines, sines) are equal within what storage can round."""
    return all(
        torch.allclose(a, b, rtol=0.0, atol=ROPE_TOLERANCE)
        for a, b in zip(found, computed, strict=True)
    )
