"""The ops of detectors in ``vim-deploy plugin test``: cases for kernels on CPUs, in float32.

What ``check.TOLERANCES`` allows of float32 suits both. Suppression gives ones and zeros: a box that
is kept or lost too many is 1 / sqrt(boxes) and more. Pooling rounds weights, two sums of them times
cells, and a box's length, each by 2^-24; taking half a cell off a corner is exact but for the first
cells.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vim_deploy.ops import PYRAMID_ROI_ALIGN, SORTED_NMS
from vim_deploy.plugin.cases import Array, Case, make_case, random
from vim_deploy.plugin.kernels import DataType

#: Boxes of an image: 1, both sides of a vector, as many as proposals are, and so many that several
#: threads share an image.
COUNTS = (1, 15, 17, 100, 1000, 4500)
#: Channels: fewer than a vector has, vectors of each kind, and one more.
CHANNELS = (1, 3, 4, 8, 16, 17, 40)


def region_cases() -> Iterator[Case]:
    """Suppression with one group and with many, pooling to the sides that detectors have."""
    for count in COUNTS:
        for groups in (1, 80):
            yield _nms_case(2 if count < 1000 else 1, count, groups, 0.7 if groups == 1 else 0.5)
    for number, channels in enumerate(CHANNELS):
        yield _pool_case(1 + number % 2, 9, channels, 7, 256)
        yield _pool_case(1, 5, channels, 14, 96 if number % 2 else 100)
    yield _pool_case(1, 40, 16, 1, 64)


def _boxes(seed: int, batch: int, count: int, side: int) -> Array:
    """Boxes of a sixteenth of the picture's side and more, some beyond its borders."""
    draw = random(seed)
    sides = side * np.exp(-abs(draw(batch, count, 2)))
    centres = side * (0.5 + 0.25 * draw(batch, count, 2))
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)


def _nms_case(batch: int, count: int, groups: int, threshold: float) -> Case:
    numbers = np.arange(batch * count).reshape(batch, count)
    # A number that float32 holds, for the threshold is one.
    threshold = float(np.float32(threshold))
    return make_case(
        SORTED_NMS,
        DataType.FP32,
        f"B={batch} N={count} groups={groups}",
        {
            "boxes": _boxes(count, batch, count, 256),
            "group": (numbers * 7 % groups).astype(np.float64),
            "valid": (numbers % 11 != 10).astype(np.float64),
        },
        {"batch": batch, "count": count},
        iou_threshold=threshold,
        groups=groups,
    )


def _pool_case(batch: int, count: int, channels: int, bins: int, side: int) -> Case:
    """A level holds boxes of some size: with a canonical size of a quarter of the picture's side
    there are some for each."""
    draw = random(channels * 1000 + count)
    maps = {
        f"p{level}": draw(batch, channels, max(side >> level, 1), max(side >> level, 1))
        for level in (2, 3, 4, 5)
    }
    sizes = {
        f"{name}_{key[1:]}": values.shape[axis]
        for axis, name in ((2, "height"), (3, "width"))
        for key, values in maps.items()
    }
    return make_case(
        PYRAMID_ROI_ALIGN,
        DataType.FP32,
        f"B={batch} N={count} C={channels} o={bins} side={side}",
        {**maps, "boxes": _boxes(channels, batch, count, side)},
        {"batch": batch, "count": count, "channels": channels, **sizes},
        output_size=bins,
        canonical_size=side / 4,
        spatial_scale=0.25,
    )
