"""Segmentation networks and detectors picture by picture: what changes, where, and the verdicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest
from onnx import numpy_helper

import vim_deploy
from tests.support import detectors
from tests.support.engines import EXPORT
from tests.support.models import tiny_config
from tests.support.scenes import ModelRunner, random_model
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.codec import encode
from vim_deploy.parity.agreement import OpenSide, Picture
from vim_deploy.parity.detection_agreement import DetectionAgreement
from vim_deploy.parity.pixel_agreement import PixelAgreement, compare_label_maps
from vim_deploy.recipe.dense_config import read_dense
from vim_deploy.scene.thumbnails import Thumbnails
from vim_deploy.specs import ImagePreparation

pytest.importorskip("onnxruntime")

IMAGE = ImagePreparation(16, 16)
SIZES = [(30, 20), (16, 16), (25, 40)]


def described() -> ExportInfo:
    dense = read_dense(
        {
            "task": "segmentation",
            "out_indices": [0, 1, 2, 3],
            "decode_head": {"channels": 8, "num_classes": 5},
            "test": {"mode": "slide", "crop": [16, 16], "stride": [11, 11]},
        }
    )
    return dataclasses.replace(
        EXPORT,
        model_config=tiny_config(),
        image=IMAGE,
        labels=("sky", "tree", "road"),
        dense=dense,
    )


def pictures(folder: Path) -> list[Picture]:
    found = []
    for number, size in enumerate(SIZES):
        coarse = np.random.default_rng(number).integers(0, 200, (4, 5, 3), dtype=np.uint8)
        path = folder / f"{number}.png"
        PIL.Image.fromarray(coarse).resize(size[::-1], PIL.Image.Resampling.BICUBIC).save(path)
        found.append(Picture(path.name, path))
    return found


def maps(
    folder: Path, change: Any, precision: str = "fp32", small: Thumbnails | None = None
) -> PixelAgreement:
    model = random_model(5)
    sides = [
        OpenSide(ModelRunner(function, IMAGE), described())
        for function in (model, lambda image: change(model(image)))
    ]
    found, unread = compare_label_maps(
        (sides[0], sides[1]), pictures(folder), 2, precision, small=small
    )
    assert unread == ()
    return found


def test_the_same_maps(tmp_path: Path) -> None:
    found = maps(tmp_path, lambda logits: logits)
    assert (found.images, found.pixels_changed, found.mean_iou) == (3, 0, 1.0)
    assert found.pixels == sum(height * width for height, width in SIZES)
    assert found.quality(0.02).verdict == "same"
    assert found.changed == ()


def test_pixels_that_change(tmp_path: Path) -> None:
    def swapped(logits: np.ndarray) -> np.ndarray:
        """Classes 0 and 4 change places."""
        return logits[:, [4, 1, 2, 3, 0]]

    small = Thumbnails()
    found = maps(tmp_path, swapped, small=small)
    both = {item.index: item for item in found.classes}
    assert both[0].a == both[4].b
    assert both[0].both == 0
    changed = sum(item.a - item.both for item in found.classes)
    assert found.pixels_changed == changed > 0
    assert found.disagreement == changed / found.pixels
    assert found.quality(0.02).verdict == "different"
    assert list(small.uris) == list(found.changed)
    assert found.classes[0].label == "sky"
    assert found.mean_iou is not None
    assert found.mean_iou < 1
    value = encode(found)
    assert value["pictures"][0]["pixels"] == found.pictures[0].pixels
    assert value["classes"][0]["iou"] == 0


@pytest.mark.parametrize(("precision", "verdict"), [("fp32", "different"), ("bf16", "as good")])
def test_rounding_may_change_some(tmp_path: Path, precision: str, verdict: str) -> None:
    noise = np.random.default_rng(0).standard_normal((1, 5, 4, 4)).astype(np.float32)
    found = maps(tmp_path, lambda logits: logits + 0.05 * noise, precision)
    assert 0 < found.disagreement < 0.16
    assert found.quality(0.02).verdict == verdict


def test_maps_of_no_numbers(tmp_path: Path) -> None:
    found = maps(tmp_path, lambda logits: np.full_like(logits, np.nan))
    assert (found.no_answer_a, found.no_answer_b, found.pixels) == (0, 3, 0)
    assert (found.disagreement, found.mean_iou) == (1.0, None)
    assert found.pictures[0].no_answer.startswith("B: ")
    assert found.quality(0.9).verdict == "no numbers"


def test_pictures_of_a_segmentation_that_cannot_be_read(tmp_path: Path) -> None:
    side = OpenSide(ModelRunner(random_model(5), IMAGE), described())
    (tmp_path / "bad.png").write_bytes(b"no picture")
    bad = Picture("bad.png", tmp_path / "bad.png")
    found, unread = compare_label_maps((side, side), [bad], 2, "fp32")
    assert (found.images, [item.file for item in unread]) == (0, ["bad.png"])


def detected(folder: Path, name: str = "", change: Any = None, **options: Any) -> Any:
    """Two stand-ins on pictures; ``change`` is done to the constant ``name`` of the second."""
    (folder / "set").mkdir()
    pictures(folder / "set")
    first = detectors.stand_in(folder / "a.onnx")
    second = detectors.stand_in(folder / "b.onnx")
    model = onnx.load(second)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            changed = change(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(changed, name))
    onnx.save(model, second)
    chosen = vim_deploy.CompareOptions(time=False, **options)
    return vim_deploy.compare(first, second, folder / "set", chosen)


def test_the_same_detections(tmp_path: Path) -> None:
    report = detected(tmp_path)
    found = report.found
    assert found.detections_a == found.detections_b == found.matched == 3 * 4
    assert (found.box, found.score, found.mask, found.changed) == (0, 0, 0, ())
    assert report.advice.rule == "either"
    assert report.found.quality(0.02).verdict == "same"
    assert encode(report)["found"]["kind"] == "detections"


def test_detections_of_one_side_alone(tmp_path: Path) -> None:
    def one_more(filled: np.ndarray) -> np.ndarray:
        filled[-1] = True
        return filled

    limits = vim_deploy.CompareLimits(max_disagreement=0.1)
    report = detected(tmp_path, "filled", one_more, thumbnails=True, limits=limits)
    found = report.found
    assert (found.missing, found.extra, found.matched) == (0, 3, 12)
    assert found.disagreement == 3 / 15
    assert report.advice.rule == "look"
    assert set(report.thumbnails) == set(found.changed) == {"0.png", "1.png", "2.png"}
    with pytest.raises(vim_deploy.VimDeployError, match="VIM-701"):
        report.require_passed()


def test_boxes_that_moved(tmp_path: Path) -> None:
    def moved(places: np.ndarray) -> np.ndarray:
        return places + np.float32(0.01)

    report = detected(tmp_path, "places", moved, thumbnails=True)
    found = report.found
    assert found.matched == 12
    assert found.box == pytest.approx(0.64, rel=0.05)
    quality = found.quality(0.02)
    assert quality.verdict == "different"
    assert quality.said.startswith("boxes, scores or masks differ by more than rounding explains")
    assert set(report.thumbnails) == set(found.changed) == {"0.png", "1.png", "2.png"}
    assert found.pictures[0].worst == pytest.approx(found.pictures[0].box / found.limits.boxes)


def test_detectors_that_find_nothing_say_nothing(tmp_path: Path) -> None:
    none = dataclasses.replace(detected(tmp_path).found, pictures=())
    assert isinstance(none, DetectionAgreement)
    assert none.quality(0.02).verdict == "too few"
    assert none.disagreement == 0


def test_detections_of_no_numbers(tmp_path: Path) -> None:
    report = detected(tmp_path, "falling", lambda scores: scores * np.float32("nan"))
    assert report.found.no_answer_b == 3
    assert report.found.disagreement == 1
    assert report.advice.rule == "keep A"
    assert report.found.pictures[0].no_answer.startswith("B: ")
