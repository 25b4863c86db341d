"""Overlays of detections: masks, boxes, names and scores on the picture itself."""

from __future__ import annotations

import numpy as np
import pytest

from vim_deploy.scene.boxes_overlay import canvas_of, tint, with_boxes
from vim_deploy.scene.detections import Detected
from vim_deploy.scene.paste import Pasted

PALETTE = ((200, 0, 0), (255, 240, 60))


def detected(boxes: list[tuple[float, ...]], classes: list[int]) -> Detected:
    scores = np.linspace(0.9, 0.2, len(boxes)).astype(np.float32)
    return Detected(np.array(boxes, np.float32).reshape(-1, 4), scores, np.array(classes), None)


def grey(height: int, width: int) -> np.ndarray:
    return canvas_of(np.full((height, width, 1), 100, np.uint8))


def count(pixels: np.ndarray, colour: tuple[int, ...]) -> int:
    return int((pixels == np.array(colour)).all(-1).sum())


def test_masks_tint_their_pixels_only():
    picture = np.random.default_rng(0).integers(0, 256, (600, 50, 3), np.uint8)
    pixels = np.random.default_rng(1).random((590, 40)) < 0.5
    canvas = canvas_of(picture)
    tint(canvas, Pasted(10, 5, pixels), PALETTE[1], 0.25)
    whole = np.zeros((600, 50), bool)
    whole[10:, 5:45] = pixels
    np.testing.assert_array_equal(canvas[~whole], picture[~whole])
    mixed = np.rint(0.75 * picture[whole] + 0.25 * np.array(PALETTE[1]))
    np.testing.assert_array_equal(canvas[whole], mixed)


def test_boxes_end_at_the_pixels_they_touch():
    canvas = with_boxes(grey(200, 300), detected([(50.5, 60, 250, 150.2)], [0]), ["car"], PALETTE)
    assert canvas.shape == (200, 300, 3)
    np.testing.assert_array_equal(canvas[150, 50:250], [PALETTE[0]] * 200)
    np.testing.assert_array_equal(canvas[60:151, 249], [PALETTE[0]] * 91)
    assert (canvas[151:] == 100).all()
    assert (canvas[:, 250:] == 100).all()
    assert (canvas[70:140, 60:240] == 100).all()
    # The name stands above the box, in letters that are read on its colour.
    label = canvas[40:60, 50:120]
    assert count(label, PALETTE[0]) > 300
    assert count(label, (255, 255, 255)) > 15


def test_letters_are_black_on_light_colours():
    canvas = with_boxes(grey(200, 300), detected([(20, 60, 250, 150)], [1]), ["car"], PALETTE)
    assert count(canvas, (0, 0, 0)) > 15
    assert count(canvas, (255, 255, 255)) == 0


def test_the_best_is_on_top():
    boxes = [(20, 50, 100, 100), (20, 50, 100, 100)]
    canvas = with_boxes(grey(120, 160), detected(boxes, [0, 1]), ["a", "a"], PALETTE)
    assert count(canvas, PALETTE[0]) > 500
    assert count(canvas, PALETTE[1]) == 0


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (300, 5), (40, 40), (1200, 900)])
@pytest.mark.parametrize("name", ["n" * 5000, "建物", "", "a\nb"])
def test_any_size_and_any_name(size, name):
    height, width = size
    boxes = [(0, 0, width, height), (width - 0.01, height - 0.01, width, height)]
    canvas = with_boxes(grey(*size), detected(boxes, [0, 1]), [name, name], PALETTE)
    assert canvas.shape == (height, width, 3)
    assert (canvas != 100).any()


def test_no_detections_leave_the_picture():
    canvas = with_boxes(grey(20, 30), detected([], []), [], PALETTE)
    assert (canvas == 100).all()
