"""What a user asks to be loaded, before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vim_deploy.ranges import CROP_RATIO, IMAGE_SIDE, MEAN, SEED, STD, require_all

#: Infer the architecture from the checkpoint.
AUTO = "auto"


@dataclass(frozen=True)
class ModelRequest:
    """What to load.

    Attributes:
        source: checkpoint file or folder, ``hf://owner/name[/file]``, recipe name or ``.toml``.
        model: ``auto`` or a named variant.
        config: the official constructor's keywords; excludes a named variant.
        image_size: another input size than the checkpoint's, square or (height, width).
        use_ema: take ``model_ema`` of a training file.
        pos_embed: how the position embedding is fitted to ``image_size``: ``grid``, ``official``.
        random_weights: seed for weights that mean nothing, instead of a checkpoint.
        mean, std, crop_ratio: picture preparation, instead of the recipe's or ImageNet's.
        labels: class names, instead of the recipe's.
    """

    source: str
    model: str = AUTO
    config: Mapping[str, Any] | None = None
    image_size: int | tuple[int, int] | None = None
    use_ema: bool = False
    pos_embed: str = "grid"
    random_weights: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_ratio: float | None = None
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(
            self,
            image_size=IMAGE_SIDE,
            random_weights=SEED,
            mean=MEAN,
            std=STD,
            crop_ratio=CROP_RATIO,
        )
