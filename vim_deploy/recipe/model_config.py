"""The official VisionMamba constructor's keywords as a frozen record.

Names and defaults are those of ``VisionMamba.__init__`` in hustvl/Vim (vim/models_mamba.py), so a
config written for the official code works here. Unlike there, an unknown or misspelt keyword is an
error, and combinations that the official code cannot run are refused before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vim_deploy.codec import Number, decode
from vim_deploy.errors import VimDeployError, nearest

POOL_TYPES = ("none", "mean", "max", "all")
BIMAMBA_TYPES = ("none", "v1", "v2")

#: Keywords of the official Mamba module that ``ssm_cfg`` may hold, with its defaults. The dt_*
#: ones and nothing else only steer the initialisation, so they have no effect on a loaded model.
SSM_CFG_DEFAULTS: dict[str, Any] = {
    "d_conv": 4,
    "expand": 2,
    "dt_rank": "auto",
    "dt_min": 0.001,
    "dt_max": 0.1,
    "dt_init": "random",
    "dt_scale": 1.0,
    "dt_init_floor": 1e-4,
    "conv_bias": True,
    "bias": False,
    "use_fast_path": True,
}
#: Keywords that the official create_block passes itself; in ``ssm_cfg`` they are given twice.
_SSM_CFG_TAKEN = {
    "d_model": "embed_dim",
    "d_state": "d_state",
    "layer_idx": "depth",
    "bimamba_type": "bimamba_type",
    "if_divide_out": "if_divide_out",
    "init_layer_scale": "init_layer_scale",
}


@dataclass(frozen=True)
class ModelConfig:
    """One Vision Mamba architecture.

    ``img_size`` and ``patch_size`` are an int or (height, width). ``drop_rate``,
    ``drop_path_rate``, ``initializer_cfg`` and ``ft_seq_len`` steer training only;
    ``fused_add_norm`` and ``residual_in_fp32`` choose kernels and change no float32 result. They
    are kept so that a config survives a round trip.

    Raises:
        VimDeployError: VIM-408 for values or combinations that cannot run.
    """

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
        _check_values(self)
        _check_ssm_cfg(self)
        _check_tokens(self)
        _check_rope(self)

    def replace(self, **changes: Any) -> ModelConfig:  # noqa: ANN401 - values of any field
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    # Derived sizes ------------------------------------------------------------------------

    @property
    def image_hw(self) -> tuple[int, int]:
        """Input height and width in pixels."""
        return _as_pair(self.img_size)

    @property
    def classes(self) -> int:
        """Classes that the outputs tell apart: one logit is positive for the second of two."""
        return 2 if self.num_classes == 1 else self.num_classes

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
    def scans_per_layer(self) -> int:
        """Scan directions of one mixer; without the fast path the official code runs one."""
        return 2 if self.direction_type != "none" and self.ssm["use_fast_path"] else 1

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


def read_config(values: Mapping[str, Any]) -> ModelConfig:
    """The architecture that the official keywords name (JSON or TOML types).

    Raises:
        VimDeployError: VIM-201 for an unknown keyword, VIM-408 for values that cannot run.
    """
    given = {**values}
    for name in ("device", "dtype"):
        if given.pop(name, None) is not None:
            raise _refuse(
                f"{name}={values[name]!r} cannot be set",
                "the exported precision does not depend on it",
                f"drop {name!r} from the config",
            )
    return decode(
        given,
        ModelConfig,
        lambda why: _refuse(why, "the official constructor takes another type there"),
        on_unknown=_unknown,
        on_own=lambda error: error,
    )


def _unknown(name: str, fix: str) -> VimDeployError:
    why = "the official code would swallow it without effect"
    return VimDeployError("VIM-201", f"unknown model option {name!r}", why=why, fix=fix)


def _as_pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _refuse(message: str, why: str, fix: str = "change the model config") -> VimDeployError:
    return VimDeployError("VIM-408", message, why=why, fix=fix)


def _is_whole(value: object) -> bool:
    # bool is an int to Python, and not a number to anybody else.
    return isinstance(value, int) and not isinstance(value, bool)


#: Largest side, depth and width accepted; above them a config is a mistake, not a model.
_LIMIT = 1 << 16


def unread_note(unread: tuple[int, int]) -> str:
    """A sentence on rows and columns of pixels that no patch reads; empty when there are none."""
    places = zip(unread, ("row", "column"), ("at the bottom", "at the right"), strict=True)
    parts = [f"{n} {what}{'s' * (n > 1)} of pixels {where}" for n, what, where in places if n]
    if not parts:
        return ""
    verb = "are" if sum(unread) > 1 else "is"
    return f"{' and '.join(parts)} {verb} not read: no patch reaches there"


def _check_values(config: ModelConfig) -> None:
    sizes = (*config.image_hw, *config.patch_hw)
    if not all(0 < size <= _LIMIT for size in sizes):
        raise _refuse("img_size and patch_size must be positive whole numbers", f"found {sizes}")
    for name in ("stride", "embed_dim", "d_state", "channels", "pt_hw_seq_len"):
        if not 0 < getattr(config, name) <= _LIMIT:
            raise _refuse(f"{name}={getattr(config, name)} is out of range", f"1 to {_LIMIT}")
    for name in ("depth", "num_classes"):
        if not 0 <= getattr(config, name) <= _LIMIT:
            raise _refuse(f"{name}={getattr(config, name)} is out of range", f"0 to {_LIMIT}")
    for name in ("norm_epsilon", "flip_img_sequences_ratio", "drop_rate", "drop_path_rate"):
        if not math.isfinite(getattr(config, name)):
            raise _refuse(f"{name}={getattr(config, name)} is not valid", "expected a number")
    if not math.isfinite(config.init_layer_scale or 0):
        raise _refuse(f"init_layer_scale={config.init_layer_scale} is not valid", "")
    if not config.norm_epsilon > 0:
        raise _refuse(f"norm_epsilon={config.norm_epsilon!r} must be positive", "")
    for name, valid in (("final_pool_type", POOL_TYPES), ("bimamba_type", BIMAMBA_TYPES)):
        value = getattr(config, name)
        if value not in valid:
            raise _refuse(f"{name}={value!r} is not valid", nearest(str(value), valid))
    ratio = config.flip_img_sequences_ratio
    # The official test is `ratio - random.random() > 1e-5` with random() in [0, 1).
    if 0 < ratio <= 1 + 1e-5:
        raise _refuse(
            f"flip_img_sequences_ratio={ratio} flips at random, in evaluation too",
            "an exported graph has to give the same output for the same image",
            "use -1 (never) or 2 (always)",
        )


def _check_ssm_cfg(config: ModelConfig) -> None:
    for name in config.ssm_cfg or {}:
        if name in _SSM_CFG_TAKEN:
            raise _refuse(
                f"ssm_cfg holds {name!r}",
                "the official code then passes it twice and fails",
                f"set {_SSM_CFG_TAKEN[name]!r} of the model instead",
            )
        if name not in SSM_CFG_DEFAULTS:
            raise VimDeployError(
                "VIM-201", f"unknown ssm_cfg key {name!r}", fix=nearest(str(name), SSM_CFG_DEFAULTS)
            )
    ssm = config.ssm
    for name in ("d_conv", "dt_rank"):
        if not _is_whole(ssm[name]) or not 1 <= ssm[name] <= _LIMIT:
            raise _refuse(f"ssm_cfg {name}={ssm[name]!r} is not valid", f"expected 1 to {_LIMIT}")
    for name in ("conv_bias", "bias", "use_fast_path"):
        if not isinstance(ssm[name], bool):
            raise _refuse(f"ssm_cfg {name}={ssm[name]!r} is not valid", "expected true or false")
    if isinstance(ssm["expand"], bool) or not isinstance(ssm["expand"], int | float):
        raise _refuse(f"ssm_cfg expand={ssm['expand']!r} is not valid", "expected a number")
    if not 1 <= ssm["expand"] * config.embed_dim <= _LIMIT:
        raise _refuse(f"ssm_cfg expand={ssm['expand']!r} is out of range", "")


def _check_tokens(config: ModelConfig) -> None:
    rows, columns = config.grid_hw
    if rows < 1 or columns < 1:
        raise VimDeployError(
            "VIM-406",
            f"image {config.image_hw} is smaller than one patch {config.patch_hw}",
            fix="choose a larger --image-size",
        )


def _check_rope(config: ModelConfig) -> None:
    if not config.if_rope:
        return
    if config.embed_dim % 4:
        raise _refuse(
            f"rope with embed_dim={config.embed_dim}",
            "rope rotates pairs in each half of the channels, so embed_dim must divide by 4",
        )
    if isinstance(config.img_size, tuple) or isinstance(config.patch_size, tuple):
        raise _refuse(
            "rope with an image or patch size given as a pair",
            "the official rope divides img_size by patch_size as plain numbers",
            "give square sizes as one number, or set if_rope to false",
        )
    positions = (config.img_size // config.patch_size) ** 2
    # The official rope leaves row 0 alone when the sequence is odd, whatever row 0 is.
    rotated = config.num_tokens - config.num_tokens % 2
    if rotated != positions:
        raise _refuse(
            f"rope has {positions} positions for {rotated} tokens",
            f"{config.num_patches} patches and {len(config.cls_positions)} class tokens: rope "
            "needs an even number of patches, at most one class token, and stride = patch_size",
        )
