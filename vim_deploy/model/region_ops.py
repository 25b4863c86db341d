"""The two ops of a detector as PyTorch operators: eager runs compute them, a trace records them.

``torch.ops.vim_deploy.sorted_nms`` and ``pyramid_roi_align`` have the inputs and attributes of
``VimSortedNms`` and ``VimPyramidRoiAlign`` (``vim_deploy.ops``). Both compute in the type of the
boxes, float32 or float64, box by box: no tensor here grows with boxes times pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vim_deploy.ops.contract import DOMAIN
from vim_deploy.ops.pyramid_roi_align import FROM


def has_area(boxes: Tensor) -> Tensor:
    """Where a box T[..., 4] has both sides: bool[...]; false for NaN."""
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])


@torch.library.custom_op(f"{DOMAIN}::sorted_nms", mutates_args=())
def sorted_nms(
    boxes: Tensor, group: Tensor, valid: Tensor, iou_threshold: float, groups: int
) -> Tensor:
    """Greedy non-maximum suppression of boxes that are sorted already.

    A valid box with an area stays unless a box before it, of its group and staying, overlaps it by
    more than ``iou_threshold`` (intersection over union).

    Args:
        boxes: T[B, N, 4], (x1, y1, x2, y2), by falling score.
        group: int64 [B, N], 0 to ``groups`` - 1.
        valid: T[B, N], 1 or 0.
        iou_threshold: overlap from which on (exclusively) the later box goes.
        groups: how many groups there are; boxes of others do not stay.

    Returns:
        T[B, N], 1 for the boxes that stay.
    """
    keep = torch.zeros_like(valid)
    for row in range(len(boxes)):
        known = (group[row] >= 0) & (group[row] < groups)
        alive = torch.nonzero((valid[row] > 0.5) & has_area(boxes[row]) & known)[:, 0]
        overlapping = _overlapping(boxes[row, alive], group[row, alive], iou_threshold).numpy()
        gone = torch.zeros(len(alive), dtype=torch.bool).numpy()
        for index in range(len(alive)):
            if not gone[index]:
                gone |= overlapping[index]
        keep[row, alive[torch.from_numpy(~gone)]] = 1
    return keep


@sorted_nms.register_fake
def _shape_of_sorted_nms(_boxes: Tensor, _group: Tensor, valid: Tensor, *_rest: object) -> Tensor:
    return torch.empty_like(valid)


def _overlapping(boxes: Tensor, group: Tensor, threshold: float) -> Tensor:
    """Which later box each box would suppress: bool[n, n], on the CPU."""
    upper, lower = boxes[:, None, :2], boxes[:, None, 2:]
    sides = torch.minimum(lower, boxes[:, 2:]) - torch.maximum(upper, boxes[:, :2])
    sides = sides.clamp_(min=0)
    shared = sides[..., 0] * sides[..., 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    over = shared / (area[:, None] + area - shared) > threshold
    return (over & (group[:, None] == group)).triu_(1).cpu()


@torch.library.custom_op(f"{DOMAIN}::pyramid_roi_align", mutates_args=())
def pyramid_roi_align(
    p2: Tensor,
    p3: Tensor,
    p4: Tensor,
    p5: Tensor,
    boxes: Tensor,
    output_size: int,
    canonical_size: float,
    spatial_scale: float,
) -> Tensor:
    """RoIAlign (arXiv 1703.06870) of every box on the pyramid level of its size.

    As detectron2's ROIPooler with ROIAlignV2 and sampling_ratio 0: coordinates are scaled and
    shifted by half a pixel, each bin averages ceil(its length) bilinear samples along each side,
    samples more than a pixel outside of the map count as zero. The level is
    floor(4 + log2(sqrt(area) / canonical_size)) between 2 and 5 (arXiv 1612.03144, equation 1).

    Args:
        p2, p3, p4, p5: maps T[B, C, H, W], each half as fine as the one before.
        boxes: T[B, N, 4], (x1, y1, x2, y2) in pixels of the image.
        output_size: bins along each side.
        canonical_size: side of the boxes from which on p4 is taken.
        spatial_scale: pixels of p2 in one pixel of the image.

    Returns:
        T[B * N, C, output_size, output_size]; zeros for boxes without area.
    """
    maps = (p2, p3, p4, p5)
    flat = boxes.reshape(-1, 4)
    per_picture = boxes.shape[1]
    pooled = p2.new_zeros(len(flat), p2.shape[1], output_size, output_size)
    sides = flat[:, 2:] - flat[:, :2]
    # NaN is not larger than zero either.
    real = (sides > 0).all(1)
    size = torch.sqrt(sides[:, 0] * sides[:, 1]) / canonical_size
    level = torch.stack([size >= border for border in FROM.values()]).sum(0)
    for index, x in enumerate(maps):
        chosen = torch.nonzero(real & (level == index))[:, 0]
        scaled = flat[chosen] * (spatial_scale / 2**index) - 0.5
        rows = _Axis(scaled[:, 1], scaled[:, 3], output_size, x.shape[2])
        columns = _Axis(scaled[:, 0], scaled[:, 2], output_size, x.shape[3])
        for number, box in enumerate(chosen.tolist()):
            top, bottom = rows.span[number]
            left, right = columns.span[number]
            part = x[box // per_picture, :, top:bottom, left:right].to(boxes.dtype)
            across = part @ columns.weights[number, :, left:right].t()
            pooled[box] = rows.weights[number, :, top:bottom] @ across
    return pooled


@pyramid_roi_align.register_fake
def _shape_of_pyramid_roi_align(
    p2: Tensor,
    _p3: Tensor,
    _p4: Tensor,
    _p5: Tensor,
    boxes: Tensor,
    output_size: int,
    *_rest: object,
) -> Tensor:
    rows = boxes.shape[0] * boxes.shape[1]
    return p2.new_empty(rows, p2.shape[1], output_size, output_size)


class _Axis:
    """One axis of RoIAlign, which is separable: averages of bilinear samples are two products.

    Attributes:
        weights: T[R, parts, size]; what bin ``part`` of box R takes from each cell of the axis.
        span: first cell and the one behind the last that any bin of a box takes from.
    """

    def __init__(self, start: Tensor, end: Tensor, parts: int, size: int) -> None:
        self.weights = start.new_zeros(len(start), parts, size)
        self.span: list[tuple[int, int]] = []
        if len(start) == 0:
            return
        bin_length = ((end - start) / parts)[:, None, None]
        samples = torch.ceil(bin_length).clamp(min=1)
        # No sample of a box that is as long as the map lies outside of this range.
        number = torch.arange(int(samples.max()), dtype=start.dtype, device=start.device)
        part = torch.arange(parts, dtype=start.dtype, device=start.device)[:, None]
        at = start[:, None, None] + part * bin_length + (number + 0.5) * bin_length / samples
        live = (number < samples) & (at >= -1.0) & (at <= size)
        at = at.clamp(0, size - 1)
        below = at.floor()
        share = live / samples
        low = below.long()
        high = (low + 1).clamp(max=size - 1)
        self.weights.scatter_add_(2, low, share * (1 - (at - below)))
        self.weights.scatter_add_(2, high, share * (at - below))
        first, last = low.amin((1, 2)).tolist(), high.amax((1, 2)).tolist()
        self.span = [(begin, end + 1) for begin, end in zip(first, last, strict=True)]
