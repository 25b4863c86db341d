"""``vim-deploy run`` on segmentation models and backbones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import vim_deploy
from tests.support.reference import dense_case
from tests.support.scenes import export_e01, opened_e01, scene_logits
from vim_deploy import RunOptions, SceneOptions
from vim_deploy.cli.main import run
from vim_deploy.images import picture_from
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.scene.resize import resized_maps, resized_pixels
from vim_deploy.stages.export_options import ExportOptions


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """E01 with each head, D07 (a backbone of five channels), and a classifier."""
    folder = tmp_path_factory.mktemp("scenes")
    found = {
        head: export_e01(folder, head, head=head, preprocess=preprocess)
        for head, preprocess in (
            ("logits", "none"),
            ("upsampled", "uint8"),
            ("labels", "normalize"),
            ("features", "none"),
        )
    }
    unchecked = ExportOptions(check=False)
    channels = ModelRequest(str(dense_case("D07").checkpoint))
    found["channels"] = vim_deploy.export(channels, folder / "d07.onnx", unchecked).path
    found["classes"] = vim_deploy.export("vim-digits", folder / "digits.onnx", unchecked).path
    return {name: str(path) for name, path in found.items()}


def picture(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """A smooth picture of that size as a PNG file."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(resized_pixels(coarse, (height, width))).save(path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return picture(tmp_path / "in" / "photo.png", 100, 120)


def answer(capsys: Any, *arguments: object, status: int = 0) -> dict[str, Any]:
    """The one JSON object that a command prints."""
    capsys.readouterr()
    assert run(["run", *map(str, arguments), "--json"]) == status
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def refused(capsys: Any, code: str, *arguments: object) -> str:
    """What a command says that fails with ``code``."""
    capsys.readouterr()
    assert run(["run", *map(str, arguments)]) == int(code[4:-2])
    said: str = capsys.readouterr().err
    assert code in said
    return said


def test_classes_and_areas(capsys, models, photo):
    value = answer(capsys, models["logits"], photo, "--stride", "43")
    assert value["scene"] == {
        "mode": "slide",
        "window": [64, 64],
        "stride": [43, 43],
        "scale": None,
        "pad": False,
    }
    (image,) = value["images"]
    assert (image["height"], image["width"], image["windows"]) == (100, 120, 2 * 3)
    kind, settings = opened_e01(Path(models["logits"]))
    runner = OrtRunner(Path(models["logits"]), threads=1)
    logits = scene_logits(runner, picture_from(photo, 3), settings, kind, 8)
    indices, counts = np.unique(logits.argmax(0), return_counts=True)
    expected = sorted(zip(indices, counts, strict=True), key=lambda pair: -pair[1])
    assert len(expected) > 1
    assert [(area["index"], area["pixels"]) for area in image["areas"]] == expected
    assert sum(area["share"] for area in image["areas"]) == pytest.approx(1)
    assert image["areas"][0]["label"] == f"class {expected[0][0]}"
    assert set(value["colours"]) == {str(index) for index in indices}
    assert run(["run", models["logits"], str(photo), "--top", "1"]) == 0
    said = capsys.readouterr().out
    assert f"class {expected[0][0]}" in said
    assert f"{len(expected) - 1} more class" in said


def test_heads_and_preprocessing_agree(models, photo, tmp_path):
    """Two heads, two ways of preparing pictures, three batches: the same labels."""
    found = []
    for name, batch in (("logits", 1), ("logits", 4), ("upsampled", None)):
        out = tmp_path / f"{name}{batch}.npz"
        vim_deploy.run(Path(models[name]), photo, RunOptions(batch=batch, output=out))
        with np.load(out) as stored:
            found.append(stored["labels_0"])
    np.testing.assert_array_equal(found[0], found[1])
    # Rounding may decide a pixel where two classes are as likely.
    assert (found[0] == found[2]).mean() > 0.999


def test_whole_pictures(capsys, models, photo, tmp_path):
    options = ["--mode", "whole", "-o", tmp_path / "o.npz"]
    value = answer(capsys, models["logits"], photo, *options)
    assert (value["images"][0]["windows"], value["images"][0]["run_height"]) == (1, 64)
    kind, settings = opened_e01(Path(models["logits"]), mode="whole")
    runner = OrtRunner(Path(models["logits"]), threads=1)
    logits = scene_logits(runner, picture_from(photo, 3), settings, kind)
    expected = resized_maps(logits.transpose(1, 2, 0), (100, 120)).argmax(-1)
    with np.load(tmp_path / "o.npz") as stored:
        np.testing.assert_array_equal(stored["labels_0"], expected)
    labels = answer(capsys, models["labels"], photo, "--mode", "whole")
    assert "borders are coarser" in labels["notes"][0]


