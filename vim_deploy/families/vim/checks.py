"""Values and combinations of a Vim's keywords that cannot run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vim_deploy.errors import VimDeployError, nearest

if TYPE_CHECKING:
    from vim_deploy.families.vim.config import VimConfig

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


#: Largest side, depth and width accepted; above them a config is a mistake, not a model.
_LIMIT = 1 << 16


def refuse(message: str, why: str, fix: str = "change the model config") -> VimDeployError:
    """VIM-408 for what cannot run."""
    return VimDeployError("VIM-408", message, why=why, fix=fix)


def _is_whole(value: object) -> bool:
    # bool is an int to Python, and not a number to anybody else.
    return isinstance(value, int) and not isinstance(value, bool)


def check_values(config: VimConfig) -> None:
    """Single values that no model has."""
    sizes = (*config.image_hw, *config.patch_hw)
    if not all(0 < size <= _LIMIT for size in sizes):
        raise refuse("img_size and patch_size must be positive whole numbers", f"found {sizes}")
    for name in ("stride", "embed_dim", "d_state", "channels", "pt_hw_seq_len"):
        if not 0 < getattr(config, name) <= _LIMIT:
            raise refuse(f"{name}={getattr(config, name)} is out of range", f"1 to {_LIMIT}")
    for name in ("depth", "num_classes"):
        if not 0 <= getattr(config, name) <= _LIMIT:
            raise refuse(f"{name}={getattr(config, name)} is out of range", f"0 to {_LIMIT}")
    for name in ("norm_epsilon", "flip_img_sequences_ratio", "drop_rate", "drop_path_rate"):
        if not math.isfinite(getattr(config, name)):
            raise refuse(f"{name}={getattr(config, name)} is not valid", "expected a number")
    if not math.isfinite(config.init_layer_scale or 0):
        raise refuse(f"init_layer_scale={config.init_layer_scale} is not valid", "")
    if not config.norm_epsilon > 0:
        raise refuse(f"norm_epsilon={config.norm_epsilon!r} must be positive", "")
    for name, valid in (("final_pool_type", POOL_TYPES), ("bimamba_type", BIMAMBA_TYPES)):
        value = getattr(config, name)
        if value not in valid:
            raise refuse(f"{name}={value!r} is not valid", nearest(str(value), valid))
    ratio = config.flip_img_sequences_ratio
    # The official test is `ratio - random.random() > 1e-5` with random() in [0, 1).
    if 0 < ratio <= 1 + 1e-5:
        raise refuse(
            f"flip_img_sequences_ratio={ratio} flips at random, in evaluation too",
            "an exported graph has to give the same output for the same image",
            "use -1 (never) or 2 (always)",
        )


def check_ssm_cfg(config: VimConfig) -> None:
    """``ssm_cfg``: unknown keys (VIM-201), keys given twice, values."""
    for name in config.ssm_cfg or {}:
        if name in _SSM_CFG_TAKEN:
            raise refuse(
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
            raise refuse(f"ssm_cfg {name}={ssm[name]!r} is not valid", f"expected 1 to {_LIMIT}")
    for name in ("conv_bias", "bias", "use_fast_path"):
        if not isinstance(ssm[name], bool):
            raise refuse(f"ssm_cfg {name}={ssm[name]!r} is not valid", "expected true or false")
    if isinstance(ssm["expand"], bool) or not isinstance(ssm["expand"], int | float):
        raise refuse(f"ssm_cfg expand={ssm['expand']!r} is not valid", "expected a number")
    if not 1 <= ssm["expand"] * config.embed_dim <= _LIMIT:
        raise refuse(f"ssm_cfg expand={ssm['expand']!r} is out of range", "")


def check_tokens(config: VimConfig) -> None:
    """VIM-406 for a picture smaller than a patch."""
    rows, columns = config.grid_hw
    if rows < 1 or columns < 1:
        raise VimDeployError(
            "VIM-406",
            f"image {config.image_hw} is smaller than one patch {config.patch_hw}",
            fix="choose a larger --image-size",
        )


def check_rope(config: VimConfig) -> None:
    """Rope needs as many positions as there are patches."""
    if not config.if_rope:
        return
    if config.embed_dim % 4:
        raise refuse(
            f"rope with embed_dim={config.embed_dim}",
            "rope rotates pairs in each half of the channels, so embed_dim must divide by 4",
        )
    if isinstance(config.img_size, tuple) or isinstance(config.patch_size, tuple):
        raise refuse(
            "rope with an image or patch size given as a pair",
            "the official rope divides img_size by patch_size as plain numbers",
            "give square sizes as one number, or set if_rope to false",
        )
    positions = (config.img_size // config.patch_size) ** 2
    # The official rope leaves row 0 alone when the sequence is odd, whatever row 0 is.
    rotated = config.num_tokens - config.num_tokens % 2
    if rotated != positions:
        raise refuse(
            f"rope has {positions} positions for {rotated} tokens",
            f"{config.num_patches} patches and {len(config.cls_positions)} class tokens: rope "
            "needs an even number of patches, at most one class token, and stride = patch_size",
        )
