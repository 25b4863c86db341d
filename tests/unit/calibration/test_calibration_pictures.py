"""Which pictures of a folder are watched, what counts as one, and what they become."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.detectors import described
from vim_deploy.calibration.pictures import CHECKED, choose_pictures, prepared_batches
from vim_deploy.errors import VimDeployError
from vim_deploy.images import batch_from_crops, fit_from, load_batch
from vim_deploy.ranges import CALIBRATION_IMAGES
from vim_deploy.specs import ImagePreparation, TensorSpec

IMAGE = ImagePreparation(8, 8, crop_ratio=1.0)
LEAST = CALIBRATION_IMAGES.low


def draw(folder: Path, count: int, start: int = 0, size: tuple[int, int] = (8, 8)) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(start, start + count):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        files.append(folder / f"{number:03}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def refused(folder: Path, code: str, count: int = 128) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        choose_pictures(folder, IMAGE, count, 0)
    assert caught.value.code == code
    return caught.value


def test_seed_and_names_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = draw(tmp_path / "a", 30) + draw(tmp_path / "b", 30, 30)
    first = choose_pictures(tmp_path, IMAGE, LEAST, 0)
    assert len(first.files) == LEAST
    assert list(first.files) == [file for file in files if file in first.files]
    joined = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in first.files)
    assert first.sha256 == hashlib.sha256(joined.encode()).hexdigest()
    assert len(first.check) == CHECKED
    assert not {*first.check} & {*first.files}
    assert choose_pictures(tmp_path, IMAGE, LEAST, 1).files != first.files

    walk = os.walk

    def backwards(*given: Any, **more: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for place, folders, names in walk(*given, **more):
            folders.sort(reverse=True)
            yield place, folders, sorted(names, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    assert choose_pictures(tmp_path, IMAGE, LEAST, 0) == first


def test_a_small_folder_is_taken_whole_and_checks_with_its_own(tmp_path: Path) -> None:
    files = draw(tmp_path, LEAST)
    chosen = choose_pictures(tmp_path, IMAGE, 128, 0)
    assert list(chosen.files) == files
    assert len(chosen.check) == CHECKED
    assert {*chosen.check} < {*files}
    more = draw(tmp_path, 3, LEAST)
    assert len(choose_pictures(tmp_path, IMAGE, LEAST, 0).check) == len(more)


def test_blank_and_repeated_pictures_do_not_count(tmp_path: Path) -> None:
    files = draw(tmp_path, LEAST - 1)
    for number in range(20):
        Image.new("RGB", (8 + number, 9), (number, 0, 200)).save(tmp_path / f"blank-{number}.png")
    noise = np.random.default_rng(0).integers(16, 19, (8, 8), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "lens-cap.png")
    # The same picture under another name and in another format.
    for number in range(4):
        Image.open(files[number]).save(tmp_path / f"again-{number}.bmp")
    (tmp_path / "film.mp4").write_bytes(b"film")
    (tmp_path / "arrays.npz").write_bytes(b"arrays")
    error = refused(tmp_path, "VIM-441")
    assert f"{LEAST - 1} different pictures" in error.message
    assert f"{LEAST - 1 + 25} found, 21 of one colour, 4 the same as another" in error.why
    assert ".mp4, .npz): 2" in error.why
    draw(tmp_path, 1, 100)
    chosen = choose_pictures(tmp_path, IMAGE, 128, 0)
    originals = {file.name for file in files} | {"100.png"} | {f"again-{n}.bmp" for n in range(4)}
    assert len(chosen.files) == LEAST
    assert {file.name for file in chosen.files} <= originals


def test_all_black(tmp_path: Path) -> None:
    for number in range(40):
        Image.new("L", (12, 12)).save(tmp_path / f"{number}.jpg")
    error = refused(tmp_path, "VIM-441")
    assert error.message.startswith("0 different pictures")
    assert "40 found, 40 of one colour" in error.why


def test_what_is_no_folder_of_pictures(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "VIM-401")
    assert ".png" in refused(tmp_path, "VIM-401").why
    one = draw(tmp_path, 1)[0]
    for name in (one.name, "film.mp4", "arrays.npz"):
        (tmp_path / name).touch()
        error = refused(tmp_path / name, "VIM-441")
        assert error.message.startswith(f"{tmp_path / name} is one file")
    draw(tmp_path, 40)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert "broken.png" in refused(tmp_path, "VIM-411").message
    with pytest.raises(VimDeployError, match="VIM-415"):
        choose_pictures(tmp_path, replace(IMAGE, channels=4), 128, 0)


def test_channels_are_the_models(tmp_path: Path) -> None:
    files = draw(tmp_path, LEAST)
    grey = replace(IMAGE, channels=1, mean=(0.5,), std=(0.5,))
    assert list(choose_pictures(tmp_path, grey, 128, 0).files) == files


def test_of_a_fitted_picture_the_border_is_not_looked_at(tmp_path: Path) -> None:
    square = ImagePreparation(16, 16, crop_ratio=1.0)
    for number in range(LEAST):
        Image.new("RGB", (16, 8), (200, number, 0)).save(tmp_path / f"{number}.png")
    with pytest.raises(VimDeployError) as caught:
        choose_pictures(tmp_path, square, 128, 0, sized=True)
    assert f"{LEAST} of one colour" in caught.value.why


def test_batches_are_what_the_graph_takes(tmp_path: Path) -> None:
    files = draw(tmp_path, 5, size=(12, 10))
    info = replace(described(), image=IMAGE, head="logits", dense=None, preprocess="uint8")
    free = TensorSpec("image", "uint8", ("batch", 8, 8, 3))
    whole = load_batch(files, IMAGE, "uint8")
    found = list(prepared_batches(files, info, free, 2))
    assert [len(made.images) for made in found] == [2, 2, 1]
    assert all(made.sizes is None for made in found)
    assert np.array_equal(np.concatenate([made.images for made in found]), whole)
    fixed = replace(free, shape=(4, 8, 8, 3))
    filled = list(prepared_batches(files, info, fixed, 2))
    assert [len(made.images) for made in filled] == [4, 4]
    assert np.array_equal(filled[1].images, whole[[4, 0, 1, 2]])
    with pytest.raises(VimDeployError, match="VIM-415"):
        next(prepared_batches(files, info, replace(free, dtype="float32"), 2))


def test_a_detectors_batches_have_sizes(tmp_path: Path) -> None:
    files = draw(tmp_path, 3, size=(12, 24))
    info = described(size=32)
    spec = TensorSpec("image", "float32", ("batch", 3, 32, 32))
    (made,) = prepared_batches(files, info, spec, 8)
    fitted = [fit_from(file, info.image)[0] for file in files]
    assert np.array_equal(made.images, batch_from_crops(fitted, info.image, "none"))
    assert made.sizes is not None
    assert made.sizes.tolist() == [[16, 32]] * 3
