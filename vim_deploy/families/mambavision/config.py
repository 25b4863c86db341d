"""The official MambaVision constructor's keywords as a frozen record.

Names and defaults are those of ``MambaVision.__init__`` in NVlabs/MambaVision
(mambavision/models/mamba_vision.py), and ``img_size`` for the size of the pictures, which the
official network takes from its input. Unlike there, an unknown keyword is an error, and what the
official code cannot run is refused before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vim_deploy.codec import Number, decode, stored
from vim_deploy.errors import VimDeployError
from vim_deploy.families.base import ModelConfig, ModelSize
from vim_deploy.families.mambavision.layout import CONV_LEVELS, LEVELS
from vim_deploy.families.mambavision.memory import model_size
from vim_deploy.places import DIRECTIONS, block_scope

#: Channels for each rank of the step sizes.
_CHANNELS_A_RANK = 16
_IN_LEVEL = re.compile(r"levels\.([0-9])(?:\.(.*))?")
_IN_BLOCK = re.compile(r"blocks\.([0-9]{1,6})(?:\.(.*))?")
#: Modules of the mixer's branch that scans.
_IN_BRANCH = re.compile(r"mixer\.(?:(conv1d)_x|(x_proj|dt_proj|scan))(?![^.])")
#: Largest ``dim`` of the published models that have at most 8 GFLOPs at 224 pixels.
_SMALL_DIM = 96
#: Largest side, depth and width accepted; above them a config is a mistake, not a model.
_LIMIT = 1 << 16


#: Says in files and recipes whose keywords these are.
FAMILY = {"family": "mambavision"}


@stored(head=FAMILY)
@dataclass(frozen=True)
class MambaVisionConfig(ModelConfig):
    """One MambaVision architecture.

    ``img_size`` is an int or (height, width), any size from 1 pixel on. ``window_size`` and
    ``num_heads`` have a number for each level; those of the first two levels have no effect, as in
    the official code. ``qk_scale`` is a switch there: layer norms on queries and keys.
    ``layer_scale`` and ``layer_scale_conv`` are start values; a number says that the factors exist.
    ``drop_path_rate``, ``drop_rate`` and ``attn_drop_rate`` steer training only, ``resolution`` has
    no effect officially. They are kept so that a config survives a round trip.

    Raises:
        VimDeployError: VIM-408 for values or combinations that cannot run.
    """

    family: ClassVar[str] = FAMILY["family"]
    attends: ClassVar[bool] = True
    #: Of the tanh form of GELU.
    operators: ClassVar[frozenset[str]] = frozenset({"Tanh"})

    dim: int
    in_dim: int
    depths: tuple[int, ...]
    window_size: tuple[int, ...]
    mlp_ratio: Number
    num_heads: tuple[int, ...]
    drop_path_rate: Number = 0.2
    in_chans: int = 3
    num_classes: int = 1000
    qkv_bias: bool = True
    qk_scale: bool | None = None
    drop_rate: Number = 0.0
    attn_drop_rate: Number = 0.0
    layer_scale: Number | None = None
    layer_scale_conv: Number | None = None
    resolution: int = 224
    img_size: int | tuple[int, int] = 224

    def __post_init__(self) -> None:
        _check_values(self)
        _check_heads(self)

    # Derived sizes ------------------------------------------------------------------------

    @property
    def image_hw(self) -> tuple[int, int]:
        """Input height and width in pixels."""
        return self.img_size if isinstance(self.img_size, tuple) else (self.img_size,) * 2

    @property
    def channels(self) -> int:
        """Channels of a picture."""
        return self.in_chans

    @property
    def blocks(self) -> int:
        """Blocks of all levels, which are numbered through."""
        return sum(self.depths)

    @property
    def width(self) -> int:
        """Channels of the last level."""
        return self.level_width(LEVELS - 1)

    @property
    def in_words(self) -> str:
        """Blocks of each level, widths and windows."""
        depths = "+".join(map(str, self.depths))
        windows = " and ".join(str(side) for side in self.window_size[CONV_LEVELS:])
        return f"{depths} blocks, widths {self.dim} to {self.width}, windows of {windows}"

    @property
    def deit_width(self) -> int:
        """DeiT-S for models of up to 8 GFLOPs, DeiT-B for those above."""
        return 384 if self.dim <= _SMALL_DIM else 768

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Any picture is read: convolutions and windows go over its edges."""
        return 1, 1

    @property
    def num_tokens(self) -> int:
        """Positions of the largest map, the zeros that fill windows included."""
        return max(map(self.positions, range(LEVELS)))

    @property
    def attention_scores(self) -> int:
        """Of the level with most."""
        return max(map(self.scores, range(LEVELS)))

    def scores(self, level: int) -> int:
        """Scores of a block of a level that attends: of a position with its window, each head."""
        heads, window = self.num_heads[level], self.window_size[level] ** 2
        return heads * self.positions(level) * window if self.attention(level) else 0

    @property
    def scans(self) -> tuple[int, int]:
        """One forward scan a mixer."""
        return sum(map(self.mixers, range(LEVELS))), 0

    @property
    def dt_rank(self) -> int:
        """That of the last level."""
        return self.rank(LEVELS - 1)

    def size(self, *, native: bool) -> ModelSize:
        """Kernels for our ops change little: most is held in convolutions."""
        return model_size(self)

    def at_size(self, size: int | tuple[int, int], *, covered: bool = False) -> MambaVisionConfig:
        """This architecture for pictures of another size: any, and all of their pixels are read.

        Args:
            size: in pixels, square or (height, width).
            covered: every size is.

        Raises:
            VimDeployError: VIM-408 for a size out of range.
        """
        wanted = size if isinstance(size, tuple) else (size, size)
        if wanted == self.image_hw:
            return self
        return self.replace(img_size=wanted[0] if wanted[0] == wanted[1] else wanted)

    def first_block(self, level: int) -> int:
        """Number of a level's first block."""
        return sum(self.depths[:level])

    def level_width(self, level: int) -> int:
        """Channels of a level."""
        return self.dim << level

    def map_hw(self, level: int) -> tuple[int, int]:
        """Height and width of a level's map: the image's, halved and rounded up 2 + level times."""
        height, width = (-(-side // (4 << level)) for side in self.image_hw)
        return height, width

    def windows_hw(self, level: int) -> tuple[int, int]:
        """Rows and columns of windows that cover a level's map; zeros stand where they go over."""
        rows, columns = (-(-side // self.window_size[level]) for side in self.map_hw(level))
        return rows, columns

    def positions(self, level: int) -> int:
        """Positions of a level's map, the zeros that fill its windows included."""
        if level < CONV_LEVELS:
            height, width = self.map_hw(level)
            return height * width
        rows, columns = self.windows_hw(level)
        return rows * columns * self.window_size[level] ** 2

    def mixers(self, level: int) -> int:
        """Blocks of a level that scan; those behind them attend. None in a level of convolutions.

        The first half, and of an odd number the middle one, too.
        """
        return 0 if level < CONV_LEVELS else -(-self.depths[level] // 2)

    def attention(self, level: int) -> int:
        """Blocks of a level that attend, its last ones."""
        return 0 if level < CONV_LEVELS else self.depths[level] // 2

    def scope(self, path: str) -> str:
        """How the names of a module's nodes begin.

        Args:
            path: of the module in the network, such as ``levels.2.blocks.1.mixer.x_proj``.

        Returns:
            Such as ``block_05/mixer/fwd/x_proj``; empty for the network itself.
        """
        found = _IN_LEVEL.fullmatch(path)
        if found is None:
            return path.replace(".", "/")
        level, inner = int(found[1]), found[2] or ""
        block = _IN_BLOCK.fullmatch(inner)
        if block is not None:
            branch = f"mixer.{DIRECTIONS[0]}."
            inner = _IN_BRANCH.sub(rf"{branch}\1\2", block[2] or "", count=1)
            parts = [block_scope(self.first_block(level) + int(block[1])), *inner.split(".")]
            return "/".join(filter(None, parts))
        return f"downsample_{level}" if inner.startswith("downsample") else f"level_{level}"

    def hidden(self, level: int) -> int:
        """Channels inside the MLPs of a level."""
        return int(self.level_width(level) * self.mlp_ratio)

    def rank(self, level: int) -> int:
        """Rank of the step sizes of a level."""
        return -(-self.level_width(level) // _CHANNELS_A_RANK)


#: What reads a table of keywords, by ``families.Family``.
CONFIG = MambaVisionConfig


def read_config(values: Mapping[str, Any]) -> MambaVisionConfig:
    """The architecture that the official keywords name (JSON or TOML types).

    A ``config.json`` of Hugging Face (``model_type``) is taken as well: what else stands in it has
    no effect on the network. Without ``img_size`` the pictures have the side that ``resolution``
    says, as the official factories use that keyword.

    Raises:
        VimDeployError: VIM-201 for an unknown keyword, VIM-408 for values that cannot run.
    """
    given = {**(own_keywords(values) if "model_type" in values else values), **FAMILY}
    if "resolution" in given:
        given.setdefault("img_size", given["resolution"])
    return decode(
        given,
        MambaVisionConfig,
        lambda why: _refuse(why, "the official constructor takes something else there"),
        on_unknown=_unknown,
        on_own=lambda error: error,
    )


def own_keywords(table: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's keywords in a ``config.json`` of Hugging Face; none of another model's."""
    if table.get("model_type") != MambaVisionConfig.family:
        return {}
    names = {item.name for item in dataclasses.fields(MambaVisionConfig)}
    return {name: value for name, value in table.items() if name in names}


def _unknown(name: str, fix: str) -> VimDeployError:
    why = "the official code would swallow it without effect"
    return VimDeployError("VIM-201", f"unknown model option {name!r}", why=why, fix=fix)


def _refuse(message: str, why: str, fix: str = "change the model config") -> VimDeployError:
    return VimDeployError("VIM-408", message, why=why, fix=fix)


def _check_values(config: MambaVisionConfig) -> None:
    for name in ("depths", "window_size", "num_heads"):
        if len(getattr(config, name)) != LEVELS:
            raise _refuse(
                f"{name} has {len(getattr(config, name))} numbers",
                f"the network has {LEVELS} levels, and the official code runs with no others",
            )
    sizes = [(name, getattr(config, name)) for name in ("dim", "in_dim", "in_chans", "resolution")]
    sizes += [("img_size", side) for side in config.image_hw]
    sizes += [("window_size", side) for side in config.window_size]
    sizes += [("num_heads", heads) for heads in config.num_heads]
    for name, size in sizes:
        if not 0 < size <= _LIMIT:
            raise _refuse(f"{name}={getattr(config, name)} is out of range", f"1 to {_LIMIT}")
    for name, counts in (("depths", config.depths), ("num_classes", (config.num_classes,))):
        if not all(0 <= count <= _LIMIT for count in counts):
            raise _refuse(f"{name}={getattr(config, name)} is out of range", f"0 to {_LIMIT}")
    numbers = ("mlp_ratio", "drop_path_rate", "drop_rate", "attn_drop_rate", "layer_scale",
               "layer_scale_conv")  # fmt: skip
    for name in numbers:
        if not math.isfinite(getattr(config, name) or 0):
            raise _refuse(f"{name}={getattr(config, name)} is not valid", "expected a number")
    last = LEVELS - 1
    if config.level_width(last) > _LIMIT:
        raise _refuse(
            f"dim={config.dim} is out of range",
            f"the last level has {config.level_width(last)} channels",
        )
    if config.hidden(CONV_LEVELS) < 1 or config.hidden(last) > _LIMIT:
        raise _refuse(
            f"mlp_ratio={config.mlp_ratio} is out of range",
            f"{config.hidden(CONV_LEVELS)} to {config.hidden(last)} channels inside the MLPs",
        )


def _check_heads(config: MambaVisionConfig) -> None:
    for level in range(CONV_LEVELS, LEVELS):
        width, heads = config.level_width(level), config.num_heads[level]
        if config.attention(level) and width % heads:
            raise _refuse(
                f"num_heads[{level}]={heads} does not divide {width} channels",
                "every head takes the same number of them",
            )
