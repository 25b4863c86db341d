"""Resizing in numpy against PyTorch, and the sizes that mmcv computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vim_deploy.scene import resize
from vim_deploy.scene.resize import (
    resized_labels,
    resized_maps,
    resized_pixels,
    size_within,
)

SIZES = [
    ((16, 16), (64, 64)),
    ((64, 48), (20, 31)),
    ((1, 5), (7, 3)),
    ((5, 1), (5, 9)),
    ((12, 12), (12, 12)),
]


def by_torch(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    tensor = torch.from_numpy(values.transpose(2, 0, 1)[None].astype(np.float64))
    full = F.interpolate(tensor, size=size, mode="bilinear", align_corners=False)
    return full[0].numpy().transpose(1, 2, 0)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_maps_are_resized_as_by_pytorch(source, target):
    maps = np.random.default_rng(0).standard_normal((*source, 5)).astype(np.float32)
    found = resized_maps(maps, target)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_torch(maps, target), atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_pixels_are_the_rounded_exact_value(source, target, channels):
    picture = np.random.default_rng(1).integers(0, 256, (*source, channels), dtype=np.uint8)
    found = resized_pixels(picture, target)
    assert found.dtype == np.uint8
    exact = by_torch(picture, target)
    # Half a level of rounding, and float32.
    assert np.abs(found - exact).max() <= 0.5 + 1e-4


def test_strips_do_not_change_pixels(monkeypatch):
    picture = np.random.default_rng(2).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    whole = resized_pixels(picture, (133, 50))
    monkeypatch.setattr(resize, "STRIP_BYTES", 4 * 70 * 3 * 7)
    np.testing.assert_array_equal(resized_pixels(picture, (133, 50)), whole)


def test_labels_take_the_nearest_pixel():
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    found = resized_labels(labels, (4, 6))
    assert found.tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    np.testing.assert_array_equal(resized_labels(found, (2, 2)), labels)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # By mmcv's rule: factor = min(2048 / long, 512 / short), sizes int(side * factor + 0.5).
        ((427, 640), (512, 767)),
        ((640, 427), (767, 512)),
        ((512, 683), (512, 683)),
        ((100, 1400), (146, 2048)),
        ((3000, 4000), (512, 683)),
    ],
)
def test_size_within(size, expected):
    assert size_within(size, (2048, 512)) == size_within(size, (512, 2048)) == expected
