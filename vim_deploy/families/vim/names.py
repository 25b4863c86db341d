"""The architectures of the five published classification checkpoints.

Each has a short name and that of the official factory function (hustvl/Vim,
vim/models_mamba.py), whose keywords it repeats. The base factory's misspelt ``if_devide_out`` has
no effect there and is left out here; the default of ``if_divide_out`` is the same.
"""

from __future__ import annotations

from typing import Any

from vim_deploy.families.vim.config import VimConfig

_POOL = "bimambav2_final_pool_mean_abs_pos_embed"
#: Short name to official factory name.
FACTORY_NAMES = {
    "vim-tiny": f"vim_tiny_patch16_224_{_POOL}_with_midclstok_div2",
    "vim-tiny-plus": f"vim_tiny_patch16_stride8_224_{_POOL}_with_midclstok_div2",
    "vim-small": f"vim_small_patch16_224_{_POOL}_with_midclstok_div2",
    "vim-small-plus": f"vim_small_patch16_stride8_224_{_POOL}_with_midclstok_div2",
    "vim-base": f"vim_base_patch16_224_{_POOL}_with_middle_cls_token_div2",
}
#: Embedding width and patch stride; everything else is the same in all five.
_SIZES = {
    "vim-tiny": (192, 16),
    "vim-tiny-plus": (192, 8),
    "vim-small": (384, 16),
    "vim-small-plus": (384, 8),
    "vim-base": (768, 16),
}
#: A recipe for a fine-tuned checkpoint may change these and still name its variant.
FREE = ("img_size", "num_classes")
#: They do not make another architecture.
TRAINING = ("drop_rate", "drop_path_rate", "initializer_cfg", "ft_seq_len")
#: They choose kernels, and change no float32 result.
NO_EFFECT = ("fused_add_norm", "residual_in_fp32")
#: Names that recipes and reports use.
SHORT = tuple(_SIZES)


def _published_config(embed_dim: int, stride: int) -> VimConfig:
    return VimConfig(
        img_size=224,
        patch_size=16,
        stride=stride,
        embed_dim=embed_dim,
        depth=24,
        rms_norm=True,
        residual_in_fp32=True,
        fused_add_norm=True,
        final_pool_type="mean",
        if_abs_pos_embed=True,
        if_rope=False,
        if_rope_residual=False,
        bimamba_type="v2",
        if_cls_token=True,
        if_divide_out=True,
        use_middle_cls_token=True,
    )


def variants() -> dict[str, VimConfig]:
    """Every named architecture: the five short names, then the five official factory names."""
    short = {name: _published_config(*size) for name, size in _SIZES.items()}
    return short | {FACTORY_NAMES[name]: config for name, config in short.items()}


def variant(name: str) -> VimConfig:
    """The architecture of that name, one of ``variants``."""
    return variants()[name]


def usual_preparation(config: VimConfig) -> tuple[dict[str, Any], str]:
    """What the official evaluation of such a model does otherwise than ImageNet's, and whose it is.

    Keys are those of ``ImagePreparation``. Vim's does nothing otherwise.
    """
    return {}, ""
