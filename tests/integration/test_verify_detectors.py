"""Verify for detectors: files against files, stored outputs, COCO folders, what the reports say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from tests.support.detectors import stand_in
from vim_deploy.artifact import Artifact
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.parity.report import ParityReport
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.stages import verify, verify_dataset
from vim_deploy.stages.verifying import VerifyOptions
from vim_deploy.stages.verifying_dataset import DatasetOptions

SIZE, CLASSES = 64, 3
#: Height and width; on two of them the input is wider or higher than the picture.
SIZES = [(64, 64), (48, 96), (90, 30)]


def changed(source: Path, name: str, **initializers: Any) -> Path:
    """A stand-in with other constants: what is added to the first row of each."""
    model = onnx.load(source)
    for item in model.graph.initializer:
        if item.name in initializers:
            value = numpy_helper.to_array(item).copy()
            value[0] += np.asarray(initializers[item.name], value.dtype)
            item.CopyFrom(numpy_helper.from_array(value, item.name))
    path = source.with_name(name)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in(tmp_path_factory.mktemp("detector") / "det.onnx", SIZE, CLASSES)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number, (height, width) in enumerate(SIZES, 1):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:012}.png")
    return folder


def against(candidate: Path, reference: Path, photographs: Path) -> ParityReport:
    return verify(candidate, str(reference), VerifyOptions(images=photographs, batches=(1, 2)))


def test_the_same_detections_and_average_precision(detector: Path, photographs: Path) -> None:
    pytest.importorskip("pycocotools")
    report = against(detector, detector, photographs)
    report.require_passed()
    assert [result.batch for result in report.results] == [1, 2]
    found = report.results[0].comparisons[0].found
    assert found is not None
    assert (found.reference, found.matched) == (12, 12)
    assert report.average_precision is not None
    assert report.average_precision.pictures == 3
    assert report.average_precision.boxes == pytest.approx(1)
    assert report.average_precision.masks == pytest.approx(1)


def test_a_box_that_moved_and_a_class_that_changed(detector: Path, photographs: Path) -> None:
    moved = changed(detector, "moved.onnx", places=[0.01, 0, 0, 0])
    report = against(moved, detector, photographs)
    assert not report.passed
    assert report.worst.output == "boxes"
    assert report.worst.max_abs == pytest.approx(0.64, rel=1e-3)
    with pytest.raises(VimDeployError, match="'boxes'") as caught:
        report.require_passed()
    assert "boxes 0.001 px, scores 0.0001, masks 0.001" in caught.value.why
    wide = VerifyOptions(images=photographs, batches=(1,), limits={"boxes": 1.0})
    assert verify(moved, str(detector), wide).passed
    other = against(changed(detector, "other.onnx", numbers=1), detector, photographs)
    found = other.worst.found
    assert found is not None
    # One of each picture on either side.
    assert (found.matched, found.unexcused) == (9, 6)


def test_stored_detections(detector: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((2, 3, SIZE, SIZE), np.float32)
    sizes = np.array([[64, 64], [40, 64]])
    with open_runner(Artifact.open(detector), RunnerOptions()) as runner:
        outputs = dict(runner.run(images, sizes))
    np.savez(tmp_path / "stored.npz", image=images, size=sizes, **outputs)
    verify(detector, str(tmp_path / "stored.npz")).require_passed()
    # Without their sizes the pictures fill the input, and the second has other boxes.
    np.savez(tmp_path / "other.npz", image=images, **outputs)
    found = verify(detector, str(tmp_path / "other.npz")).worst
    assert not found.passed
    assert found.worst_row == 1


def test_nothing_found_is_no_agreement(detector: Path, photographs: Path) -> None:
    blind = changed(detector, "blind.onnx")
    model = onnx.load(blind)
    (filled,) = (item for item in model.graph.initializer if item.name == "filled")
    filled.CopyFrom(numpy_helper.from_array(np.zeros(5, np.bool_), "filled"))
    onnx.save(model, blind)
    report = against(blind, blind, photographs)
    assert not report.passed
    assert report.average_precision is None
    with pytest.raises(VimDeployError, match="nothing was compared") as caught:
        report.require_passed()
    assert caught.value.code == "VIM-701"
    assert "--images" in caught.value.fix


def annotations(detector: Path, count: int) -> dict[str, Any]:
    """What the stand-in finds in ``count`` pictures of ``SIZES`` in turn, in COCO's form."""
    places = next(
        numpy_helper.to_array(item)
        for item in onnx.load(detector).graph.initializer
        if item.name == "places"
    )
    images, objects = [], []
    for number in range(1, count + 1):
        height, width = SIZES[number % len(SIZES)]
        name = f"{number:012}.png"
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for row, place in enumerate(places[:4]):
            left, top, right, bottom = (
                float(side) for side in place * [width, height, width, height]
            )
            objects.append({
                "id": len(objects) + 1,
                "image_id": number,
                "category_id": row % CLASSES + 5,
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": 0,
                "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
            })  # fmt: skip
    names = [{"id": index + 5, "name": f"thing {index}"} for index in range(CLASSES)]
    other = {**objects[0], "id": 999, "category_id": 4}
    return {
        "images": images,
        "annotations": [*objects, other],
        "categories": [*names, {"id": 4, "name": "none of ours"}],
    }