def test_labels_head_and_windows(capsys, models, photo, tmp_path):
    said = refused(capsys, "VIM-415", models["labels"], photo)
    assert "6 windows" in said
    assert "--head logits" in said
    small = picture(tmp_path / "small.png", 64, 64)
    one = answer(capsys, models["labels"], small)["images"][0]["areas"]
    assert one == answer(capsys, models["logits"], small)["images"][0]["areas"]


def test_scale_keeps_the_shape(capsys, models, photo):
    image = answer(capsys, models["logits"], photo, "--scale", "400,64")["images"][0]
    assert (image["run_height"], image["run_width"]) == (64, 77)
    assert sum(area["pixels"] for area in image["areas"]) == 100 * 120
    assert run(["run", models["logits"], str(photo), "--scale", "400"]) == 2


def test_turned_photographs_are_run_upright(capsys, models, tmp_path):
    upright = picture(tmp_path / "upright.png", 90, 70)
    turned = tmp_path / "turned.png"
    with PIL.Image.open(upright) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        image.transpose(PIL.Image.Transpose.ROTATE_90).save(turned, exif=exif)
    first, second = answer(capsys, models["logits"], upright, turned)["images"]
    assert (second["height"], second["width"]) == (90, 70)
    assert first["areas"] == second["areas"]


def test_overlays_and_label_pictures(capsys, models, photo, tmp_path):
    out = tmp_path / "out"
    options = ["--overlay", out, "--save-labels", out, "--opacity", "1", "-o", tmp_path / "o.npz"]
    value = answer(capsys, models["logits"], photo, *options)
    (image,) = value["images"]
    assert Path(image["overlay"]) == out / "photo_overlay.png"
    assert Path(image["labels"]) == out / "photo_labels.png"
    with np.load(tmp_path / "o.npz") as stored:
        assert stored["image_files"].tolist() == [str(photo)]
        labels = stored["labels_0"]
    assert labels.shape == (100, 120)
    with PIL.Image.open(image["labels"]) as plain:
        np.testing.assert_array_equal(np.asarray(plain), labels)
    colours = np.zeros((7, 3), np.uint8)
    for index, colour in value["colours"].items():
        colours[int(index)] = colour
    with PIL.Image.open(image["overlay"]) as drawn:
        np.testing.assert_array_equal(np.asarray(drawn)[:100, :120], colours[labels])
    for option in (options[:2], options[2:4], options[-2:]):
        refused(capsys, "VIM-204", models["logits"], photo, *option)
    assert run(["run", models["logits"], str(photo), *map(str, options), "--force"]) == 0
    assert "photo_overlay.png" in capsys.readouterr().err


def test_pictures_of_one_name_do_not_replace_each_other(capsys, models, tmp_path):
    folder = tmp_path / "in"
    picture(folder / "a" / "x.png", 64, 80, seed=1)
    picture(folder / "b" / "x.png", 70, 64, seed=2)
    options = ["--overlay", folder / "out", "--save-labels", tmp_path / "labels"]
    value = answer(capsys, models["logits"], folder, *options)
    made = [(Path(i["overlay"]).name, Path(i["labels"]).name) for i in value["images"]]
    assert made == [
        ("a__x_overlay.png", "a__x_labels.png"),
        ("b__x_overlay.png", "b__x_labels.png"),
    ]
    # What an earlier run made is no picture of this one.
    again = answer(capsys, models["logits"], folder, *options, "--force")
    assert len(again["images"]) == 2
    assert "2 pictures in the folders of the outputs" in again["notes"][-1]


