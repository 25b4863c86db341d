"""Bilinear resizing in numpy, as mmsegmentation does it: of pictures, and of logits.

Both are the half-pixel kind without antialiasing: the value at the centre of target pixel ``i`` is
read at ``(i + 0.5) * source / target - 0.5``, clamped to the border, between its two neighbours.
That is ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``, and OpenCV's
``INTER_LINEAR``, with which mmcv resizes pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vim_deploy.images import Pixels
from vim_deploy.runtimes.base import Array

Size = tuple[int, int]
#: Bytes of float32 that a strip of target rows may take.
STRIP_BYTES = 1 << 23


@dataclass(frozen=True)
class Taps:
    """Where each target position reads: ``(1 - weight) * x[lower] + weight * x[upper]``."""

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weight: NDArray[np.float32]


def bilinear_taps(source: int, target: int) -> Taps:
    """The two source positions and the weight of the upper one, for each of ``target``."""
    centre = (np.arange(target) + 0.5) * (source / target) - 0.5
    centre = np.clip(centre, 0, source - 1)
    lower = np.floor(centre).astype(np.intp)
    weight = (centre - lower).astype(np.float32)
    return Taps(lower, np.minimum(lower + 1, source - 1), weight)


def between(low: Array, high: Array, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """``low + weight (high - low)`` in float32; ``weight`` belongs to the first axis.

    A ``high`` of float32 is written over.
    """
    result = high.astype(np.float32, copy=False)
    result -= low
    result *= weight.reshape(-1, *(1,) * (low.ndim - 1))
    result += low
    return result


def columns(values: Array, taps: Taps) -> NDArray[np.float32]:
    """Resize the second axis of ``values`` [rows, columns, channels] to float32."""
    result = values[:, taps.upper].astype(np.float32, copy=False)
    low = values[:, taps.lower]
    result -= low
    result *= taps.weight[:, None]
    result += low
    return result


def resized_maps(maps: Array, size: Size) -> NDArray[np.float32]:
    """Resize [rows, columns, channels] to ``size`` (rows, columns), in float32."""
    rows, width = (bilinear_taps(*pair) for pair in zip(maps.shape[:2], size, strict=True))
    wide = maps if maps.shape[1] == size[1] else columns(maps, width)
    if maps.shape[0] == size[0]:
        return wide.astype(np.float32, copy=False)
    result = np.empty((*size, maps.shape[2]), np.float32)
    step = max(1, STRIP_BYTES // (4 * size[1] * maps.shape[2]))
    for start in range(0, size[0], step):
        strip = slice(start, start + step)
        high = wide[rows.upper[strip]]
        result[strip] = between(wide[rows.lower[strip]], high, rows.weight[strip])
    return result


def resized_pixels(picture: Pixels, size: Size) -> Pixels:
    """Resize a picture [height, width, channels] to ``size`` (height, width), rounded to uint8.

    OpenCV computes with weights of 11 bits, so a pixel may be one level off its result.
    """
    if picture.shape[:2] == size:
        return picture
    rows, width = (bilinear_taps(*pair) for pair in zip(picture.shape[:2], size, strict=True))
    channels = picture.shape[2]
    result = np.empty((*size, channels), np.uint8)
    widest = max(picture.shape[1], size[1])
    step = max(1, STRIP_BYTES // (4 * widest * channels))
    for start in range(0, size[0], step):
        strip = slice(start, start + step)
        tall = between(picture[rows.lower[strip]], picture[rows.upper[strip]], rows.weight[strip])
        result[strip] = np.floor(columns(tall, width) + np.float32(0.5))
    return result


def resized_labels(labels: Array, size: Size) -> Array:
    """Class indices [height, width] at ``size``: those of the nearest pixel."""
    rows, width = (
        np.minimum((np.arange(target) + 0.5) * (source / target), source - 1).astype(np.intp)
        for source, target in zip(labels.shape, size, strict=True)
    )
    result: Array = labels[rows[:, None], width[None, :]]
    return result


def size_within(size: Size, limits: Size) -> Size:
    """The largest size of the same shape within ``limits``, as mmcv's ``rescale_size`` rounds it.

    Args:
        size: height and width.
        limits: longest and shortest side, in any order.
    """
    factor = min(max(limits) / max(size), min(limits) / min(size))
    return int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)
