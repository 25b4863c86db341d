"""The official VSSM constructor's keywords as a frozen record.

Names and defaults are those of ``VSSM.__init__`` in MzeroMiko/VMamba (classification/models/
vmamba.py), so a config written for the official code works here. What the published VMamba-T, S and
B do not have is refused by the name of its option; the official defaults are of an earlier model,
and are refused too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vim_deploy import places
from vim_deploy.codec import Number, decode, stored
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.families.base import ModelConfig, ModelSize
from vim_deploy.families.vmamba.parts import ALONG

#: What a stored or written architecture says of itself.
FAMILY = {"family": "vmamba"}
#: Forward types without a gate whose scans run over rows and columns, both ways. They differ in the
#: kernels and in where half precision is widened, and give one result in float32.
FORWARD_TYPES = ("v01_noz", "v02_noz", "v03_noz", "v04_noz", "v05_noz", "v3_noz")
#: The same norm over channels, on tensors in the one or the other layout.
NORM_LAYERS = ("ln", "ln2d")
#: Convolutions between levels: 2 pixels wide without padding, 3 with it.
DOWNSAMPLE_KERNELS = {"v2": 2, "v3": 3}
#: Directions of a mixer's scans, in the order of the official stacked weights.
DIRECTIONS = tuple(f"{along}_{way}" for way in places.DIRECTIONS for along in ALONG)
#: What the options have to be, with what is said of other values.
_FIXED: dict[str, tuple[tuple[object, ...], str]] = {
    "ssm_act_layer": (("silu",), "the published models have SiLU there"),
    "mlp_act_layer": (("gelu",), "the published models have GELU there"),
    "gmlp": ((False,), "gated MLPs are not supported"),
    "patch_norm": ((True,), "a patch embedding without norms is not supported"),
    "norm_layer": (NORM_LAYERS, "batch norms are not supported"),
    "downsample_version": (tuple(DOWNSAMPLE_KERNELS), "patch merging is not supported"),
    "patchembed_version": (("v2",), "a patch embedding of one convolution is not supported"),
    "patch_size": ((4,), "two convolutions of stride 2 make patches of 4 pixels"),
    "posembed": ((False,), "position embeddings are not supported"),
    "forward_type": (
        FORWARD_TYPES,
        "gates, other norms behind the scans and other orders of tokens are not supported",
    ),
}
_IN_LEVEL = re.compile(r"layers\.([0-9]{1,6})(?:\.(.*))?")
_IN_BLOCK = re.compile(r"blocks\.([0-9]{1,6})(?:\.(.*))?")
#: Modules of one direction's scan, whose nodes say which tokens it goes along.
_IN_DIRECTION = re.compile(rf"op\.(\w+)_({'|'.join(places.DIRECTIONS)})\.(\w+)")
#: Modules by what other architectures call them, and what is one part of many layers.
_SCOPES = {"classifier.norm": "norm_f", "classifier.head": "head"}
#: In a block what adds to the stream stands in the block itself, a SiLU with its convolution.
_IN_BLOCK_SCOPES = {"residual": "", "residual2": "", "op.act": "op.conv2d"}
#: Largest side, depth and width accepted; above them a config is a mistake, not a model.
_LIMIT = 1 << 16
#: Values for each token of the first level and channel of its mixers that live at once, read off
#: measured peaks (VMamba-T, 224 px, batch 1 and 5, ONNX Runtime 1.32) and rounded up.
_VALUES = 34
_NATIVE_VALUES = 27
#: Of VMamba-T, 4.9 GFLOPs; VMamba-S has 8.7 (README of MzeroMiko/VMamba).
_SMALL_WIDTH, _SMALL_BLOCKS = 96, 14
#: The most levels, each half the size of the one before.
_LEVELS = 16


@stored(head=FAMILY)
@dataclass(frozen=True)
class VMambaConfig(ModelConfig):
    """One VMamba architecture.

    ``imgsize`` is an int or (height, width); ``dims`` the width of the first level, which doubles
    from one to the next, or those of all. ``ssm_drop_rate``, ``mlp_drop_rate``,
    ``drop_path_rate``, ``ssm_init`` and ``use_checkpoint`` steer training only, and are kept so
    that a config survives a round trip.

    Raises:
        VimDeployError: VIM-408 for values that cannot run, or that are not supported; VIM-406 for
            pictures of which a level would have no pixel left.
    """

    family: ClassVar[str] = FAMILY["family"]

    imgsize: int | tuple[int, int] = 224
    patch_size: int = 4
    in_chans: int = 3
    num_classes: int = 1000
    depths: tuple[int, ...] = (2, 2, 9, 2)
    dims: int | tuple[int, ...] = (96, 192, 384, 768)
    ssm_d_state: int = 16
    ssm_ratio: Number = 2.0
    ssm_dt_rank: int | str = "auto"
    ssm_act_layer: str = "silu"
    ssm_conv: int = 3
    ssm_conv_bias: bool = True
    ssm_drop_rate: Number = 0.0
    ssm_init: str = "v0"
    forward_type: str = "v2"
    mlp_ratio: Number = 4.0
    mlp_act_layer: str = "gelu"
    mlp_drop_rate: Number = 0.0
    gmlp: bool = False
    drop_path_rate: Number = 0.1
    patch_norm: bool = True
    norm_layer: str = "LN"
    downsample_version: str = "v2"
    patchembed_version: str = "v1"
    use_checkpoint: bool = False
    posembed: bool = False

    def __post_init__(self) -> None:
        _check_options(self)
        _check_sizes(self)
        _check_levels(self)

    # Derived sizes ------------------------------------------------------------------------

    @property
    def image_hw(self) -> tuple[int, int]:
        """Input height and width in pixels."""
        return self.imgsize if isinstance(self.imgsize, tuple) else (self.imgsize, self.imgsize)

    @property
    def channels(self) -> int:
        """Colour channels of the input."""
        return self.in_chans

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        if isinstance(self.dims, tuple):
            return self.dims
        return tuple(self.dims << level for level in range(len(self.depths)))

    @property
    def level_hw(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each level's map."""
        kernel = DOWNSAMPLE_KERNELS[self.downsample_version]
        height, width = (_halved(_halved(side, 3), 3) for side in self.image_hw)
        found = [(height, width)]
        while len(found) < len(self.depths):
            height, width = _halved(height, kernel), _halved(width, kernel)
            found.append((height, width))
        return tuple(found)

    @property
    def num_tokens(self) -> int:
        """Tokens of one picture on the first level, the finest."""
        return self.scan_lengths[0]

    @property
    def scan_lengths(self) -> tuple[int, ...]:
        """Tokens of each level, each number once."""
        return tuple(dict.fromkeys(rows * columns for rows, columns in self.level_hw))

    @property
    def token_counts(self) -> frozenset[int]:
        """As ``scan_lengths``."""
        return frozenset(self.scan_lengths)

    @property
    def width(self) -> int:
        """Channels of the last level."""
        return self.widths[-1]

    @property
    def deit_width(self) -> int:
        """DeiT-S for models of up to 8 GFLOPs at 224 pixels, which are the T; DeiT-B above."""
        small = self.widths[0] <= _SMALL_WIDTH and self.blocks <= _SMALL_BLOCKS
        return 384 if small else 768

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Of each side what leaves the last level a pixel; one, where every step is padded."""
        side = 1
        if self.downsample_version == "v2":
            side = 4 * (1 << (len(self.depths) - 1)) - 3
        return side, side

    @property
    def blocks(self) -> int:
        """Blocks of all levels, which are numbered through."""
        return sum(self.depths)

    @property
    def scans(self) -> tuple[int, int]:
        """Scans of all blocks, forward and backward: rows and columns each way."""
        return 2 * self.blocks, 2 * self.blocks

    def d_inner(self, level: int) -> int:
        """Channels inside the mixers of a level."""
        return int(self.ssm_ratio * self.widths[level])

    def rank(self, level: int) -> int:
        """Rank of the step sizes of a level's mixers."""
        if isinstance(self.ssm_dt_rank, int):
            return self.ssm_dt_rank
        return math.ceil(self.widths[level] / 16)

    @property
    def dt_rank(self) -> int:
        """Largest rank of the step sizes."""
        return max(map(self.rank, range(len(self.depths))))

    @property
    def in_words(self) -> str:
        """Blocks, widths and patches."""
        widths = f"{self.widths[0]} to {self.widths[-1]}" if len(self.widths) > 1 else self.width
        return f"{self.blocks} blocks of width {widths}, patches of {self.patch_size}"

    def size(self, *, native: bool) -> ModelSize:
        """Weights of the blocks and what is between and behind them, and values of one picture."""
        weights = self.width * self.num_classes
        for level, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            inner, rank = self.d_inner(level), self.rank(level)
            # in_proj and out_proj; for each direction x_proj, dt_proj, A; the MLP.
            block = 2 * width * inner + len(DIRECTIONS) * inner * (2 * rank + 3 * self.ssm_d_state)
            weights += depth * (block + 2 * width * int(width * self.mlp_ratio))
            if level:
                kernel = DOWNSAMPLE_KERNELS[self.downsample_version]
                weights += width * self.widths[level - 1] * kernel**2
        values = _NATIVE_VALUES if native else _VALUES
        return ModelSize(weights, self.num_tokens * self.d_inner(0) * values)

    def block_at(self, level: int, index: int) -> int:
        """The number of a level's block among those of all levels."""
        return sum(self.depths[:level]) + index

    def scope(self, path: str) -> str:
        """How the names of a module's nodes begin.

        Args:
            path: of the module in the network, such as ``layers.2.blocks.0.op.rows_bwd.x_proj``.

        Returns:
            Such as ``block_04/mixer/bwd/x_proj_rows``; empty for the network itself.
        """
        found = _IN_LEVEL.fullmatch(path)
        if found is None:
            own = "patch_embed" if path.startswith("patch_embed") else _SCOPES.get(path, path)
            return own.replace(".", "/")
        level, inner = int(found[1]), found[2] or ""
        block = _IN_BLOCK.fullmatch(inner)
        if block is None:
            return f"{'downsample' if inner.startswith('downsample') else 'level'}_{level}"
        name = _IN_DIRECTION.sub(r"op.\2.\3_\1", block[2] or "")
        name = re.sub(r"^op\b", "mixer", _IN_BLOCK_SCOPES.get(name, name))
        parts = [places.block_scope(self.block_at(level, int(block[1]))), *name.split(".")]
        return "/".join(filter(None, parts))

    def at_size(self, size: int | tuple[int, int], *, covered: bool = False) -> VMambaConfig:
        """This config at another input size, square or (height, width) in pixels.

        Every pixel is read at every size (``unread_hw``), so ``covered`` asks nothing.

        Raises:
            VimDeployError: VIM-406 when a level would have no pixel left.
        """
        wanted = size if isinstance(size, tuple) else (size, size)
        if wanted == self.image_hw:
            return self
        return self.replace(imgsize=wanted[0] if wanted[0] == wanted[1] else wanted)