def test_pictures_that_cannot_be_run_are_named_and_the_others_run(capsys, models, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    good = picture(folder / "good.png", 70, 66)
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes(good.read_bytes()[:200])
    picture(folder / "narrow.png", 200, 50)
    picture(folder / "dot.png", 9, 70)
    options = ["--overlay", out, "-o", tmp_path / "o.npz"]
    value = answer(capsys, models["logits"], folder, *options, status=4)
    assert [Path(item["file"]).name for item in value["images"]] == ["good.png"]
    codes = {Path(item["file"]).name: item["code"] for item in value["failures"]}
    assert codes == {
        "empty.png": "VIM-411",
        "cut.png": "VIM-411",
        "narrow.png": "VIM-429",
        "dot.png": "VIM-429",
    }
    assert value["error"]["code"] == "VIM-411"
    assert "4 of 5" in value["error"]["message"]
    assert [path.name for path in out.iterdir()] == ["good_overlay.png"]
    with np.load(tmp_path / "o.npz") as stored:
        assert stored.files == ["labels_0", "image_files"]


def test_windows_larger_than_the_picture(capsys, models, tmp_path):
    small = picture(tmp_path / "small.png", 50, 90)
    said = refused(capsys, "VIM-429", models["logits"], small)
    assert "64 x 64" in said
    assert "50 x 90" in said
    for fix in (["--pad"], ["--mode", "whole"], ["--scale", "200,64"]):
        assert fix[0] in said
        (image,) = answer(capsys, models["logits"], small, *fix)["images"]
        assert sum(area["pixels"] for area in image["areas"]) == 50 * 90


def test_only_unusable_pictures_leave_nothing(capsys, models, tmp_path):
    dot = picture(tmp_path / "dot.png", 5, 5)
    out = tmp_path / "out"
    options = ["--overlay", out, "-o", tmp_path / "o.npz"]
    value = answer(capsys, models["logits"], dot, *options, status=4)
    assert (value["images"], value["output"]) == ([], None)
    assert [path.name for path in tmp_path.iterdir()] == ["dot.png"]


@pytest.mark.parametrize(
    ("model", "arguments", "code"),
    [
        ("classes", ["--overlay", "out"], "VIM-203"),
        ("classes", ["--mode", "whole"], "VIM-203"),
        ("classes", ["--pad"], "VIM-203"),
        ("classes", ["--scale", "none"], "VIM-203"),
        ("classes", ["--stride", "8"], "VIM-203"),
        ("classes", ["--opacity", "0"], "VIM-203"),
        ("classes", ["--save-labels", "out"], "VIM-203"),
        ("features", ["--mode", "slide", "-o", "o.npz"], "VIM-203"),
        ("logits", ["--opacity", "0.3"], "VIM-203"),
        ("logits", ["--mode", "whole", "--stride", "8"], "VIM-203"),
        ("logits", ["--mode", "whole", "--pad"], "VIM-203"),
        ("logits", ["--mode", "whole", "--scale", "none"], "VIM-203"),
        ("logits", ["--stride", "65"], "VIM-202"),
        ("logits", ["--top", "8"], "VIM-202"),
        ("logits", ["--overlay", "in"], "VIM-203"),
        ("logits", ["-o", "o.png"], "VIM-202"),
        ("channels", ["-o", "o.npz"], "VIM-415"),
    ],
)
def test_options_that_do_not_fit(capsys, models, photo, monkeypatch, model, arguments, code):
    monkeypatch.chdir(photo.parents[1])
    refused(capsys, code, models[model], "in", *arguments)
    assert [path.name for path in Path().iterdir()] == ["in"]


def test_feature_maps_of_whole_pictures(capsys, models, photo, tmp_path):
    said = refused(capsys, "VIM-203", models["features"], photo)
    assert "-o FILE.npz" in said
    second = picture(tmp_path / "in" / "second.png", 30, 200, seed=3)
    out = tmp_path / "f.npz"
    answer(capsys, models["features"], photo, second, "-o", out)
    with np.load(out) as stored:
        assert stored["feature_0"].shape == (2, 48, 16, 16)
        assert stored["feature_3"].shape == (2, 48, 2, 2)
        assert stored["image_files"].tolist() == [str(photo), str(second)]


def test_from_python(models, photo, tmp_path):
    scene = SceneOptions(mode="slide", stride=(64, 64), overlay=tmp_path / "o", opacity=0.2)
    result = vim_deploy.run(Path(models["logits"]), [photo], RunOptions(scene=scene, top=2))
    (image,) = result.images
    assert image.windows == 2 * 2
    assert len(image.areas) == 2 <= image.classes
    assert Path(image.overlay).is_file()
    result.require_complete()
