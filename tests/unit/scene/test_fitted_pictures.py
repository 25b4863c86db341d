"""Pictures made as large as fits into a detector's input, as detectron2 does."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import PIL.Image
import pytest

from tests.support.detector_cases import detector_case
from vim_deploy.errors import VimDeployError
from vim_deploy.images import fit_from, fitted_size
from vim_deploy.specs import ImagePreparation


def prepared(height: int, width: int | None = None, channels: int = 3) -> ImagePreparation:
    return ImagePreparation(
        height, width or height, channels, (0.5,) * channels, (0.5,) * channels, 1.0, "bilinear"
    )


@pytest.mark.parametrize("short", ["F01", "F02"])
def test_bytes_are_the_official_ones(short):
    case = detector_case(short)
    for expected in case.pictures:
        padded, (height, width) = fit_from(expected.picture, prepared(case.side))
        np.testing.assert_array_equal(padded[:height, :width], expected.resized)
        assert padded.shape == (case.side, case.side, 3)
        assert not padded[height:].any()
        assert not padded[:, width:].any()


def test_the_longer_side_is_the_inputs_and_the_other_is_rounded():
    random = np.random.default_rng(0)
    for height, width in random.integers(1, 5000, (3000, 2)).tolist():
        side = int(random.choice([64, 128, 800, 1024]))
        found = fitted_size(height, width, side)
        assert max(found) == side
        exact = Fraction(side * min(height, width), max(height, width))
        # Where exactly a half is to be rounded, double precision decides.
        if (exact - Fraction(1, 2)).denominator > 1:
            assert min(found) == max(int(exact + Fraction(1, 2)), 1), (height, width, side)
        assert (found[0] <= found[1]) == (height <= width) or found[0] == found[1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((20, 320), (8, 128)), ((1, 3000), (1, 128)), ((3000, 1), (128, 1)), ((1, 1), (128, 128))],
)
def test_elongated_pictures_keep_a_pixel(size, expected):
    picture = np.full((*size, 3), 200, np.uint8)
    padded, run = fit_from(picture, prepared(128))
    assert run == expected
    assert (padded == 200).all(-1).sum() == expected[0] * expected[1]


def test_photographs_are_turned_upright(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    PIL.Image.fromarray(pixels).save(tmp_path / "turned.png", exif=turned)
    found, run = fit_from(tmp_path / "turned.png", prepared(64))
    expected, upright = fit_from(np.ascontiguousarray(np.rot90(pixels, -1)), prepared(64))
    assert run == upright == (64, 38)
    np.testing.assert_array_equal(found, expected)


def test_grey_and_what_is_refused(tmp_path):
    grey = np.full((4, 8), 7, np.uint8)
    padded, run = fit_from(grey, prepared(16, channels=1))
    assert (padded.shape, run) == ((16, 16, 1), (8, 16))
    with pytest.raises(VimDeployError, match="VIM-415"):
        fit_from(grey, prepared(16, 32))
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(VimDeployError, match="VIM-411"):
        fit_from(tmp_path / "bad.png", prepared(16))