#: What ``Family.config`` finds.
CONFIG = VMambaConfig


def read_config(values: Mapping[str, Any]) -> VMambaConfig:
    """The architecture that the official keywords name (JSON or TOML types).

    Raises:
        VimDeployError: VIM-201 for an unknown keyword, VIM-408 for values that cannot run, VIM-406
            for an image size that cannot.
    """
    return decode(
        {**values, **FAMILY},
        VMambaConfig,
        lambda why: _refuse(why, "the official constructor takes something else there"),
        on_unknown=_unknown,
        on_own=lambda error: error,
    )


def _unknown(name: str, fix: str) -> VimDeployError:
    why = "the official code would swallow it without effect"
    return VimDeployError("VIM-201", f"unknown model option {name!r}", why=why, fix=fix)


def _refuse(message: str, why: str, fix: str = "change the model config") -> VimDeployError:
    return VimDeployError("VIM-408", message, why=why, fix=fix)


def _halved(side: int, kernel: int) -> int:
    """Outputs of a convolution of stride 2 on ``side`` pixels; one 3 wide is padded by 1."""
    return (side - 1) // 2 + 1 if kernel == 3 else side // 2


def _check_options(config: VMambaConfig) -> None:
    for name, (valid, why) in _FIXED.items():
        value = getattr(config, name)
        own = value.lower() if name in ("norm_layer", "ssm_act_layer", "mlp_act_layer") else value
        if own not in valid:
            texts = [str(item) for item in valid]
            fix = f"{name} = {texts[0]}" if len(texts) == 1 else nearest(str(value), texts)
            raise _refuse(f"{name}={value!r} is not supported", why, fix)
    if not config.ssm_conv % 2 or not 1 < config.ssm_conv <= _LIMIT:
        raise _refuse(
            f"ssm_conv={config.ssm_conv} is not supported",
            "an odd width from 3 on keeps the map's size",
        )


