"""The published VMamba classifiers by name.

Each has a short name and that of the official function that builds it (MzeroMiko/VMamba,
classification/models/vmamba.py), whose keywords it repeats. The end of the name is the official
one: ``s2`` has mixers twice as wide as their blocks, ``s1`` as wide; ``l`` counts the blocks of the
third level.
"""

from __future__ import annotations

from typing import Any

from vim_deploy.families.vmamba.config import VMambaConfig

#: Short name to width of the first level, blocks of the third, and width of the mixers as a
#: multiple of their block's; everything else is the same in all of them.
_SIZES = {
    "vmamba-tiny-s2l5": (96, 5, 2.0),
    "vmamba-small-s2l15": (96, 15, 2.0),
    "vmamba-base-s2l15": (128, 15, 2.0),
    "vmamba-tiny-s1l8": (96, 8, 1.0),
    "vmamba-small-s1l20": (96, 20, 1.0),
    "vmamba-base-s1l20": (128, 20, 1.0),
}
#: Short name to the official function's.
FACTORY_NAMES = {name: name.replace("-", "_") for name in _SIZES}
#: A recipe for a fine-tuned checkpoint may change these and still name its variant.
FREE = ("imgsize", "num_classes")
#: They do not make another architecture.
TRAINING = ("ssm_drop_rate", "mlp_drop_rate", "drop_path_rate", "ssm_init", "use_checkpoint")
#: They choose kernels and layouts, and change no float32 result.
NO_EFFECT = ("forward_type", "norm_layer")
#: Names that recipes and reports use.
SHORT = tuple(_SIZES)


def _published_config(dims: int, third: int, ratio: float) -> VMambaConfig:
    return VMambaConfig(
        imgsize=224,
        depths=(2, 2, third, 2),
        dims=dims,
        ssm_d_state=1,
        ssm_ratio=ratio,
        ssm_conv_bias=False,
        forward_type="v05_noz",
        norm_layer="ln2d",
        downsample_version="v3",
        patchembed_version="v2",
    )


_VARIANTS = {name: _published_config(*size) for name, size in _SIZES.items()}
_VARIANTS |= {FACTORY_NAMES[name]: config for name, config in _VARIANTS.items()}


def variants() -> dict[str, VMambaConfig]:
    """Every named architecture: the six short names, then the six official ones."""
    return dict(_VARIANTS)


def usual_preparation(config: VMambaConfig) -> tuple[dict[str, Any], str]:
    """What the official evaluation of such a model does otherwise than ImageNet's, and whose it is.

    Keys are those of ``ImagePreparation``. VMamba's does nothing otherwise.
    """
    return {}, ""