@pytest.fixture(scope="module")
def coco(detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    value = annotations(detector, 12)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(value))
    (folder / "val").mkdir()
    for image in value["images"]:
        pixels = np.full((image["height"], image["width"], 3), 90, np.uint8)
        Image.fromarray(pixels).save(folder / "val" / image["file_name"])
    return folder


def test_average_precision_on_a_coco_folder(detector: Path, coco: Path) -> None:
    pytest.importorskip("pycocotools")
    report = verify_dataset(detector, str(detector), coco)
    report.require_passed()
    assert (report.images, report.objects) == (12, 48)
    assert report.reference.box.ap == pytest.approx(1)
    assert report.reference.detections == 48
    assert report.box.loss == report.box.high == 0
    assert report.classes_by == "categories have the names of the classes"
    assert report.left_out == ("annotations of other classes: 1",)
    moved = changed(detector, "lost.onnx", places=[0.4, 0.4, 0.4, 0.4])
    worse = verify_dataset(moved, str(detector), coco, DatasetOptions(limit=11))
    # One of the four of each picture is lost, of the class that has two.
    assert worse.images == 11
    assert worse.box.detectable
    assert 0.1 < worse.box.loss < 0.3
    with pytest.raises(VimDeployError) as caught:
        worse.require_passed()
    assert caught.value.code == "VIM-701"


def test_few_pictures_say_nothing_of_others(detector: Path, coco: Path) -> None:
    pytest.importorskip("pycocotools")
    report = verify_dataset(detector, str(detector), coco, DatasetOptions(limit=2))
    assert report.passed
    assert (report.box.low, report.box.high) == (-1, 1)


def test_reports_of_detections(
    detector: Path,
    photographs: Path,
    coco: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("pycocotools")
    moved = changed(detector, "page.onnx", places=[0.4, 0.4, 0.4, 0.4])
    words = ["verify", str(moved), "--against", str(detector), "--report", str(tmp_path)]
    assert run([*words, "--images", str(photographs), "--batches", "1"]) == 7
    said = capsys.readouterr().out
    assert "9 of 12 detections found, 3 more" in said
    assert "with the reference's 12 detections in 3 pictures as truth: box AP 0." in said
    assert run([*words, "--dataset", str(coco)]) == 7
    assert "loss of box AP" in capsys.readouterr().out
    for kind, pieces in {
        "parity": ("side (px of the input)", "not excused", "box AP"),
        "accuracy": ("Average precision", "annotated objects", "paired bootstrap"),
    }.items():
        for suffix in (".html", ".md"):
            text = (tmp_path / f"{kind}{suffix}").read_text()
            assert all(piece in text for piece in pieces), (kind, suffix)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"images": 3}, "no list 'images'"),
        ({"annotations": [{"image_id": 1, "category_id": 5, "bbox": [0, 0, -1, 2]}]}, "bbox"),
        ({"annotations": [{"image_id": 77, "category_id": 5}]}, "image 77"),
        ({"annotations": []}, "no object"),
        ({"segmentation": {"size": [64, 64], "counts": [4095]}}, "do not add up"),
        ({"segmentation": {"size": [64, 64], "counts": "zzzzzzzz"}}, "runs"),
        ({"segmentation": [[0, 0, 1e9, 0, 1, 1]]}, "far outside"),
        ({"segmentation": [[0, 0, 1, 1]]}, "4 numbers"),
        ({"file_name": "../../etc/passwd"}, "file_name"),
        ({"height": 1 << 20}, "pixels"),
        ({"categories": [{"id": 500, "name": "elsewhere"}]}, "--labels"),
    ],
)
def test_annotations_that_cannot_be(
    detector: Path, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    pytest.importorskip("pycocotools")
    value = annotations(detector, 3)
    for key, given in change.items():
        if key in value:
            value[key] = given
        elif key == "segmentation":
            value["annotations"][8][key] = given
        else:
            value["images"][2][key] = given
    (tmp_path / "instances_x.json").write_text(json.dumps(value))
    with pytest.raises(VimDeployError) as caught:
        verify_dataset(detector, str(detector), tmp_path)
    assert caught.value.code == "VIM-419"
    assert why in caught.value.why + caught.value.fix


def test_a_coco_folder_without_its_annotations(detector: Path, coco: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    for folder, code in ((tmp_path, "VIM-419"), (tmp_path / "nowhere", "VIM-401")):
        with pytest.raises(VimDeployError) as caught:
            verify_dataset(detector, str(detector), folder)
        assert caught.value.code == code
    # The pictures are not where the annotations are.
    (tmp_path / "instances_val.json").write_bytes(
        (coco / "annotations" / "instances_val.json").read_bytes()
    )
    with pytest.raises(VimDeployError, match="no picture") as caught:
        verify_dataset(detector, str(detector), tmp_path)
    assert caught.value.code == "VIM-419"


def test_a_detector_without_pycocotools(
    detector: Path, coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vim_deploy.parity.average_precision.is_installed", lambda: False)
    with pytest.raises(VimDeployError) as caught:
        verify_dataset(detector, str(detector), coco)
    assert caught.value.code == "VIM-301"
