"""What the shapes of a MambaVision's weights tell about its architecture.

They do not tell the sides of windows, nor the number of heads unless queries have a norm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vim_deploy.families.mambavision.config import MambaVisionConfig
from vim_deploy.families.mambavision.layout import CONV_LEVELS, LEVELS
from vim_deploy.model.keys import cannot_infer, shape_of

#: Of a batch norm: no output depends on it, and files may lack it.
COUNTER = "num_batches_tracked"
#: Of layer scale, as the published models have it: the weights take its place.
_START = 1e-5
_BLOCK = re.compile(r"levels\.([0-9]{1,6})\.blocks\.([0-9]{1,6})\.")


@dataclass(frozen=True)
class Shapes:
    """Everything that can be read from tensor shapes and key names.

    Attributes:
        hidden: channels inside the MLPs of each level that has some, by its number.
        qk_norm: whether queries and keys have norms.
        layer_scale, layer_scale_conv: whether blocks of tokens, and of convolutions, have factors.
        bias: whether qkv has a bias; None without attention.
    """

    dim: int
    in_dim: int
    in_chans: int
    depths: tuple[int, ...]
    hidden: Mapping[int, int]
    bias: bool | None
    qk_norm: bool
    layer_scale: bool
    layer_scale_conv: bool
    num_classes: int

    def differences(self, config: MambaVisionConfig) -> list[str]:
        """What of ``config``, classes and channels of pictures apart, these shapes contradict."""
        pairs: dict[str, tuple[object, object]] = {
            "dim": (self.dim, config.dim),
            "in_dim": (self.in_dim, config.in_dim),
            "depths": (list(self.depths), list(config.depths)),
            "channels inside the MLPs": (
                list(self.hidden.values()), list(map(config.hidden, self.hidden))
            ),
            "qkv_bias": (self.bias, config.qkv_bias if self.bias is not None else None),
            "norms of queries and keys": (self.qk_norm, bool(config.qk_scale) and self.qk_norm),
            "layer_scale": (self.layer_scale, config.layer_scale is not None),
            "layer_scale_conv": (self.layer_scale_conv, config.layer_scale_conv is not None),
        }  # fmt: skip
        return [f"{name} {found}, not {wanted}" for name, (found, wanted) in pairs.items()
                if found != wanted]  # fmt: skip

    @property
    def mlp_ratio(self) -> int | float:
        """The factor that the official code makes these numbers of channels with.

        Raises:
            VimDeployError: VIM-407 when no factor does.
        """
        for level, hidden in self.hidden.items():
            width = self.dim << level
            # The middle, too: int() of the quotient's product may be one less.
            for ratio in (hidden // width, hidden / width, (hidden + 0.5) / width):
                if all(int((self.dim << n) * ratio) == size for n, size in self.hidden.items()):
                    return ratio
        raise cannot_infer(
            "the architecture cannot be inferred: mlp_ratio",
            f"{list(self.hidden.values())} channels inside the MLPs are no factor times the widths "
            "of the levels",
        )

    @property
    def keywords(self) -> dict[str, Any]:
        """Constructor keywords; of layer scales only that they are there."""
        return {
            "dim": self.dim,
            "in_dim": self.in_dim,
            "in_chans": self.in_chans,
            "depths": self.depths,
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": self.bias is not False,
            "qk_scale": True if self.qk_norm else None,
            "layer_scale": _START if self.layer_scale else None,
            "layer_scale_conv": _START if self.layer_scale_conv else None,
            "num_classes": self.num_classes,
        }


def measure(tensors: Mapping[str, Tensor]) -> Shapes:
    """Read the shapes.

    Raises:
        VimDeployError: VIM-407 when these are not the keys of a MambaVision, or not all.
    """
    depths = _depths(tensors)
    inner, channels, _, _ = shape_of(tensors, "patch_embed.conv_down.0.weight", 4)
    hidden = {
        level: shape_of(tensors, f"levels.{level}.blocks.0.mlp.fc1.weight", 2)[0]
        for level in range(CONV_LEVELS, LEVELS)
        if depths[level]
    }
    attends = any(key.endswith(".mixer.qkv.weight") for key in tensors)
    return Shapes(
        dim=shape_of(tensors, "patch_embed.conv_down.3.weight", 4)[0],
        in_dim=inner,
        in_chans=channels,
        depths=depths,
        hidden=hidden,
        bias=any(key.endswith(".mixer.qkv.bias") for key in tensors) if attends else None,
        qk_norm=any(key.endswith(".mixer.q_norm.weight") for key in tensors),
        layer_scale=any(key.endswith(".gamma_1") for key in tensors),
        layer_scale_conv=any(key.endswith(".gamma") for key in tensors),
        num_classes=shape_of(tensors, "head.weight", 2)[0] if "head.weight" in tensors else 0,
    )


def _depths(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks of each level, which are numbered without gaps."""
    found: dict[int, set[int]] = {level: set() for level in range(LEVELS)}
    for key in tensors:
        if match := _BLOCK.match(key):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    if len(found) > LEVELS or not found[CONV_LEVELS]:
        first = sorted({key.partition(".")[0] for key in tensors})[:8]
        raise cannot_infer(
            "these are not the weights of a MambaVision",
            f"it has {LEVELS} levels, the third with mixers; keys start with {', '.join(first)}",
            "give a checkpoint of NVlabs/MambaVision, or its keywords with --config",
        )
    for level, numbers in found.items():
        if numbers and max(numbers) != len(numbers) - 1:
            missing = next(number for number in range(max(numbers)) if number not in numbers)
            raise cannot_infer(
                "the architecture cannot be inferred: blocks are not numbered without gaps",
                f"level {level} has {len(numbers)} blocks, but no levels.{level}.blocks.{missing}",
            )
    return tuple(len(found[level]) for level in range(LEVELS))
