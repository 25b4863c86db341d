"""What training files say of pictures, in each of the forms in which they say it."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from vim_deploy.recipe.stored_preparation import (
    StoredPreparation,
    ratio_of,
    read_tables,
    tables_beside,
    tables_in,
)

PIXEL_MEAN, PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read(table: object) -> StoredPreparation:
    return read_tables([("it", table)])


def said(table: object) -> dict[str, Any]:
    """The values, numbers rounded."""
    found = dict(read(table).values)
    for name in ("mean", "std"):
        if name in found:
            found[name] = tuple(round(number, 6) for number in found[name])
    return found


def test_the_official_arguments() -> None:
    args = {"input_size": 224, "eval_crop_ratio": 1.0, "train_interpolation": "bilinear"}
    # What is said of training is not what the evaluation does.
    assert said(args) == {"crop_ratio": 1.0, "unresized": True, "image_size": (224, 224)}


def test_arguments_and_configurations_of_timm() -> None:
    args = {"crop_pct": 0.9, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3,
            "img_size": None, "input_size": [3, 256, 192]}  # fmt: skip
    expected = {"crop_ratio": 0.9, "interpolation": "bilinear", "mean": (0.5,) * 3,
                "std": (0.25,) * 3, "image_size": (256, 192)}  # fmt: skip
    assert said(args) == expected
    for name in ("pretrained_cfg", "default_cfg", "data_config"):
        assert said({"architecture": "vim", name: args}) == expected
    # What was not set, and how new weights are spread, says nothing.
    assert said({"crop_pct": None, "mean": None, "interpolation": "", "std": 0.02}) == {}
    assert any("squash" in note for note in read({"crop_mode": "squash"}).notes)


@pytest.mark.parametrize(
    ("table", "expected", "note"),
    [
        (
            {"image_mean": MEAN, "image_std": STD, "resample": 3, "crop_size": 224,
             "do_center_crop": True, "size": {"shortest_edge": 248}},
            {"crop_ratio": ratio_of(224, 248), "interpolation": "bicubic",
             "image_size": (224, 224)},
            "",
        ),
        (
            {"image_mean": MEAN, "image_std": STD, "resample": 2,
             "size": {"height": 224, "width": 224}},
            {"crop_ratio": 1.0, "interpolation": "bilinear", "image_size": (224, 224)},
            "pictures are resized whole there",
        ),
        (
            {"image_mean": PIXEL_MEAN, "image_std": PIXEL_STD, "do_rescale": False,
             "do_resize": False},
            {"crop_ratio": 1.0},
            "",
        ),
        (
            {"image_mean": MEAN, "image_std": STD, "crop_pct": 0.875,
             "size": {"shortest_edge": 224}, "resample": 9},
            {"crop_ratio": 0.875},
            "none of ours",
        ),
    ],
)  # fmt: skip
def test_image_processors(table: dict[str, Any], expected: dict[str, Any], note: str) -> None:
    assert said(table) == {"mean": MEAN, "std": STD, **expected}
    assert any(note in text for text in read(table).notes) == bool(note)


def test_image_processors_that_do_not_normalize() -> None:
    plain = {"do_normalize": False, "size": {"shortest_edge": 224}, "crop_size": 224}
    assert said(plain)["mean"] == (0.0,)
    assert said(plain)["std"] == (1.0,)
    # Half of the usual factor: values up to 0.5, as if mean and deviation were twice as large.
    half = {"image_mean": [0.25], "image_std": [0.125], "rescale_factor": 1 / 510}
    assert said(half) == {"mean": (0.5,), "std": (0.25,)}
    assert read({"do_normalize": False, "do_flip_channel_order": True}).bgr


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("form", ["mmengine", "top level", "pipeline", "img_norm_cfg"])
def test_mmsegmentation(form: str, turned: bool) -> None:
    pixels = {"mean": PIXEL_MEAN, "std": PIXEL_STD}
    step = {"type": "Normalize", **pixels, "to_rgb": turned}
    preprocessor = {"type": "SegDataPreProcessor", **pixels, "bgr_to_rgb": turned}
    table: dict[str, Any] = {
        "mmengine": {"model": {"data_preprocessor": preprocessor}},
        "top level": {"data_preprocessor": preprocessor},
        "pipeline": {"data": {"test": {"pipeline": [
            {"type": "MultiScaleFlipAug", "img_scale": (2048, 512), "transforms": [
                {"type": "Resize", "keep_ratio": True}, step]}]}}},
        "img_norm_cfg": {"img_norm_cfg": {**pixels, "to_rgb": turned}},
    }[form]  # fmt: skip
    expected = {"mean": MEAN, "std": STD, "bgr": False}
    if not turned:
        expected = {"mean": MEAN[::-1], "std": STD[::-1], "bgr": True}
    scale = {"scale": (2048, 512)} if form == "pipeline" else {}
    assert said(table) == {**expected, **scale}


def test_defaults_of_mmengine() -> None:
    # Nothing turns the channels unless it is asked to, and without a mean nothing is subtracted.
    assert said({"data_preprocessor": {"type": "SegDataPreProcessor"}}) == {
        "mean": (0.0,), "std": (round(1 / 255, 6),), "bgr": True,
    }  # fmt: skip
    padded = {"data_preprocessor": {"test_cfg": {"size_divisor": 32}}}
    assert any("pads" in note for note in read(padded).notes)


@pytest.mark.parametrize(
    ("steps", "expected", "note"),
    [
        ([{"type": "ResizeEdge", "scale": 256, "backend": "pillow", "interpolation": "bicubic"},
          {"type": "CenterCrop", "crop_size": 224}],
         {"crop_ratio": 0.875, "interpolation": "bicubic"}, ""),
        ([{"type": "Resize", "size": (256, -1), "backend": "pillow"},
          {"type": "CenterCrop", "crop_size": 224}], {"crop_ratio": 0.875}, ""),
        ([{"type": "Resize", "scale": (224, 224)}], {"crop_ratio": 1.0}, "exactly"),
        ([{"type": "Resize", "scale": (512, 2048), "keep_ratio": True}],
         {"scale": (2048, 512)}, ""),
        ([{"type": "LetterResize", "scale": (640, 640)}], {}, "padded"),
        ([{"type": "ResizeEdge", "scale": 256}, {"type": "CenterCrop", "crop_size": 224}],
         {"crop_ratio": 0.875}, "OpenCV"),
    ],
)  # fmt: skip
def test_pipelines(steps: list[Any], expected: dict[str, Any], note: str) -> None:
    for table in ({"test_pipeline": steps}, {"test_dataloader": {"dataset": {"pipeline": steps}}}):
        assert said(table) == expected
        assert any(note in text for text in read(table).notes) == bool(note)


def test_detectron2() -> None:
    pixels = {"pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD}
    rgb = {"mean": MEAN, "std": STD, "bgr": False}
    assert said({"model": {**pixels, "input_format": "RGB"}}) == rgb
    caffe = {"PIXEL_MEAN": [103.53, 116.28, 123.675], "PIXEL_STD": [1.0, 1.0, 1.0]}
    found = said({**caffe, "input_format": "BGR"})
    assert found == {"mean": MEAN, "std": (round(1 / 255, 6),) * 3, "bgr": True}
    assert any("order of the channels" in note for note in read(pixels).notes)


@pytest.mark.parametrize(
    "yaml",
    [
        "model:\n  input_format: RGB\n  pixel_mean: [123.675, 116.28, 103.53]\n"
        "  pixel_std: [58.395, 57.12, 57.375]\n  proposal: ${.x}\n",
        "MODEL:\n  PIXEL_MEAN:\n  - 123.675\n  - 116.28\n  - 103.53\n  PIXEL_STD:\n  - 58.395\n"
        "  - 57.12\n  - 57.375\nINPUT:\n  FORMAT: 'RGB'\n",
    ],
)
def test_files_beside_a_detector(yaml: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml)
    found = read_tables(tables_beside(tmp_path / "model_final.pth"))
    assert [round(number, 6) for number in found.values["mean"]] == list(MEAN)
    assert [round(number, 6) for number in found.values["std"]] == list(STD)
    assert not found.bgr
    assert found.sources["mean"] == "config.yaml beside the checkpoint"
    assert not found.notes


def test_the_file_counts_more_than_what_lies_beside_it(tmp_path: Path) -> None:
    beside = {"pretrained_cfg": {"crop_pct": 0.9, "mean": [0.1], "std": [0.2]}}
    (tmp_path / "config.json").write_text(json.dumps(beside))
    loaded = {"args": Namespace(eval_crop_ratio=1.0)}
    found = read_tables((*tables_in(loaded), *tables_beside(tmp_path / "best.pth")))
    assert found.values["crop_ratio"] == 1.0
    assert found.sources["crop_ratio"] == "the checkpoint's args"
    assert found.values["mean"] == (0.1,)
    assert found.sources["mean"] == "config.json beside the checkpoint"


@pytest.mark.parametrize("text", ["{", "[" * 1000, '{"a": NaN}', "\udcff"])
def test_a_damaged_file_beside_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    found = read_tables(tables_beside(tmp_path / "best.pth"))
    assert not found.values
    (note,) = found.notes
    assert note.startswith("config.json beside the checkpoint is not read: ")


@pytest.mark.parametrize(
    "table",
    [
        {"mean": ["x", None, []], "std": [{}, True, "1e999"]},
        {"mean": list(range(100_000)), "std": "half"},
        {"crop_pct": [1], "interpolation": {"a": 1}, "input_size": [1, "2"]},
        {"image_mean": 7, "image_std": 0, "rescale_factor": 0, "size": -1, "resample": True},
        {"size": {"height": None}, "do_center_crop": True, "crop_size": 1 << 80, "resample": -1},
        {"data_preprocessor": {"mean": {}, "std": ()}, "test_pipeline": "Resize"},
        {"test_pipeline": [[[{"type": ["Resize"], "transforms": [None]}]]]},
        {"pixel_mean": {"a": 1}, "pixel_std": "x", "input_format": []},
        {"args": {"args": {"args": {}}}, "model": {"data_preprocessor": 3}},
        None,
        7,
        [],
    ],
)
def test_nonsense_is_no_crash(table: object) -> None:
    found = read(table)
    assert all(len(found.values.get(name, ())) <= 64 for name in ("mean", "std"))


def test_numbers_that_are_none_are_no_numbers() -> None:
    assert all(math.isnan(number) for number in read({"mean": ["x", True, None]}).values["mean"])


@pytest.mark.parametrize("crop", [7, 32, 224, 227, 384])
def test_ratios_give_the_size_they_were_made_from(crop: int) -> None:
    for edge in range(crop, 2 * crop):
        assert int(crop / ratio_of(crop, edge)) == edge
