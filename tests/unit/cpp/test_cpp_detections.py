"""Detectors in C++: pictures fitted, detections read and masks pasted as in Python."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import cpp, cpp_builds
from tests.support.detectors import boxes_in
from vim_deploy import images
from vim_deploy.artifact.record import record_path
from vim_deploy.scene.detections import detections_in
from vim_deploy.scene.paste import pasted
from vim_deploy.specs import ImagePreparation, TensorSpec

pytestmark = pytest.mark.slow

#: Width and height: sides that are a half, the input's own, tall, and nearly nothing.
SIZES = [(64, 64), (64, 40), (100, 150), (151, 100), (33, 200), (500, 3), (2, 300), (17, 9)]


def pictures(folder: Path, sizes: list[tuple[int, int]]) -> list[Path]:
    """Noise as PPM."""
    paths = []
    for width, height in sizes:
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
        paths.append(folder / f"{width}x{height}.ppm")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_fitted_as_in_python(channels: int, tmp_path: Path) -> None:
    program = cpp_builds.need_program("units")
    engine = cpp.detector(64, channels=channels)
    paths = pictures(tmp_path, SIZES)
    record = record_path(engine.write(tmp_path))
    done = cpp_builds.run(program, "fit", record, tmp_path / "out", *paths)
    assert done.returncode == 0, done.stderr
    found = np.fromfile(tmp_path / "out", np.uint8).reshape(len(SIZES), 64, 64, channels)
    for path, pixels, line in zip(paths, found, done.stdout.splitlines(), strict=True):
        wanted, inside = images.fit_from(path, engine.image)
        with Image.open(path) as own:
            assert [*map(int, line.split())] == [*inside, own.height, own.width]
        np.testing.assert_array_equal(pixels, wanted)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_photographs_are_turned_upright_as_in_python(suffix: str, tmp_path: Path) -> None:
    program = cpp_builds.need_units_with_decoders()
    engine = cpp.detector(64, channels=3)
    record, paths = record_path(engine.write(tmp_path)), []
    with Image.open(pictures(tmp_path, [(50, 30)])[0]) as picture:
        smooth = picture.resize((5, 3)).resize((50, 30))
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x010F], exif[0x0112] = "a camera", orientation
        paths.append(tmp_path / f"{orientation}.{suffix}")
        smooth.save(paths[-1], exif=exif.tobytes(), quality=95)
    done = cpp_builds.run(program, "fit", record, tmp_path / "out", *paths)
    assert done.returncode == 0, done.stderr
    found = np.fromfile(tmp_path / "out", np.uint8).reshape(len(paths), 64, 64, 3)
    for path, pixels, line in zip(paths, found, done.stdout.splitlines(), strict=True):
        wanted, inside = images.fit_from(path, engine.image)
        assert [*map(int, line.split())][:2] == [*inside]
        # JPEG leaves the rounding to the decoder; this is the margin that docs/cpp.md names.
        assert np.abs(pixels.astype(int) - wanted).max() <= (2 if suffix == "jpg" else 0)


def test_an_input_that_is_not_square_is_refused(tmp_path: Path) -> None:
    plan = cpp.FakeEngine(image=ImagePreparation(32, 40)).write(tmp_path)
    (path,) = pictures(tmp_path, [(9, 9)])
    program = cpp_builds.need_program("units")
    done = cpp_builds.run(program, "fit", record_path(plan), tmp_path / "out", path)
    assert done.returncode == 4
    assert "VIM-415: a detector takes a square input" in done.stderr


def test_masks_are_pasted_as_in_python(tmp_path: Path) -> None:
    random, size = np.random.default_rng(1), (37, 53)
    boxes = boxes_in(*size, 60)
    masks = random.random((len(boxes), 28, 28)).astype(np.float32)
    cases = [
        np.concatenate([np.float32([*size, 28]), box, mask.ravel()], dtype=np.float32)
        for box, mask in zip(boxes, masks, strict=True)
    ]
    # A box that leaves the picture, and one without area.
    for box in ([0, 0, 54, 9], [3, 3, 3, 9]):
        cases.append(np.concatenate([np.float32([*size, 1]), np.float32([*box, 1])]))
    np.concatenate(cases).tofile(tmp_path / "cases")
    done = cpp_builds.run(cpp_builds.need_program("units"), "paste", tmp_path / "cases")
    assert done.returncode == 0, done.stderr
    *lines, outside, empty = done.stdout.splitlines()
    assert outside == empty == "VIM-415"
    for box, mask, line in zip(boxes, masks, lines, strict=True):
        top, left, height, width, *digits = line.split()
        wanted = pasted(mask, box, size)
        assert (int(top), int(left)) == (wanted.top, wanted.left)
        assert (int(height), int(width)) == wanted.pixels.shape
        pixels = np.array([*"".join(digits)]) == "1"
        np.testing.assert_array_equal(pixels.reshape(wanted.pixels.shape), wanted.pixels)


@pytest.mark.parametrize("masks", [True, False])
def test_from_an_engine_to_what_is_in_pictures(masks: bool, tmp_path: Path) -> None:
    program = cpp_builds.need_program("detect")
    plan = cpp.detector(masks=masks).write(tmp_path)
    sizes = [(40, 30), (9, 30), (64, 64), (50, 20), (7, 90)]
    paths = pictures(tmp_path, sizes)
    for name in ("masks", "overlay"):
        (tmp_path / name).mkdir()
    words = ["--masks", tmp_path / "masks", "--overlay", tmp_path / "overlay"]
    done = cpp_builds.run(program, *words, plan, *paths)
    assert done.returncode == 0, done.stderr
    lines = iter(done.stdout.splitlines())
    for path, (width, height) in zip(paths, sizes, strict=True):
        assert next(lines) == str(path)
        inside = images.fitted_size(height, width, 32)
        outputs = cpp.detected(*inside)
        if not masks:
            del outputs["masks"]
        found = detections_in(path.name, outputs, (height, width), inside, 3)
        assert len(found) == cpp.FOUND
        for row, box in enumerate(found.boxes):
            score, sides, label = re.fullmatch(r"  (\S+)  (.+?)  (.+)", next(lines)).groups()  # type: ignore[union-attr]
            assert float(score) == found.scores[row]
            np.testing.assert_allclose([*map(float, sides.split())], box, atol=0.006)
            assert label.split()[0] == ("tree", "road")[row]
            file = tmp_path / "masks" / f"{path.stem}_{row}.pgm"
            if found.masks is None:
                assert not file.exists()
                continue
            mask = np.asarray(Image.open(file))
            assert mask.shape == (height, width)
            part = pasted(found.masks[row], box, (height, width))
            wanted = np.zeros((height, width), np.uint8)
            rows, columns = part.pixels.shape
            wanted[part.top : part.top + rows, part.left : part.left + columns] = part.pixels
            np.testing.assert_array_equal(mask, wanted * 255)
            assert label.split()[1:] == [str(part.count), "pixels"]
        drawn = np.asarray(Image.open(tmp_path / "overlay" / f"{path.stem}.ppm"))
        changed = (drawn != np.asarray(Image.open(path))).any(2)
        assert drawn.shape == (height, width, 3)
        assert changed.any()
        # Nothing is drawn before the boxes' first eighth.
        assert not changed[: int(height / 8)].any()
        assert not changed[:, : int(width / 8)].any()
    assert next(lines, None) is None


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    program = cpp_builds.need_program("detect")
    plan, (path,) = cpp.detector().write(tmp_path), pictures(tmp_path, [(20, 10)])
    done = cpp_builds.run(program, "--score", "60", plan, path)
    assert len(done.stdout.splitlines()) == 2
    done = cpp_builds.run(program, plan, path, FAKE_TENSORRT_OUTPUT="nan")
    assert done.returncode == 4
    assert "VIM-430: the engine gives NaN or Inf" in done.stderr
    done = cpp_builds.run(program, "--masks", tmp_path / "none", plan, path)
    assert done.returncode == 3
    assert "VIM-304: cannot write" in done.stderr
    for words in (["--score", "101"], ["--score"], ["--what"], []):
        done = cpp_builds.run(program, *words, plan)
        assert done.returncode == 2
        assert "see detect --help" in done.stderr
    classifier = cpp.FakeEngine().write(tmp_path, "classes.plan")
    done = cpp_builds.run(program, classifier, path)
    assert "VIM-415: the engine takes no sizes of pictures" in done.stderr
    done = cpp_builds.run(cpp_builds.need_program("classify"), plan, path)
    assert "VIM-415: the engine's outputs are not classes" in done.stderr


def test_the_example_of_a_package(tmp_path: Path) -> None:
    plan, (path,) = cpp.detector().write(tmp_path), pictures(tmp_path, [(40, 30)])
    done = cpp_builds.run(cpp_builds.need_program("detector"), plan, path)
    assert done.returncode == 0, done.stderr
    inside = images.fitted_size(30, 40, 32)
    found = detections_in(path.name, cpp.detected(*inside), (30, 40), inside, 3)
    assert found.masks is not None
    counts = [pasted(*both, (30, 40)).count for both in zip(found.masks, found.boxes, strict=True)]
    first, second = done.stdout.splitlines()
    assert first == f"0.7500  [5.0, 3.8, 20.0, 15.0]  {counts[0]} pixels  tree"
    assert second == f"0.5000  [5.0, 3.8, 40.0, 30.0]  {counts[1]} pixels  road"


@pytest.mark.parametrize(
    ("size", "why"),
    [
        (TensorSpec("mask", "int64", ("batch", 2)), "it has a second input, mask"),
        (TensorSpec("size", "float32", ("batch", 2)), "it has a second input, size"),
        (TensorSpec("size", "int64", (3, 2)), "do not belong to its pictures"),
    ],
)
def test_other_inputs_beside_pictures_are_refused(
    size: TensorSpec, why: str, tmp_path: Path
) -> None:
    plan = replace(cpp.detector(), size=size).write(tmp_path)
    (path,) = pictures(tmp_path, [(9, 9)])
    done = cpp_builds.run(cpp_builds.need_program("detect"), plan, path)
    assert done.returncode == 4
    assert done.stderr.startswith("error VIM-413")
    assert why in done.stderr