def _check_sizes(config: VMambaConfig) -> None:
    for name in ("in_chans", "ssm_d_state"):
        if not 0 < getattr(config, name) <= _LIMIT:
            raise _refuse(f"{name}={getattr(config, name)} is out of range", f"1 to {_LIMIT}")
    if not 0 <= config.num_classes <= _LIMIT:
        raise _refuse(f"num_classes={config.num_classes} is out of range", f"0 to {_LIMIT}")
    for name in ("ssm_ratio", "mlp_ratio", "ssm_drop_rate", "mlp_drop_rate", "drop_path_rate"):
        value = getattr(config, name)
        if not math.isfinite(value) or not 0 <= value <= _LIMIT:
            raise _refuse(f"{name}={value} is not valid", f"expected a number from 0 to {_LIMIT}")
    rank = config.ssm_dt_rank
    if rank != "auto" and (not isinstance(rank, int) or not 1 <= rank <= _LIMIT):
        raise _refuse(f"ssm_dt_rank={rank!r} is not valid", f"expected 'auto' or 1 to {_LIMIT}")
    if not all(0 < side <= _LIMIT for side in config.image_hw):
        raise _refuse("imgsize must be positive whole numbers", f"found {config.image_hw}")


def _check_levels(config: VMambaConfig) -> None:
    levels = len(config.depths)
    if not 1 <= levels <= _LEVELS or not all(1 <= depth <= _LIMIT for depth in config.depths):
        raise _refuse(f"depths={config.depths} is not valid", f"1 to {_LEVELS} levels with blocks")
    if len(config.widths) != levels:
        raise _refuse(f"dims={config.dims} is not valid", f"depths has {levels} levels")
    if not all(2 <= width <= _LIMIT for width in config.widths):
        raise _refuse(f"dims={config.dims} is out of range", f"2 to {_LIMIT}")
    if config.widths[0] % 2:
        raise _refuse(
            f"dims={config.dims} is not valid",
            "the first convolution of the patch embedding makes half of the first level's channels",
        )
    for level in range(levels):
        if not 1 <= config.d_inner(level) <= _LIMIT:
            raise _refuse(f"ssm_ratio={config.ssm_ratio} is out of range", f"level {level}")
    if config.mlp_ratio and min(int(width * config.mlp_ratio) for width in config.widths) < 1:
        raise _refuse(f"mlp_ratio={config.mlp_ratio} leaves no channel", "0 is a block without MLP")
    if min(config.level_hw[-1]) < 1:
        raise VimDeployError(
            "VIM-406",
            f"image {config.image_hw} is too small: level {levels - 1} has no pixel left",
            fix=f"--image-size {config.patch_hw[0]} or more",
        )
