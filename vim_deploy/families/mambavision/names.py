"""The published MambaVision models: their names, architectures, and preparation of pictures.

Of NVlabs/MambaVision, mambavision/models/mamba_vision.py: the factories and ``default_cfgs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vim_deploy.codec import encode
from vim_deploy.families.mambavision.config import MambaVisionConfig

#: A recipe for a fine-tuned checkpoint may change these and still name its variant.
FREE = ("img_size", "num_classes")
#: They do not make another architecture; ``resolution`` has no effect.
TRAINING = ("drop_rate", "drop_path_rate", "attn_drop_rate", "resolution")
#: None chooses between kernels.
NO_EFFECT = ()


@dataclass(frozen=True)
class Variant:
    """One published model.

    Attributes:
        factory: the official factory's name.
        config: at the published size of pictures; classes are those of ImageNet-1K.
        crop_ratio: of the official evaluation, bicubic and with ImageNet's mean and deviation.
        squashed: whether that resizes pictures to a square first, instead of by their short side.
    """

    factory: str
    config: MambaVisionConfig
    crop_ratio: float
    squashed: bool = False


_HEADS, _WIDE_HEADS = (2, 4, 8, 16), (4, 8, 16, 32)
#: Of 224, 256 and 512 pixels: those of levels 2 and 3 are as large as the maps.
_WINDOWS = {224: (8, 8, 14, 7), 256: (8, 8, 16, 8), 512: (8, 8, 32, 16)}


def _variant(
    letter: str,
    depths: tuple[int, ...],
    dim: int,
    *,
    inner: int = 64,
    heads: tuple[int, ...] = _WIDE_HEADS,
    size: int = 224,
    crop: float = 1.0,
    drop_path: float = 0.3,
    scale: float | None = 1e-5,
) -> Variant:
    config = MambaVisionConfig(
        dim=dim,
        in_dim=inner,
        depths=depths,
        window_size=_WINDOWS[size],
        mlp_ratio=4,
        num_heads=heads,
        drop_path_rate=drop_path,
        layer_scale=scale,
        resolution=size,
        img_size=size,
    )
    return Variant(f"mamba_vision_{letter}", config, crop, squashed=size == 512)


def _small(
    letter: str, depths: tuple[int, ...], dim: int, *, inner: int = 64, crop: float
) -> Variant:
    return _variant(letter, depths, dim, inner=inner, heads=_HEADS, crop=crop, drop_path=0.2,
                    scale=None)  # fmt: skip


#: By short name. The checkpoints of ImageNet-21K have the architectures of those of 1K, and are
#: told apart by their classes.
VARIANTS = {
    "mambavision-tiny": _small("T", (1, 3, 8, 4), 80, inner=32, crop=1.0),
    "mambavision-tiny2": _small("T2", (1, 3, 11, 4), 80, inner=32, crop=0.98),
    "mambavision-small": _small("S", (3, 3, 7, 5), 96, crop=0.93),
    "mambavision-base": _variant("B", (3, 3, 10, 5), 128, heads=_HEADS),
    "mambavision-large": _variant("L", (3, 3, 10, 5), 196),
    "mambavision-large2": _variant("L2", (3, 3, 12, 5), 196),
    "mambavision-large2-512": _variant("L2_512_21k", (3, 3, 12, 5), 196, size=512, crop=0.93),
    "mambavision-large3-256": _variant("L3_256_21k", (3, 3, 20, 10), 256, size=256, drop_path=0.5),
    "mambavision-large3-512": _variant(
        "L3_512_21k", (3, 3, 20, 10), 256, size=512, crop=0.93, drop_path=0.5
    ),
}
#: Factories of the same architectures, for weights of ImageNet-21K.
_OF_21K = {"mamba_vision_B_21k": "mambavision-base", "mamba_vision_L_21k": "mambavision-large"}


#: Names that recipes and reports use.
SHORT = tuple(VARIANTS)


def variants() -> dict[str, MambaVisionConfig]:
    """Every named architecture: the short names, then those of the official factories."""
    short = {name: found.config for name, found in VARIANTS.items()}
    official = {found.factory: found.config for found in VARIANTS.values()}
    return {**short, **official, **{name: short[of] for name, of in _OF_21K.items()}}


def short_of(name: str) -> str | None:
    """The short name of the model that a short or an official name means; None for no model's."""
    factories = {found.factory: short for short, found in VARIANTS.items()} | _OF_21K
    return name if name in VARIANTS else factories.get(name)


def usual_preparation(config: MambaVisionConfig) -> tuple[dict[str, Any], str]:
    """What the official evaluation of such a model does otherwise than ImageNet's, and whose it is.

    Keys are those of ``ImagePreparation``. At another size of pictures than the published one, the
    crop is still the published one, as it is officially.
    """
    for name, found in VARIANTS.items():
        if _same(found.config, config):
            squash = ", which makes pictures square first: not done here" * found.squashed
            return {"crop_ratio": found.crop_ratio}, f"the official evaluation of {name}{squash}"
    return {}, ""


def _same(published: MambaVisionConfig, config: MambaVisionConfig) -> bool:
    """Whether both are one architecture, whatever its pictures and classes."""
    own = encode(config)
    return all(own[key] == value or key in (*FREE, *TRAINING)
               for key, value in encode(published).items())  # fmt: skip
