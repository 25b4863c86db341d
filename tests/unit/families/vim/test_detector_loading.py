"""Checkpoints of whole detectors: read off their shapes, described, or refused by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.detector_cases import detector_case
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.network.dense.detector import DetectionBackbone
from vim_deploy.families.vim.network.dense.detector_heads import Detector
from vim_deploy.model.describe import describe_checkpoint
from vim_deploy.model.load import LoadedModel, load_model
from vim_deploy.recipe.detector_config import DetectorConfig
from vim_deploy.recipe.schema import ModelRequest

CLASSES = "roi_heads.box_predictor"


def loaded(path: Path, config: dict[str, Any] | None = None) -> LoadedModel:
    return load_model(ModelRequest(str(path), config=config))


def refusal(path: Path, config: dict[str, Any] | None = None) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        loaded(path, config)
    assert caught.value.fix
    return caught.value


def rewritten(folder: Path, short: str, **changes: torch.Tensor | None) -> Path:
    """The checkpoint of a case with tensors replaced, added, or (None) removed."""
    state = torch.load(detector_case(short).checkpoint, weights_only=True)["model"]
    for key, value in changes.items():
        if value is None:
            del state[key]
        else:
            state[key] = value
    path = folder / "changed.pth"
    torch.save({"model": state, "iteration": 1}, path)
    return path


@pytest.mark.parametrize("short", ["F01", "F02"])
def test_shapes_tell_the_heads_and_the_rest_is_said(short: str) -> None:
    case = detector_case(short)
    found, asked = loaded(case.checkpoint), loaded(case.checkpoint, dict(case.config))
    assert isinstance(found.module, Detector)
    heads, described = found.module.dense.detector, asked.module.dense.detector  # type: ignore[union-attr]
    assert heads is not None
    assert described is not None
    for name in ("num_classes", "stages", "class_agnostic", "box_head", "mask_head"):
        assert getattr(heads, name) == getattr(described, name)
    assert heads.proposals == DetectorConfig().proposals
    notes = " ".join(map(str, found.notes))
    for assumed in ("anchor_sizes=[32, 64,", "canonical_box_size=224", "test_score_thresh=0.05"):
        assert assumed in notes
    assert not any("assumed" in str(note) for note in asked.notes)
    assert asked.image.mean == pytest.approx((0.485, 0.456, 0.406))


def test_described_by_inspect() -> None:
    found = describe_checkpoint(detector_case("F01").checkpoint)
    assert found["holds"] == "detector"
    assert found["dense"]["detector"]["num_classes"] == 7


def test_its_backbone_alone() -> None:
    case = detector_case("F02")
    found = loaded(case.checkpoint, dict(case.config["backbone"]))
    assert isinstance(found.module, DetectionBackbone)
    assert any("behind the backbone left out" in str(note) for note in found.notes)


def test_a_mask_head_that_is_not_there(tmp_path: Path) -> None:
    keys = torch.load(detector_case("F02").checkpoint, weights_only=True)["model"]
    masks = {key: None for key in keys if "mask_head" in key}
    path = rewritten(tmp_path, "F02", **masks)
    found = loaded(path)
    assert isinstance(found.module, Detector)
    image, size = torch.zeros(1, 3, 192, 192), torch.tensor([[134.0, 192.0]])
    with torch.inference_mode():
        assert found.module.detections(image, size)[3] is None
    error = refusal(path, dict(detector_case("F02").config))
    assert (error.code, "mask_head.convs" in error.message) == ("VIM-404", True)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("num_classes", 11, "num_classes of the detector: --config has 11, and the checkpoint 10"),
        ("box_head.conv_dims", [16, 16], "box_head.convs"),
        ("box_head.fc_dims", [64], "box_head.fc_dims"),
        ("box_predictor.cls_agnostic_bbox_reg", True, "boxes of the detector"),
        ("mask_head.conv_dims", [16, 16], "mask_head.convs"),
    ],
)
def test_heads_that_are_not_those_described(path: str, value: Any, named: str) -> None:
    case = detector_case("F02")
    config: dict[str, Any] = copy.deepcopy(dict(case.config))
    heads = config["roi_heads"]
    if path == "num_classes":
        for part in (heads, heads["box_predictor"], heads["mask_head"]):
            part[path] = value
    else:
        table, _, name = path.partition(".")
        heads[table][name] = value
    error = refusal(case.checkpoint, config)
    assert error.code == "VIM-404"
    assert named in error.message
    assert "roi_heads." in error.why


def test_another_detector_than_described() -> None:
    error = refusal(detector_case("F01").checkpoint, dict(detector_case("F02").config))
    assert error.code == "VIM-404"


@pytest.mark.parametrize(
    ("key", "shape", "code", "named"),
    [
        ("roi_heads.keypoint_head.conv1.weight", (1,), "VIM-407", "roi_heads.keypoint_head"),
        ("roi_heads.res5.0.weight", (1,), "VIM-407", "roi_heads.res5"),
        (f"{CLASSES}.0.cls_score.weight", (2,), "VIM-407", "cls_score.weight has shape [2]"),
        (f"{CLASSES}.3.cls_score.weight", (2, 2), "VIM-407", "4 stages"),
        ("proposal_generator.rpn_head.objectness_logits.weight", (9, 16, 1, 1), "VIM-407",
         "9 anchors"),
        ("roi_heads.box_head.2.fc1.bias", (3,), "VIM-404", "roi_heads.box_head.2.fc1.bias"),
        ("roi_heads.box_head.0.conv1.bias", (16,), "VIM-404", "unexpected roi_heads.box_head.0"),
    ],
)  # fmt: skip
def test_heads_of_another_kind(
    tmp_path: Path, key: str, shape: tuple[int, ...], code: str, named: str
) -> None:
    error = refusal(rewritten(tmp_path, "F01", **{key: torch.ones(shape)}))
    assert error.code == code
    assert named in error.message + error.why


def test_a_weight_that_is_missing(tmp_path: Path) -> None:
    error = refusal(rewritten(tmp_path, "F01", **{"roi_heads.mask_head.deconv.bias": None}))
    assert error.code == "VIM-404"
    assert "missing roi_heads.mask_head.deconv.bias" in error.why
