"""Boxes of a detector: anchors, the way from deltas to boxes, clipping; all float32 or wider.

Boxes are (x1, y1, x2, y2) in pixels of the network's input. What is written here is what
detectron2 computes (modeling/box_regression.py, anchor_generator.py, structures/boxes.py), by
operators that every runtime has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: A box grows by at most this factor of its side, before exp: detectron2's scale clamp.
_MOST_GROWTH = math.log(1000.0 / 16)
#: What stands for a logit that is none: below every real one, and finite in float32.
NO_LOGIT = -1e30
#: Sums of absolute values from here on are no numbers to work with.
_FINITE = 1e30


def wide(x: Tensor) -> Tensor:
    """The same in float32, or as it is when wider: boxes do not fit into 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def decoded(deltas: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Boxes T[..., 4] moved and scaled by ``deltas`` T[..., 4] (R-CNN, arXiv 1311.2524, C).

    Centres move by dx/wx of the width, sides grow by exp(dw/ww); ``weights`` is (wx, wy, ww, wh).
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    dx, dy, dw, dh = (
        delta if weight == 1 else delta / weight
        for delta, weight in zip(deltas.unbind(-1), weights, strict=True)
    )
    centre_x = dx * width + (x1 + 0.5 * width)
    centre_y = dy * height + (y1 + 0.5 * height)
    half_width = 0.5 * (torch.exp(dw.clamp(max=_MOST_GROWTH)) * width)
    half_height = 0.5 * (torch.exp(dh.clamp(max=_MOST_GROWTH)) * height)
    corners = (
        centre_x - half_width,
        centre_y - half_height,
        centre_x + half_width,
        centre_y + half_height,
    )
    return torch.stack(corners, -1)


def clipped(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes T[B, ..., 4] cut to pictures of ``size`` T[B, 2], (height, width)."""
    height, width = size[:, :1], size[:, 1:]
    ends = torch.cat((width, height, width, height), 1).to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0.0), ends.view(-1, *[1] * (boxes.ndim - 2), 4))


def finite(x: Tensor) -> Tensor:
    """Where ``x`` holds numbers: bool of its shape."""
    return x.abs() < _FINITE


def finite_rows(x: Tensor) -> Tensor:
    """Where the last axis of T[..., n] holds numbers only: bool[...].

    A comparison with a sum: NaN and infinity survive every addition, and maxima drop NaN in some
    runtimes.
    """
    return x.abs().sum(-1) < _FINITE


def zeros_unless(kept: Tensor, x: Tensor) -> Tensor:
    """``x`` where the mask ``kept`` (broadcast) is true, else zeros, whatever stood there."""
    # Not a product: NaN times zero is NaN.
    return where(kept, x, 0)


def where(kept: Tensor, x: Tensor, value: float) -> Tensor:
    """``x`` where ``kept`` is true, else ``value``: a constant of the graph, not a tensor of it."""
    return torch.where(kept, x, torch.tensor(value, dtype=x.dtype, device=x.device))


def padded_rows(x: Tensor, rows: int, value: float = 0.0) -> Tensor:
    """T[B, n, ...] with rows of ``value`` behind it, ``rows`` in all; itself when it has them."""
    missing = rows - x.shape[1]
    if missing <= 0:
        return x
    behind = [0, 0] * (x.ndim - 2) + [0, missing]
    return torch.nn.functional.pad(x, behind, value=value)


def picked_rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` int64 [B, k] of T[B, n, m]: T[B, k, m]."""
    return torch.gather(x, 1, index[..., None].expand(-1, -1, x.shape[-1]))


def anchors(
    sides: Sequence[float], ratios: Sequence[float], stride: int, grid: tuple[int, int]
) -> Tensor:
    """Anchors of one pyramid level, f32[rows * columns * anchors a cell, 4], in that order.

    An anchor of side s and ratio r (height by width) has s^2 pixels, and stands around the upper
    left corner of its cell (``offset`` 0).
    """
    cell = []
    for side in sides:
        for ratio in ratios:
            width = math.sqrt(side**2.0 / ratio)
            height = ratio * width
            cell.append([-width / 2.0, -height / 2.0, width / 2.0, height / 2.0])
    rows, columns = (torch.arange(0, count * stride, stride, dtype=torch.float32) for count in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    corners = torch.stack((x, y, x, y), -1).reshape(-1, 1, 4)
    return (corners + torch.tensor(cell)).reshape(-1, 4)
