"""Detections in pixels of their pictures, and masks pasted on these: the official ones."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.support.detector_cases import detector_case
from tests.support.detectors import described
from vim_deploy.errors import VimDeployError
from vim_deploy.scene import paste
from vim_deploy.scene.detections import detections_in, require_outputs
from vim_deploy.scene.paste import pasted


def on_picture(mask: paste.Pasted, size: tuple[int, int]) -> np.ndarray:
    whole = np.zeros(size, bool)
    rows, columns = mask.pixels.shape
    whole[mask.top : mask.top + rows, mask.left : mask.left + columns] = mask.pixels
    return whole


@pytest.mark.parametrize("short", ["F01", "F02"])
def test_the_official_detections_on_their_pictures(short):
    """The official boxes are a product in float32, too; 1e-4 px is what was promised of them."""
    for expected in detector_case(short).pictures:
        size = expected.picture.shape[:2]
        row = {name: getattr(expected, name) for name in ("boxes", "scores", "classes")}
        # Rows behind the last one are zeros in a graph's outputs.
        row = {
            name: np.concatenate([part, np.zeros_like(part[:1], shape=(1, *part.shape[1:]))])
            for name, part in row.items()
        }
        row["count"] = np.array(len(expected.boxes))
        found = detections_in("a picture", row, size, expected.size, 80)
        index = expected.final_index
        np.testing.assert_array_equal(found.scores, expected.scores[index])
        np.testing.assert_array_equal(found.classes, expected.classes[index])
        np.testing.assert_allclose(found.boxes, expected.final_boxes, rtol=0, atol=1e-4)
        for box, at, mask in zip(found.boxes, index, expected.final_masks, strict=True):
            # The masks of the best detections are stored.
            if at < len(expected.masks):
                whole = on_picture(pasted(expected.masks[at], box, size), size)
                assert (whole != mask).sum() == 0


def grid_sampled(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask at every pixel's centre, in float64, by the definition in PyTorch's words."""
    left, top, right, bottom = map(float, box)
    y = (torch.arange(size[0], dtype=torch.float64) + 0.5 - top) / (bottom - top) * 2 - 1
    x = (torch.arange(size[1], dtype=torch.float64) + 0.5 - left) / (right - left) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    values = torch.from_numpy(mask.astype(np.float64))[None, None]
    return F.grid_sample(values, grid, align_corners=False)[0, 0].numpy()


@pytest.mark.parametrize("at_once", [1 << 20, 64])
def test_masks_are_read_at_pixel_centres(monkeypatch, at_once):
    monkeypatch.setattr(paste, "_AT_ONCE", at_once)
    random = np.random.default_rng(3)
    size = (60, 90)
    boxes = [(0, 0, 90, 60), (10.2, 5.7, 10.3, 55), (89.5, 59.25, 90, 60), (3, 3, 80.4, 3.001)]
    for _ in range(30):
        x, y = np.sort(random.uniform(0, size[1], 2)), np.sort(random.uniform(0, size[0], 2))
        boxes.append((x[0], y[0], x[1], y[1]))
    for box in np.array(boxes, np.float32):
        mask = random.random((28, 28), np.float32)
        exact = grid_sampled(mask, box, size)
        whole = on_picture(pasted(mask, box, size), size)
        # A coordinate of 90 in float32 is off by 4e-6 at most, and a very thin box magnifies that.
        near = np.abs(exact - 0.5) < 1e-5 + 1e-4 / min(box[2] - box[0], box[3] - box[1])
        np.testing.assert_array_equal(whole[~near], exact[~near] >= 0.5)


def test_one_mask_takes_memory_for_its_own_box_only():
    mask, size = np.ones((28, 28), np.float32), (1000, 1500)
    tracemalloc.start()
    try:
        full = pasted(mask, np.array([0, 0, 1500, 1000], np.float32), size)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        small = pasted(mask, np.array([700, 500, 710, 520], np.float32), size)
        _, little = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert full.count > 0.99 * 1_500_000
    # One byte a pixel, a strip of floats with its comparison, and the weights.
    assert most < full.pixels.nbytes + 6 * paste._AT_ONCE
    assert small.pixels.shape == (22, 12)
    assert little < full.pixels.nbytes + 100_000


def row_of(**changes: object) -> dict[str, np.ndarray]:
    """Two detections in four rows of a model of three classes."""
    boxes = np.zeros((4, 4), np.float32)
    boxes[:2] = (1, 2, 30, 40), (10, 10, 20, 20)
    row = {
        "boxes": boxes,
        "scores": np.array([0.9, 0.5, 0, 0], np.float32),
        "classes": np.array([2, 0, 0, 0]),
        "masks": np.full((4, 28, 28), 0.75, np.float32),
        "count": np.array(2),
    }
    return row | {name: np.asarray(value) for name, value in changes.items()}


def test_boxes_outside_are_clipped_and_empty_ones_dropped():
    boxes = np.array([(-5, 2, 30, 70), (64, 3, 70, 9), (5, 5, 5, 9), (1, 1, 2, 2)], np.float32)
    row = row_of(boxes=boxes, count=4, classes=[0, 1, 2, 1])
    found = detections_in("x", row, (100, 32), (64, 64), 3)
    np.testing.assert_allclose(found.boxes, [(0, 3.125, 15, 100), (0.5, 1.5625, 1, 3.125)])
    assert found.classes.tolist() == [0, 1]
    assert len(found.masks) == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"count": -1}, "VIM-415"),
        ({"count": 5}, "VIM-415"),
        ({"classes": [0, 3, 0, 0]}, "VIM-415"),
        ({"classes": [-1, 0, 0, 0]}, "VIM-415"),
        ({"scores": [0.9, np.nan, 0, 0]}, "VIM-430"),
        ({"boxes": np.full((4, 4), np.inf)}, "VIM-430"),
        ({"masks": np.full((4, 28, 28), np.nan)}, "VIM-430"),
    ],
)
def test_nothing_is_made_of_garbage(changes, code):
    with pytest.raises(VimDeployError, match=code):
        detections_in("garbage.jpg", row_of(**changes), (64, 64), (64, 64), 3)


def test_classes_of_empty_rows_do_not_matter():
    row = row_of(classes=[2, 0, 99, -7])
    assert detections_in("x", row, (64, 64), (64, 64), 3).classes.tolist() == [2, 0]
    assert len(detections_in("x", row_of(count=0), (64, 64), (64, 64), 3)) == 0


def test_outputs_have_to_be_those_of_the_head():
    info = described(rows=4)
    batch = {name: values[None] for name, values in row_of().items()}
    require_outputs(batch, info)
    require_outputs({name: batch[name] for name in batch if name != "masks"}, info)
    for name, wrong in {
        "boxes": batch["boxes"][:, :3],
        "scores": batch["scores"][..., None],
        "masks": batch["masks"][..., :27],
        "count": batch["boxes"],
    }.items():
        with pytest.raises(VimDeployError, match="VIM-415"):
            require_outputs(batch | {name: wrong}, info)
    with pytest.raises(VimDeployError, match="VIM-415"):
        require_outputs({name: batch[name] for name in batch if name != "count"}, info)
