"""Names, colours and areas of the classes in a label map."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vim_deploy.recipe.dense_config import Colour
from vim_deploy.run.base import Array

#: Degrees between the hues of two classes: 360 / phi^2, which spreads any number of them evenly.
GOLDEN_ANGLE = 137.50776405003785
#: Lightness and saturation (HSL) of classes 0, 1, 2, ... in turn. Five pairs, because the hues
#: that come closest are those of classes 5, 8, 13, ... apart, and only 5 shares a pair.
_TONES = ((0.50, 0.85), (0.68, 0.75), (0.34, 0.80), (0.58, 0.45), (0.42, 0.50))
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class ClassArea:
    """A class in one picture: index, name, pixels of its own size, and their share of it."""

    index: int
    label: str
    pixels: int
    share: float


def class_name(names: Sequence[str], index: int) -> str:
    """The stored name, or ``class N``."""
    return names[index] if index < len(names) else f"class {index}"


def palette_of(stored: Sequence[Colour], classes: int) -> tuple[Colour, ...]:
    """The stored colours; without any, a hue by the golden angle and one of five tones a class."""
    if len(stored) >= classes:
        return tuple(stored)
    return tuple(_colour(index) for index in range(classes))


def _colour(index: int) -> Colour:
    lightness, saturation = _TONES[index % len(_TONES)]
    hue = (index * GOLDEN_ANGLE / 360) % 1
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def class_areas(labels: Array, names: Sequence[str], classes: int) -> tuple[ClassArea, ...]:
    """Every class of a label map [height, width], the largest first."""
    counts = np.zeros(classes, np.int64)
    # In strips: counting makes 64-bit copies.
    for start in range(0, len(labels), _ROWS_AT_ONCE):
        counts += np.bincount(labels[start : start + _ROWS_AT_ONCE].ravel(), minlength=classes)
    order = np.argsort(-counts, kind="stable")
    return tuple(
        ClassArea(
            int(index),
            class_name(names, int(index)),
            int(counts[index]),
            float(counts[index] / labels.size),
        )
        for index in order[: np.count_nonzero(counts)]
    )
