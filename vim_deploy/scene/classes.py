"""Names, colours and areas of the classes in a label map."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vim_deploy.recipe.dense_config import Colour
from vim_deploy.runtimes.base import Array

#: Linear sRGB to cone responses, and their cube roots to OKLab (B. Ottosson, "A perceptual color
#: space for image processing", 2020), in which equal distances look about equally different.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
#: Values of red, of green and of blue that colours are chosen from.
_LEVELS = np.rint(np.linspace(0, 255, 9))
#: What no class's colour may be near to.
_TAKEN = ((0, 0, 0), (255, 255, 255), (128, 128, 128))
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
    """The stored colours, or computed ones that are as far from each other as can be.

    Of 729 colours each class takes the one that is farthest, in OKLab, from black, white, grey and
    those of the classes before it. So a class has the same colour in every picture and every model.
    """
    if len(stored) >= classes:
        return tuple(stored)
    chosen = _spread_colours()
    return tuple(chosen[index % len(chosen)] for index in range(classes))


@functools.lru_cache(maxsize=1)
def _spread_colours() -> tuple[Colour, ...]:
    """All candidates, by farthest-first traversal."""
    grid = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), axis=-1).reshape(-1, 3)
    places = oklab(grid)
    distance = np.full(len(grid), np.inf)
    for taken in oklab(np.array(_TAKEN)):
        distance = np.minimum(distance, np.linalg.norm(places - taken, axis=1))
    chosen: list[Colour] = []
    while distance.max() > 0:
        best = int(distance.argmax())
        red, green, blue = map(int, grid[best])
        chosen.append((red, green, blue))
        distance = np.minimum(distance, np.linalg.norm(places - places[best], axis=1))
    return tuple(chosen)


def oklab(colours: Array) -> NDArray[np.float64]:
    """sRGB [..., 3] from 0 to 255 in the colour space OKLab."""
    lab: NDArray[np.float64] = np.cbrt(linear_light(colours) @ _TO_CONES.T) @ _TO_LAB.T
    return lab


def linear_light(colours: Array) -> NDArray[np.float64]:
    """sRGB [..., 3] from 0 to 255 as shares of light, 0 to 1 (IEC 61966-2-1)."""
    share = np.asarray(colours, np.float64) / 255
    linear: NDArray[np.float64] = np.where(
        share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4
    )
    return linear


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
