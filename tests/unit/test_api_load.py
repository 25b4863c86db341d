"""A loaded model, and the kinds of pictures that it and ``run`` take."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import vim_deploy
from tests.support.source import REPOSITORY
from vim_deploy.errors import VimDeployError

DIGITS = REPOSITORY / "tests" / "data" / "digits"
FILES = {number: DIGITS / f"{number}.png" for number in (0, 3, 7)}


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "digits.onnx"
    return vim_deploy.export("vim-digits", path, vim_deploy.ExportOptions(check=False)).path


@pytest.fixture(scope="module")
def model(onnx: Path) -> Iterator[vim_deploy.Model]:
    with vim_deploy.load(str(onnx), threads=1) as model:
        yield model


def pixels(number: int) -> np.ndarray[Any, Any]:
    return np.asarray(PIL.Image.open(FILES[number]))


def coloured(number: int) -> np.ndarray[Any, Any]:
    return np.repeat(pixels(number)[:, :, None], 3, axis=2)


def test_what_a_model_says(model: vim_deploy.Model, onnx: Path) -> None:
    assert model.labels[3] == "three"
    assert (model.input.dtype, model.input.shape) == ("float32", ("batch", 1, 32, 32))
    assert model.outputs == ("logits",)
    assert model.path == onnx
    assert repr(model).startswith("<digits.onnx in ONNX Runtime")
    assert model.runner.run(np.zeros((2, 1, 32, 32), np.float32))["logits"].shape == (2, 10)


@pytest.mark.parametrize(
    "given",
    [
        FILES[3],
        str(FILES[3]),
        pixels(3),
        pixels(3)[:, :, None],
        np.asfortranarray(coloured(3)),
        PIL.Image.open(FILES[3]),
        PIL.Image.fromarray(coloured(3)),
        PIL.Image.open(FILES[3]).convert("RGBA"),
        PIL.Image.open(FILES[3]).convert("P"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_one_picture_is_the_same_however_it_comes(model: vim_deploy.Model, given: Any) -> None:
    wanted = model(FILES[3]).images[0].top
    assert wanted[0].label == "three"
    (found,) = model(given).images
    # Grey made of equal red, green and blue is the same grey (ITU-R 601 weights sum to 1).
    assert found.top == wanted
    # A picture can be given again: it was neither changed nor closed.
    assert model([given]).images[0].top == wanted


@pytest.mark.parametrize(
    "several",
    [
        lambda: [FILES[0], pixels(3), PIL.Image.open(FILES[7])],
        lambda: (str(FILES[0]), coloured(3), pixels(7)),
        lambda: iter([pixels(0), pixels(3), pixels(7)]),
        lambda: np.stack([coloured(0), coloured(3), coloured(7)]),
        lambda: str(DIGITS),
        lambda: {FILES[0]: 1, FILES[3]: 2, FILES[7]: 3},
    ],
)
def test_several_pictures_come_back_in_order(model: vim_deploy.Model, several: Any) -> None:
    result = model(several(), top=1, batch=2)
    assert [image.top[0].label for image in result.images] == ["zero", "three", "seven"]
    options = vim_deploy.RunOptions(top=1, batch=2, runner=vim_deploy.RunnerOptions(threads=1))
    assert vim_deploy.run(model.path, several(), options) == result


def test_names(model: vim_deploy.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = [pixels(0), FILES[0], pixels(0), FILES[0]]
    names = [image.file for image in model(given).images]
    assert names == ["picture-0", str(FILES[0]), "picture-2"]
    Path("picture-0").write_bytes(FILES[3].read_bytes())
    found = {image.file: image.top[0].label for image in model([pixels(0), "picture-0"]).images}
    assert found == {"picture-0_": "zero", "picture-0": "three"}


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (pixels(0).astype(np.float32) / 255, "VIM-415", "float32"),
        (pixels(0).astype(np.int64), "VIM-415", "int64"),
        (coloured(0).transpose(2, 0, 1), "VIM-415", "[3, 32, 32]"),
        (np.zeros((8, 8, 4), np.uint8), "VIM-415", "[8, 8, 4]"),
        (np.zeros((0, 8, 3), np.uint8), "VIM-415", "[0, 8, 3]"),
        (np.zeros(8, np.uint8), "VIM-415", "[8]"),
        (np.array(3, np.uint8), "VIM-415", "[]"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), "VIM-415", "[2, 8, 8, 3]"),
        (np.zeros((0, 8, 8, 3), np.uint8), "VIM-202", "no pictures"),
        ([], "VIM-202", "no pictures"),
        ([[FILES[0]]], "VIM-202", "list"),
        (None, "VIM-202", "NoneType"),
        (3, "VIM-202", "int"),
        (b"a.png", "VIM-202", "bytes"),
        ([FILES[0], object()], "VIM-202", "picture 1"),
        ("absent.png", "VIM-401", "absent.png"),
        (PIL.Image.new("I;16", (8, 8)), "VIM-411", "more than 8 bits"),
        (PIL.Image.new("F", (8, 8)), "VIM-411", "more than 8 bits"),
        (PIL.Image.new("RGB", (0, 8)), "VIM-411", "0 x 8"),
    ],
)
def test_the_rest_is_refused(model: vim_deploy.Model, given: Any, code: str, said: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        model(given)
    assert caught.value.code == code
    assert said in str(caught.value)


def test_a_picture_whose_file_is_closed(model: vim_deploy.Model) -> None:
    with PIL.Image.open(FILES[0]) as picture:
        pass
    result = vim_deploy.run(model.path, [picture, pixels(3)])
    assert [image.top[0].label for image in result.images] == ["three"]
    assert [failure.file for failure in result.failures] == ["picture-0"]
    with pytest.raises(VimDeployError, match="picture-0") as caught:
        model([picture, pixels(3)])
    assert caught.value.code == "VIM-411"


def test_threads_share_a_model(model: vim_deploy.Model) -> None:
    numbers = [0, 3, 7] * 8
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda number: model(pixels(number)).images[0].top[0].index, numbers)
    assert [*results] == numbers


def test_closing(onnx: Path) -> None:
    with vim_deploy.load(onnx, threads=1) as model:
        assert model(FILES[0], top=1).images[0].top[0].index == 0
    model.close()
    with pytest.raises(VimDeployError, match="is closed") as caught:
        model(FILES[0])
    assert caught.value.code == "VIM-203"


@pytest.mark.parametrize(
    ("path", "options", "code"),
    [
        ("absent.onnx", {}, "VIM-401"),
        (None, {}, "VIM-202"),
        (b"digits.onnx", {}, "VIM-202"),
        (REPOSITORY / "tests/data/reference/vim_digits.pth", {}, "VIM-409"),
        ("", {"thread": 1}, "VIM-201"),
        ("", {"threads": -1}, "VIM-202"),
        ("", {"threads": "two"}, "VIM-202"),
        ("", {"max_batch": 0}, "VIM-202"),
        ("", {"plugin": b"x"}, "VIM-202"),
        ("", {"plugin": "x.so"}, "VIM-203"),
        ("", {"provider": "gpu"}, "VIM-202"),
        ("", {"allow_plan_code": True}, "VIM-203"),
    ],
)
def test_loading_is_refused(onnx: Path, path: Any, options: dict[str, Any], code: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        vim_deploy.load(onnx if path == "" else path, **options)
    assert caught.value.code == code


def test_a_file_given_twice_is_said(model: vim_deploy.Model) -> None:
    result = model([FILES[3], pixels(0), FILES[3]])
    assert len(result.images) == 2
    assert "1 pictures were given more than once, and are run once" in result.notes


def test_a_runner_takes_arrays(model: vim_deploy.Model) -> None:
    with pytest.raises(VimDeployError, match="takes a NumPy array") as caught:
        model.runner.run([[1.0]])  # type: ignore[arg-type]
    assert caught.value.code == "VIM-415"
