"""COCO's formats: run lengths, their strings, numbers of pictures and classes."""

from __future__ import annotations

import numpy as np
import pytest

from vim_deploy.scene.coco import NAMES, category_ids, compressed, image_ids, run_lengths
from vim_deploy.scene.paste import Pasted


def masks() -> list[tuple[Pasted, tuple[int, int]]]:
    """Masks within pictures: random ones, full columns, none, all, single pixels."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(60):
        height, width = map(int, random.integers(1, 40, 2))
        top, left = int(random.integers(height)), int(random.integers(width))
        rows = int(random.integers(1, height - top + 1))
        columns = int(random.integers(1, width - left + 1))
        density = random.choice([0.0, 0.1, 0.5, 0.95, 1.0])
        found.append((Pasted(top, left, random.random((rows, columns)) < density), (height, width)))
    for corner in ((0, 0), (0, 4), (3, 0), (3, 4)):
        found.append((Pasted(*corner, np.ones((1, 1), bool)), (4, 5)))
    found.append((Pasted(0, 1, np.ones((4, 3), bool)), (4, 5)))
    found.append((Pasted(0, 0, np.ones((4, 5), bool)), (4, 5)))
    # Runs long enough for several digits.
    found.append((Pasted(100, 200, np.ones((900, 700), bool)), (1200, 1600)))
    return found


def whole(mask: Pasted, size: tuple[int, int]) -> np.ndarray:
    pixels = np.zeros(size, bool)
    rows, columns = mask.pixels.shape
    pixels[mask.top : mask.top + rows, mask.left : mask.left + columns] = mask.pixels
    return pixels


def test_runs_give_the_mask_back():
    for mask, size in masks():
        lengths = run_lengths(mask, size)
        values = np.arange(len(lengths)) % 2 == 1
        pixels = np.repeat(values, lengths).reshape(size[1], size[0]).T
        np.testing.assert_array_equal(pixels, whole(mask, size))
        assert min(lengths[1:], default=1) > 0


def test_strings_are_those_of_pycocotools():
    tool = pytest.importorskip("pycocotools.mask", reason="pip install 'vim-deploy[coco]'")
    for mask, size in masks():
        expected = tool.encode(np.asfortranarray(whole(mask, size).astype(np.uint8)))
        found = compressed(run_lengths(mask, size))
        assert found == expected["counts"].decode()


def test_a_string_by_hand():
    """Column by column 5 unset, 6 set, 40 unset, 3 set; the fourth less the second is -3."""
    assert compressed([5, 6, 40, 3]) == "56X1M"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/000000000139.jpg", "COCO_val2014_000000000042.jpg"], [139, 42]),
        (["0.png", "1.png"], [0, 1]),
        (["scene7.jpg", "scene.jpg"], None),
        (["a/1.jpg", "b/01.jpg"], None),
        (["1" * 30 + ".jpg"], None),
        ([], []),
    ],
)
def test_numbers_of_pictures_are_those_in_their_names(names, expected):
    found = image_ids(names)
    assert found == (None if expected is None else dict(zip(names, expected, strict=True)))


def test_categories():
    """Places that the list of COCO's categories is known by."""
    ids = dict(zip(NAMES, category_ids(NAMES, 80), strict=True))
    known = {"person": 1, "fire hydrant": 11, "stop sign": 13, "cat": 17, "backpack": 27}
    known |= {"handbag": 31, "wine glass": 46, "dining table": 67, "toilet": 70, "tv": 72}
    known |= {"book": 84, "toothbrush": 90}
    assert {name: ids[name] for name in known} == known
    assert len(set(ids.values())) == 80
    assert category_ids(NAMES[::-1], 80) == tuple(range(1, 81))
    assert category_ids((), 3) == (1, 2, 3)
