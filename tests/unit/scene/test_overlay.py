"""Overlays, legends, label pictures and colours."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from vim_deploy.scene import overlay as module
from vim_deploy.scene.classes import class_areas, class_name, oklab, palette_of
from vim_deploy.scene.overlay import MOST_ENTRIES, overlay, printable, save_labels, save_picture

PALETTE = ((200, 0, 0), (0, 180, 40), (20, 60, 220), (240, 200, 0))
NAMES = ("road", "tree", "water", "person")
#: Height and width: tiny, tall, wide, huge.
SIZES = [(1, 1), (40, 32), (700, 12), (9, 600), (60, 90), (1200, 1500)]


def halves(height: int, width: int) -> np.ndarray:
    """Class 1 with a part of class 3 at the top left."""
    labels = np.ones((height, width), np.uint8)
    labels[: -(-height // 3), : -(-width // 2)] = 3
    return labels


def drawn(labels: np.ndarray, grey: int = 100, names=NAMES, palette=PALETTE, **values):
    picture = np.full((*labels.shape, 3), grey, np.uint8)
    areas = class_areas(labels, names, len(palette))
    return overlay(picture, labels, areas, palette, **values)


def outside(canvas: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pixels [n, 3] of the canvas that are not the picture's."""
    mask = np.ones(canvas.shape[:2], bool)
    mask[: labels.shape[0], : labels.shape[1]] = False
    return canvas[mask]


def count(pixels: np.ndarray, colour) -> int:
    return int((pixels == np.array(colour)).all(-1).sum())


@pytest.mark.parametrize("size", SIZES)
def test_legend_shows_the_classes_that_are_there_and_hides_nothing(size):
    labels = halves(*size)
    canvas = drawn(labels)
    rest = outside(canvas, labels)
    found = np.unique(labels)
    for index, colour in enumerate(PALETTE):
        assert (count(rest, colour) > 50) == (index in found), index
    # Letters: dark pixels, in two rows of text at least as high as the smallest letters.
    assert count(rest, (24, 24, 24)) > 20
    blend = np.rint(0.5 * 100 + 0.5 * np.array(PALETTE, float)[labels])
    np.testing.assert_array_equal(canvas[: size[0], : size[1]], blend)


@pytest.mark.parametrize(
    ("opacity", "expected"), [(0, (100, 100, 100)), (1, (240, 200, 0)), (0.25, (135, 125, 75))]
)
def test_opacity(opacity, expected):
    canvas = drawn(halves(30, 30), opacity=opacity)
    assert tuple(canvas[0, 0]) == expected


def test_grey_pictures_are_drawn_over_too():
    labels = halves(30, 30)
    areas = class_areas(labels, NAMES, 4)
    canvas = overlay(np.full((30, 30, 1), 100, np.uint8), labels, areas, PALETTE)
    np.testing.assert_array_equal(canvas, drawn(labels))


def test_rows_in_strips_are_the_same(monkeypatch):
    whole = drawn(halves(50, 20))
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(drawn(halves(50, 20)), whole)


@pytest.mark.parametrize("size", [(700, 12), (9, 600)])
def test_elongated_pictures_have_the_legend_along_the_longer_side(size):
    canvas = drawn(halves(*size))
    longer = int(np.argmax(size))
    assert canvas.shape[longer] == size[longer]
    assert canvas.shape[1 - longer] > size[1 - longer]


def test_letters_grow_with_the_picture():
    def letters(size):
        labels = np.zeros(size, np.uint8)
        canvas = drawn(labels)
        return count(outside(canvas, labels), PALETTE[0]) ** 0.5  # side of the coloured square

    small, large = letters((100, 150)), letters((2000, 3000))
    assert 10 <= small <= 14
    assert 55 <= large <= 75


def test_the_largest_class_comes_first_and_many_are_summed_up():
    classes = 60
    palette = palette_of((), classes)
    labels = np.repeat(np.arange(classes, dtype=np.uint8), np.arange(classes) + 1)[None, :]
    labels = np.repeat(labels, 40, axis=0)
    areas = class_areas(labels, (), classes)
    assert [area.index for area in areas] == list(range(classes))[::-1]
    assert areas[0].label == "class 59"
    assert sum(area.share for area in areas) == pytest.approx(1)
    assert sum(area.pixels for area in areas) == labels.size
    rest = outside(drawn(labels, names=(), palette=palette), labels)
    named = [index for index in range(classes) if count(rest, palette[index]) > 1000]
    assert named == list(range(classes - MOST_ENTRIES + 1, classes))


def test_long_names_are_cut():
    labels = np.zeros((60, 60), np.uint8)
    wide = drawn(labels, names=("n" * 100_000,)).shape[1]
    assert wide < drawn(labels, names=("n" * 15,)).shape[1] + 80


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tree", "tree"),
        ("fenêtre", "fenetre"),
        ("建物", "class 7"),
        ("a\nb", "a?b"),
    ],
)
def test_names_are_written_in_letters_the_font_has(name, expected):
    assert printable(name, 7) == expected


def test_class_names():
    assert [class_name(("a", "b"), index) for index in (1, 2)] == ["b", "class 2"]


@pytest.mark.parametrize("classes", [2, 19, 150, 256])
def test_computed_colours_are_told_apart(classes):
    palette = palette_of((), classes)
    assert len(palette) == classes
    assert palette == palette_of((), 300)[:classes]
    places = oklab(np.array([*palette, (0, 0, 0), (255, 255, 255)]))
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
    gaps[np.diag_indices(len(places))] = np.inf
    # Colours side by side are told apart from about 0.02 on.
    assert gaps.min() > {2: 0.25, 19: 0.15, 150: 0.06, 256: 0.04}[classes]


def test_more_classes_than_colours():
    palette = palette_of((), 2000)
    assert len(palette) == 2000
    assert len(set(palette)) > 700


def test_stored_colours_are_taken():
    assert palette_of(PALETTE, 4) == PALETTE


def test_label_pictures_hold_the_classes(tmp_path):
    labels = halves(30, 20)
    save_labels(tmp_path / "l.png", labels, PALETTE)
    with PIL.Image.open(tmp_path / "l.png") as image:
        assert image.mode == "P"
        assert tuple(image.getpalette()[9:12]) == PALETTE[3]
        np.testing.assert_array_equal(np.asarray(image), labels)
        assert np.asarray(image.convert("RGB"))[0, 0].tolist() == list(PALETTE[3])


def test_label_pictures_of_many_classes_have_16_bits(tmp_path):
    labels = (np.arange(600, dtype=np.uint16) * 3).reshape(20, 30)
    save_labels(tmp_path / "l.png", labels, palette_of((), 1800))
    with PIL.Image.open(tmp_path / "l.png") as image:
        np.testing.assert_array_equal(np.asarray(image), labels)


def test_pictures_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    save_picture(tmp_path / "a.png", drawn(halves(9, 9)))
    before = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(PIL.Image.Image, "save", fail)
    with pytest.raises(module.VimDeployError) as caught:
        save_picture(tmp_path / "a.png", drawn(halves(8, 8)))
    assert caught.value.code == "VIM-305"
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
