"""The official VisionMamba constructor's keywords as a frozen record.

Names and defaults are those of ``VisionMamba.__init__`` in hustvl/Vim (vim/models_mamba.py), so a
config written for the official code works here. Unlike there, an unknown or misspelt keyword is an
error, and combinations that the official code cannot run are refused before anything is loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vim_deploy.codec import Number, decode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.base import ModelConfig, ModelSize
from vim_deploy.families.vim.backbone import require_backbone
from vim_deploy.families.vim.checks import (
    SSM_CFG_DEFAULTS,
    check_rope,
    check_ssm_cfg,
    check_tokens,
    check_values,
    refuse,
)
from vim_deploy.families.vim.memory import map_pixels, model_size
from vim_deploy.places import DIRECTED, block_scope, direction_of

if TYPE_CHECKING:
    from vim_deploy.recipe.dense_config import DenseConfig


@dataclass(frozen=True)
class VimConfig(ModelConfig):
    """One Vision Mamba architecture.

    ``img_size`` and ``patch_size`` are an int or (height, width). ``drop_rate``,
    ``drop_path_rate``, ``initializer_cfg`` and ``ft_seq_len`` steer training only;
    ``fused_add_norm`` and ``residual_in_fp32`` choose kernels and change no float32 result. They
    are kept so that a config survives a round trip.

    Raises:
        VimDeployError: VIM-408 for values or combinations that cannot run.
    """

    family: ClassVar[str] = "vim"
    has_tokens: ClassVar[bool] = True

    img_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    stride: int = 16
    depth: int = 24
    embed_dim: int = 192
    d_state: int = 16
    channels: int = 3
    num_classes: int = 1000
    ssm_cfg: Mapping[str, Any] | None = None
    drop_rate: Number = 0.0
    drop_path_rate: Number = 0.1
    norm_epsilon: Number = 1e-5
    rms_norm: bool = True
    initializer_cfg: Mapping[str, Any] | None = None
    fused_add_norm: bool = True
    residual_in_fp32: bool = True
    ft_seq_len: int | None = None
    pt_hw_seq_len: int = 14
    if_bidirectional: bool = False
    final_pool_type: str = "none"
    if_abs_pos_embed: bool = True
    if_rope: bool = False
    if_rope_residual: bool = False
    flip_img_sequences_ratio: Number = -1.0
    if_bimamba: bool = False
    bimamba_type: str = "v2"
    if_cls_token: bool = True
    if_divide_out: bool = True
    init_layer_scale: Number | None = None
    use_double_cls_token: bool = False
    use_middle_cls_token: bool = True

    def __post_init__(self) -> None:
        check_values(self)
        check_ssm_cfg(self)
        check_tokens(self)
        check_rope(self)

    # Derived sizes ------------------------------------------------------------------------

    @property
    def image_hw(self) -> tuple[int, int]:
        """Input height and width in pixels."""
        return _as_pair(self.img_size)

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Patch height and width in pixels."""
        return _as_pair(self.patch_size)

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of patches: (image - patch) // stride + 1."""
        (height, width), (patch_h, patch_w) = self.image_hw, self.patch_hw
        return (height - patch_h) // self.stride + 1, (width - patch_w) // self.stride + 1

    @property
    def unread_hw(self) -> tuple[int, int]:
        """Rows of pixels at the bottom and columns at the right that no patch reaches."""
        pairs = zip(self.image_hw, self.patch_hw, strict=True)
        rows, columns = ((side - patch) % self.stride for side, patch in pairs)
        return rows, columns

    @property
    def num_patches(self) -> int:
        """Patches per image."""
        rows, columns = self.grid_hw
        return rows * columns

    @property
    def cls_positions(self) -> tuple[int, ...]:
        """Indices of the class tokens in the sequence of ``num_tokens`` rows; may be empty."""
        if not self.if_cls_token:
            return ()
        if self.use_double_cls_token:
            return 0, self.num_patches + 1
        return (self.num_patches // 2,) if self.use_middle_cls_token else (0,)

    @property
    def num_tokens(self) -> int:
        """Sequence length L: patches and class tokens."""
        return self.num_patches + len(self.cls_positions)

    @property
    def token_counts(self) -> frozenset[int]:
        """The whole sequence, and that without class tokens."""
        return frozenset({self.num_tokens, self.num_patches})

    @property
    def direction_type(self) -> str:
        """``none``, ``v1`` or ``v2`` as it takes effect (``if_bimamba`` forces v1)."""
        return "v1" if self.if_bimamba else self.bimamba_type

    @property
    def ssm(self) -> dict[str, Any]:
        """``ssm_cfg`` with the official defaults filled in and ``dt_rank`` resolved."""
        values = {**SSM_CFG_DEFAULTS, **(self.ssm_cfg or {})}
        if values["dt_rank"] == "auto":
            values["dt_rank"] = math.ceil(self.embed_dim / 16)
        return values

    @property
    def dt_rank(self) -> int:
        """Rank of the step sizes."""
        return int(self.ssm["dt_rank"])

    @property
    def d_inner(self) -> int:
        """Channels inside the mixer."""
        return int(self.ssm["expand"] * self.embed_dim)

    @property
    def layers_run(self) -> int:
        """Layers that take part: in two-layer mode an odd last layer never runs."""
        return self.depth - self.depth % 2 if self.if_bidirectional else self.depth

    @property
    def blocks(self) -> int:
        """As ``layers_run``."""
        return self.layers_run

    @property
    def width(self) -> int:
        """As ``embed_dim``."""
        return self.embed_dim

    @property
    def in_words(self) -> str:
        """Blocks, width and patches."""
        patches = f"patches of {_size_text(self.patch_hw)} every {self.stride}"
        return f"{self.depth} blocks of width {self.embed_dim}, {patches}"

    @property
    def scans_per_layer(self) -> int:
        """Scan directions of one mixer; without the fast path the official code runs one."""
        return 2 if self.direction_type != "none" and self.ssm["use_fast_path"] else 1

    @property
    def scans(self) -> tuple[int, int]:
        """One of each way a layer, or one alone, which a mirrored layer has in reverse."""
        if self.scans_per_layer == 2:
            return self.layers_run, self.layers_run
        mirrored = sum(self.mirrored(layer) for layer in range(self.layers_run))
        return self.layers_run - mirrored, mirrored

    @property
    def fused_mixers(self) -> int:
        """All of a v2 model that runs both directions."""
        fuses = self.direction_type == "v2" and self.scans_per_layer == 2
        return self.layers_run if fuses else 0

    @property
    def has_class_scores(self) -> bool:
        """A maximum over the classes leaves none, either."""
        maximum = self.if_cls_token and self.final_pool_type == "max"
        return self.num_classes > 1 and not maximum

    def mirrored(self, layer: int) -> bool:
        """Whether a layer's two directions are exchanged.

        In two-layer mode the odd layer of a pair sees the flipped sequence. Running it on tokens
        in natural order with both directions exchanged gives the same result without a flip.
        """
        return self.if_bidirectional and layer % 2 == 1

    @property
    def flips_sequence(self) -> bool:
        """Whether the token sequence is reversed after the position embedding."""
        return self.flip_img_sequences_ratio > 0

    def size(self, *, native: bool) -> ModelSize:
        """How much a run holds at once."""
        return model_size(self, native=native)

    def map_pixels(self, dense: DenseConfig) -> tuple[int, ...]:
        """Pixels of each feature map, the finest first."""
        return map_pixels(self, dense)

    def require_dense(self, dense: DenseConfig) -> None:
        """VIM-408 unless ``dense`` can stand on this Vim, VIM-406 for too small an image."""
        require_backbone(dense, self)

    def scope(self, path: str) -> str:
        """Such as ``block_03/mixer/bwd/x_proj`` for ``layers.3.mixer.x_proj_b``."""
        layer = _LAYER.fullmatch(path)
        if layer is None:
            return path.replace(".", "/")
        block, inner = int(layer[1]), layer[2] or ""
        branch = _BRANCH.fullmatch(inner)
        if branch is not None:
            direction = direction_of(branch[2] is not None, self.mirrored(block))
            inner = f"mixer.{direction}.{branch[1]}"
        return "/".join([block_scope(block), *(inner.split(".") if inner else ())])

    def at_size(self, size: int | tuple[int, int], *, covered: bool = False) -> VimConfig:
        """This architecture at another input size.

        Pixels at the bottom and at the right that the last patch does not reach are not read, as
        in the official code (``PatchEmbed`` in ``models_mamba.py`` floors); ``unread_hw`` counts
        them.

        Args:
            size: in pixels, square or (height, width).
            covered: refuse sizes with such pixels, for models whose maps have to fit the picture.

        Raises:
            VimDeployError: VIM-406 when the image is smaller than a patch, or is not covered and
                has to be, with the nearest sizes that are; VIM-408 when the model has rope and the
                size does not suit it.
        """
        wanted = size if isinstance(size, tuple) else (size, size)
        if wanted == self.image_hw:
            return self
        sides = list(zip(wanted, self.patch_hw, strict=True))
        good = [_covered(side, patch, self.stride) for side, patch in sides]
        small = any(side < patch for side, patch in sides)
        uncovered = any(side not in fits for side, fits in zip(wanted, good, strict=True))
        if small or (covered and uncovered):
            lower, upper = (fits[0] for fits in good), (fits[-1] for fits in good)
            choices = dict.fromkeys(_size_text(pair) for pair in (tuple(lower), tuple(upper)))
            patches = f"patches of {_size_text(self.patch_hw)} pixels every {self.stride} pixels"
            raise VimDeployError(
                "VIM-406",
                f"image size {_size_text(wanted)} is not covered by the patches",
                why=patches
                + (": the image is smaller than one" if small else " leave pixels over"),
                fix="--image-size " + " or ".join(choices),
            )
        return self.replace(img_size=wanted[0] if wanted[0] == wanted[1] else wanted)


#: What reads a table of keywords, by ``families.Family``.
CONFIG = VimConfig
_LAYER = re.compile(r"layers\.([0-9]{1,6})(?:\.(.*))?")
_BRANCH = re.compile(rf"mixer\.({'|'.join(DIRECTED.values())})(_b)?")


def _covered(side: int, patch: int, stride: int) -> tuple[int, ...]:
    """The nearest covered sides: ``side`` alone, or the ones below and above."""
    if side < patch:
        return (patch,)
    lower = side - (side - patch) % stride
    return (side,) if lower == side else (lower, lower + stride)


def _size_text(size: tuple[int, ...]) -> str:
    return str(size[0]) if len(set(size)) == 1 else "x".join(map(str, size))


def read_config(values: Mapping[str, Any]) -> VimConfig:
    """The architecture that the official keywords name (JSON or TOML types).

    Raises:
        VimDeployError: VIM-201 for an unknown keyword, VIM-408 for values that cannot run.
    """
    given = {**values}
    given.pop("family", None)
    for name in ("device", "dtype"):
        if given.pop(name, None) is not None:
            raise refuse(
                f"{name}={values[name]!r} cannot be set",
                "the exported precision does not depend on it",
                f"drop {name!r} from the config",
            )
    return decode(
        given,
        VimConfig,
        lambda why: refuse(why, "the official constructor takes something else there"),
        on_unknown=_unknown,
        on_own=lambda error: error,
    )


def _unknown(name: str, fix: str) -> VimDeployError:
    why = "the official code would swallow it without effect"
    return VimDeployError("VIM-201", f"unknown model option {name!r}", why=why, fix=fix)


def _as_pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
