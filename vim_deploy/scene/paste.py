"""Masks of a detector, which are squares of a few cells, on the pictures that they belong to.

What detectron2's ``paste_masks_in_image`` computes: the mask is stretched over its box, without
rounding the box, and read at the centre of every pixel: bilinearly between the centres of its
cells, with zeros around it (``grid_sample`` with ``align_corners=False``). A pixel belongs to the
object from 0.5 on. All of it is float32, as there; a mask is kept within its box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vim_deploy.runtimes.base import Array

#: A pixel is set from here on.
THRESHOLD = np.float32(0.5)
#: Pixels that are computed at once, in float32.
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Pasted:
    """A mask on its picture; outside ``pixels`` nothing is set.

    Attributes:
        top, left: of the first pixel.
        pixels: bool [rows, columns].
    """

    top: int
    left: int
    pixels: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Pixels that are set."""
        return int(np.count_nonzero(self.pixels))


def pasted(mask: Array, box: Array, size: tuple[int, int]) -> Pasted:
    """One mask on a picture.

    Args:
        mask: probabilities, float32 [cells, cells], finite.
        box: left, top, right and bottom in pixels of the picture, float32 [4]; it lies in the
            picture and has an area.
        size: height and width of the picture.
    """
    left, top, right, bottom = box.astype(np.float32)
    rows, down = _weights(top, bottom, size[0], mask.shape[0])
    columns, across = _weights(left, right, size[1], mask.shape[1])
    pixels = np.empty((len(down), len(across)), np.bool_)
    # Cells of the mask become columns of the picture first: small, and the same for all rows.
    wide = mask.astype(np.float32) @ across.T
    for part in _strips(*pixels.shape):
        pixels[part] = down[part] @ wide >= THRESHOLD
    return Pasted(rows, columns, pixels)


def _strips(rows: int, columns: int) -> Iterator[slice]:
    step = max(_AT_ONCE // max(columns, 1), 1)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _weights(
    low: np.float32, high: np.float32, pixels: int, cells: int
) -> tuple[int, NDArray[np.float32]]:
    """Along one side: the first pixel, and the share of each cell in it and those behind it.

    A pixel whose centre is at c is read at cell ``(2 (c - low) / (high - low) - 1 + 1) cells / 2 -
    1 / 2``, in these steps, which PyTorch's ``grid_sample`` takes as well.

    Returns:
        float32 [pixels near the box, cells]; a row has at most two shares that are not zero.
    """
    first = max(int(np.floor(low)) - 1, 0)
    last = min(int(np.ceil(high)) + 1, pixels)
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    place = (centres - low) / (high - low) * np.float32(2) - np.float32(1)
    place = (place + np.float32(1)) * np.float32(cells / 2) - np.float32(0.5)
    # Beyond the zeros around the mask it does not matter where, and a box may be very thin.
    place = np.clip(place, np.float32(-2), np.float32(cells + 1))
    before = np.floor(place)
    behind = place - before
    weights = np.zeros((len(centres), cells), np.float32)
    for cell, share in ((before, np.float32(1) - behind), (before + np.float32(1), behind)):
        row = np.flatnonzero((cell >= 0) & (cell < cells))
        weights[row, cell[row].astype(np.intp)] += share[row]
    return first, weights
