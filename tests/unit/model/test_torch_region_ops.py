"""The ops of detectors in PyTorch against their definitions, box by box in float64 with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vim_deploy.model.region_ops  # noqa: F401 - registers torch.ops.vim_deploy
from vim_deploy.ops import PYRAMID_ROI_ALIGN, SORTED_NMS

OUTPUT, CANONICAL, SCALE = 7, 40.0, 0.25
#: float32 against float64: a sample's place is off by the rounding of a coordinate below 64 cells,
#: 2e-6 of a cell, along each axis; neighbouring cells are at most 8 apart.
POOLED = 2 * 2e-6 * 8


def some_boxes(seed: int, images: int, count: int) -> torch.Tensor:
    """Boxes around 160 pixels: outside of them, tiny, flat, turned over, twice, NaN."""
    random = np.random.default_rng(seed)
    starts = random.random((images, count, 2)) * 180 - 20
    sides = np.exp(random.uniform(-2, 5.5, (images, count, 2)))
    boxes = np.concatenate([starts, starts + sides], 2).astype(np.float32)
    boxes[:, 1::5] = boxes[:, :-1:5]
    boxes[:, 7::11, 2] = boxes[:, 7::11, 0]
    boxes[:, 8::13] = boxes[:, 8::13][..., [2, 3, 0, 1]]
    boxes[:, 9::17] = np.nan
    boxes[:, 3] = 0
    # Exactly on the border of two levels.
    boxes[:, 4] = 10, 20, 10 + CANONICAL, 20 + CANONICAL
    return torch.from_numpy(boxes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [160, 96])
def test_pyramid_roi_align(side: int, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(side)
    sizes = [(side // step, side // step + 3) for step in (4, 8, 16, 32)]
    maps = [torch.randn(2, 3, *size, generator=random, dtype=dtype) for size in sizes]
    boxes = some_boxes(side, 2, 60).to(dtype)
    found = torch.ops.vim_deploy.pyramid_roi_align(*maps, boxes, OUTPUT, CANONICAL, SCALE)
    expected = PYRAMID_ROI_ALIGN.reference(
        *(x.double().numpy() for x in maps),
        boxes.double().numpy(),
        output_size=OUTPUT,
        canonical_size=CANONICAL,
        spatial_scale=SCALE,
    )
    assert found.dtype == dtype
    assert found.shape == (120, 3, OUTPUT, OUTPUT)
    bound = POOLED if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=bound)
    none = ~expected.any((1, 2, 3))
    assert 10 < none.sum() < 100


@pytest.mark.parametrize(("count", "groups", "limit"), [(60, 1, 0.5), (200, 4, 0.3), (5, 80, 0.7)])
def test_sorted_nms(count: int, groups: int, limit: float) -> None:
    random = np.random.default_rng(count)
    boxes = some_boxes(count, 3, count)
    group = torch.from_numpy(random.integers(-1, groups + 1, (3, count)))
    valid = torch.from_numpy((random.random((3, count)) < 0.8).astype(np.float32))
    found = torch.ops.vim_deploy.sorted_nms(boxes, group, valid, limit, groups)
    expected = SORTED_NMS.reference(
        boxes.double().numpy(), group.numpy(), valid.numpy(), iou_threshold=limit, groups=groups
    )
    np.testing.assert_array_equal(found.numpy(), expected)
    assert 0 < expected.sum() < valid.sum()


def test_shapes_are_known_without_values() -> None:
    maps = [torch.empty(2, 5, side, side, device="meta") for side in (16, 8, 4, 2)]
    boxes = torch.empty(2, 9, 4, device="meta")
    pooled = torch.ops.vim_deploy.pyramid_roi_align(*maps, boxes, 14, 224.0, 0.25)
    assert pooled.shape == (18, 5, 14, 14)
    rows = torch.empty(2, 9, device="meta")
    assert torch.ops.vim_deploy.sorted_nms(boxes, rows.long(), rows, 0.5, 1).shape == (2, 9)
