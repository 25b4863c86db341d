"""``vim-deploy run`` on detectors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest

import vim_deploy
from tests.support.detectors import described, detections_of, graph, stand_in
from vim_deploy import DetectionOptions, RunOptions, SceneOptions
from vim_deploy.artifact import metadata
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.images import fit_from, normalized
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.scene.coco import NAMES
from vim_deploy.scene.records import DetectionResult

SIZES = {"000000000139.png": (40, 90), "000000000042.png": (300, 200), "000000000007.png": (8, 200)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Stand-ins: as it is; of a fixed batch without masks; of COCO's classes; with classes that it
    has not; and such as say that they are another detector, a backbone or a classifier."""
    folder = tmp_path_factory.mktemp("detectors")
    found = {
        "detector": stand_in(folder / "detector.onnx"),
        "plain": stand_in(folder / "plain.onnx", masks=False, batch=2),
        "maps": stand_in(
            folder / "maps.onnx", info=dataclasses.replace(described(), head="features")
        ),
        "other": stand_in(folder / "other.onnx", info=described(rows=9)),
        "coco": stand_in(
            folder / "coco.onnx",
            classes=80,
            info=dataclasses.replace(described(classes=80), labels=NAMES),
        ),
        "classes": stand_in(
            folder / "classes.onnx",
            info=dataclasses.replace(described(), head="logits", dense=None),
        ),
    }
    broken = graph()
    for tensor in broken.graph.initializer:
        if tensor.name == "numbers":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.arange(5), "numbers"))
    metadata.attach(broken, described())
    found["broken"] = folder / "broken.onnx"
    onnx.save(broken, found["broken"])
    return {name: str(path) for name, path in found.items()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures with numbers in their names, in one folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, size in SIZES.items():
        pixels = random.integers(0, 256, (*size, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / name)
    return folder


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


def expected_of(model: str, path: Path) -> dict[str, np.ndarray]:
    """The outputs for one picture, run by hand, and its boxes in its own pixels."""
    info = described()
    pixels, size = fit_from(path, info.image)
    image = normalized(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255, info.image)
    found = dict(OrtRunner(Path(model), threads=1).run(image, np.array([size])))
    row = {name: values[0][: detections_of(5)] for name, values in found.items() if name != "count"}
    height, width = SIZES[path.name]
    scale = np.array([width / size[1], height / size[0]] * 2)
    return row | {"boxes": row["boxes"] * scale, "size": np.array(size)}


def test_detections_of_each_picture(capsys, models, photos):
    value = answer(capsys, models["detector"], photos, "--batch", 2)
    assert [Path(item["file"]).name for item in value["images"]] == sorted(SIZES)
    for item in value["images"]:
        path = Path(item["file"])
        expected = expected_of(models["detector"], path)
        assert (item["height"], item["width"]) == SIZES[path.name]
        assert [item["run_height"], item["run_width"]] == expected["size"].tolist()
        assert item["found"] == len(item["detections"]) == detections_of(5)
        for row, entry in enumerate(item["detections"]):
            assert entry["index"] == expected["classes"][row]
            assert entry["label"] == f"thing {entry['index']}"
            assert entry["score"] == pytest.approx(expected["scores"][row], abs=1e-6)
            np.testing.assert_allclose(entry["box"], expected["boxes"][row], atol=1e-3)
            assert entry["pixels"] > 0
    assert value["score"] == 0.05
    assert value["coco"] is None
    assert set(value["colours"]) == {"0", "1", "2"}


def test_the_table_and_what_is_left_out(capsys, models, photos):
    assert run(["run", models["detector"], str(photos), "--top", "1"]) == 0
    said = capsys.readouterr().out
    assert "0 thing 0" in said
    assert "3 more detections" in said
    assert "300 x 200 at 64 x 43" in said
    assert run(["run", models["plain"], str(photos), "--score", "0.99"]) == 0
    assert "no detections" in capsys.readouterr().out


def test_scores_are_above_what_is_asked(capsys, models, photos):
    every = answer(capsys, models["detector"], photos)
    scores = [entry["score"] for item in every["images"] for entry in item["detections"]]
    limit = sorted(scores)[len(scores) // 2]
    some = answer(capsys, models["detector"], photos, "--score", limit)
    kept = [entry["score"] for item in some["images"] for entry in item["detections"]]
    assert kept == [score for score in scores if score > limit]
    assert some["score"] == limit
    low = answer(capsys, models["detector"], photos, "--score", 0)
    assert low["images"] == every["images"]
    assert low["score"] == 0.05
    assert "0.05 or less" in low["notes"][0]


def test_arrays_in_one_row(capsys, models, photos, tmp_path):
    out = tmp_path / "det.npz"
    options = ["-o", out, "--top", 3]
    value = answer(capsys, models["detector"], photos, *options)
    assert value["output"] == str(out)
    with np.load(out) as stored:
        assert stored["image_files"].tolist() == [item["file"] for item in value["images"]]
        sizes = [[item["height"], item["width"]] for item in value["images"]]
        assert stored["image_sizes"].tolist() == sizes
        assert stored["run_sizes"].tolist() == [
            [item["run_height"], item["run_width"]] for item in value["images"]
        ]
        assert stored["offsets"].tolist() == [0, 3, 6, 9]
        assert stored["masks"].shape == (9, 28, 28)
        entries = [entry for item in value["images"] for entry in item["detections"]]
        np.testing.assert_array_equal(stored["boxes"], np.float32([e["box"] for e in entries]))
        np.testing.assert_array_equal(stored["scores"], np.float32([e["score"] for e in entries]))
        assert stored["classes"].tolist() == [entry["index"] for entry in entries]
    refused(capsys, "VIM-204", models["detector"], photos, *options)
    plain = tmp_path / "plain.npz"
    found = answer(capsys, models["plain"], photos, "-o", plain, "--score", 0.99)
    assert all(not item["detections"] for item in found["images"])
    with np.load(plain) as stored:
        assert "masks" not in stored
        assert stored["boxes"].shape == (0, 4)
        assert stored["offsets"].tolist() == [0, 0, 0, 0]


def test_overlays_have_the_pictures_size(capsys, models, photos, tmp_path):
    value = answer(capsys, models["detector"], photos, "--overlay", tmp_path / "o", "--opacity", 1)
    for item in value["images"]:
        drawn = np.asarray(PIL.Image.open(item["overlay"]))
        assert drawn.shape == (item["height"], item["width"], 3)
        best = item["detections"][0]
        colour = value["colours"][str(best["index"])]
        # The best mask is on top; names and lines hide some of it in the smallest picture.
        assert (drawn == np.array(colour)).all(-1).sum() > 0.5 * best["pixels"]
    plain = answer(capsys, models["plain"], photos, "--overlay", tmp_path / "p")
    assert all(Path(item["overlay"]).is_file() for item in plain["images"])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_results_load(capsys, models, photos, tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="pip install 'vim-deploy[coco]'")
    tool = pytest.importorskip("pycocotools.mask")
    results = tmp_path / "det.json"
    value = answer(capsys, models["detector"], photos, "--coco", results)
    assert value["coco"] == {
        "results": str(results),
        "images": str(tmp_path / "det.images.json"),
        "image_ids": "file name",
        "category_ids": "index + 1",
    }
    pictures = coco.COCO(value["coco"]["images"])
    loaded = pictures.loadRes(str(results))
    assert sorted(pictures.getImgIds()) == [7, 42, 139]
    for item in value["images"]:
        number = int(Path(item["file"]).stem)
        assert pictures.imgs[number]["file_name"] == item["file"]
        rows = loaded.loadAnns(loaded.getAnnIds(imgIds=[number]))
        for row, entry in zip(rows, item["detections"], strict=True):
            left, top, right, bottom = entry["box"]
            np.testing.assert_allclose(row["bbox"], [left, top, right - left, bottom - top])
            assert row["score"] == entry["score"]
            assert row["category_id"] == entry["index"] + 1
            mask = tool.decode(row["segmentation"])
            assert mask.shape == (item["height"], item["width"])
            assert mask.sum() == entry["pixels"]
    refused(capsys, "VIM-204", models["detector"], photos, "--coco", results)
    Path(value["coco"]["results"]).unlink()
    refused(capsys, "VIM-204", models["detector"], photos, "--coco", results)


def test_numbers_of_coco_where_names_are_cocos(capsys, models, photos, tmp_path):
    (photos / "scene.png").write_bytes((photos / "000000000042.png").read_bytes())
    value = answer(capsys, models["coco"], photos, "--coco", tmp_path / "c.json")
    assert value["coco"]["image_ids"] == "order"
    assert value["coco"]["category_ids"] == "coco"
    rows = json.loads((tmp_path / "c.json").read_text())
    assert {row["image_id"] for row in rows} == {1, 2, 3, 4}
    about = json.loads((tmp_path / "c.images.json").read_text())
    names = {entry["id"]: entry["name"] for entry in about["categories"]}
    assert (names[1], names[90]) == ("person", "toothbrush")
    # Without masks there are boxes only.
    answer(capsys, models["plain"], photos, "--coco", tmp_path / "p.json")
    assert all("segmentation" not in row for row in json.loads((tmp_path / "p.json").read_text()))
    answer(capsys, models["plain"], photos, "--coco", tmp_path / "n.json", "--score", 1)
    assert json.loads((tmp_path / "n.json").read_text()) == []


def test_a_fixed_batch_is_filled_up(models, photos):
    dynamic = vim_deploy.run(models["detector"], photos)
    fixed = vim_deploy.run(models["plain"], photos)
    for one, other in zip(dynamic.images, fixed.images, strict=True):
        for left, right in zip(one.detections, other.detections, strict=True):
            assert left.box == right.box
            assert right.pixels is None


def test_pictures_that_cannot_be_run_are_named(capsys, models, photos, tmp_path):
    (photos / "cut.png").write_bytes((photos / "000000000042.png").read_bytes()[:900])
    outputs = ["--overlay", tmp_path / "o", "-o", tmp_path / "d.npz", "--coco", tmp_path / "c.json"]
    value = answer(capsys, models["detector"], photos, *outputs, status=4)
    assert len(value["images"]) == 3
    assert [Path(item["file"]).name for item in value["failures"]] == ["cut.png"]
    assert "1 of 4" in value["error"]["message"]
    assert value["coco"]["image_ids"] == "order"


def test_garbage_leaves_nothing(capsys, models, photos, tmp_path):
    """Rows of classes 3 and 4, of which a model of three has none."""
    outputs = ["--overlay", tmp_path / "o", "-o", tmp_path / "d.npz", "--coco", tmp_path / "c.json"]
    value = answer(capsys, models["broken"], photos, *outputs, status=4)
    assert (value["images"], value["output"], value["coco"]) == ([], None, None)
    assert {item["code"] for item in value["failures"]} == {"VIM-415"}
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("model", "arguments", "code"),
    [
        ("detector", ["--mode", "whole"], "VIM-203"),
        ("detector", ["--stride", "8"], "VIM-203"),
        ("detector", ["--pad"], "VIM-203"),
        ("detector", ["--scale", "none"], "VIM-203"),
        ("detector", ["--save-labels", "out"], "VIM-203"),
        ("detector", ["--opacity", "0.3"], "VIM-203"),
        ("detector", ["--score", "1.5"], "VIM-202"),
        ("detector", ["--coco", "c.txt"], "VIM-202"),
        ("detector", ["--overlay", "in"], "VIM-203"),
        ("other", [], "VIM-415"),
        ("classes", ["--score", "0.5"], "VIM-203"),
        ("classes", ["--coco", "c.json"], "VIM-203"),
        ("classes", ["--overlay", "out"], "VIM-203"),
        ("maps", ["--score", "0", "-o", "m.npz"], "VIM-203"),
    ],
)
def test_options_that_do_not_fit(capsys, models, photos, monkeypatch, model, arguments, code):
    monkeypatch.chdir(photos.parent)
    refused(capsys, code, models[model], "in", *arguments)
    assert [path.name for path in Path().iterdir()] == ["in"]


def test_from_python(models, photos, tmp_path):
    scene = SceneOptions(overlay=tmp_path / "o", opacity=0.2)
    detection = DetectionOptions(score=0.3, coco=tmp_path / "c.json")
    options = RunOptions(scene=scene, detection=detection, top=2)
    picture = np.full((30, 50, 3), 250, np.uint8)
    result = vim_deploy.run(models["detector"], picture, options)
    assert isinstance(result, DetectionResult)
    (image,) = result.images
    assert image.file == "picture-0"
    assert len(image.detections) == 2 <= image.found
    assert Path(image.overlay).is_file()
    with vim_deploy.load(models["detector"]) as model:
        again = model(picture, top=2, detection=DetectionOptions(score=0.3))
        assert again.images[0].detections == image.detections
        # Pictures in memory have no numbers of their own.
        assert result.coco.image_ids == "order"
        assert json.loads(detection.coco.read_text())[0]["image_id"] == 1
        with pytest.raises(VimDeployError, match="VIM-204"):
            model(picture, detection=detection)
