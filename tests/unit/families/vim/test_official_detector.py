"""Configurations of whole detectors: what is read, what is read over, what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.support.detector_cases import detector_case
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import read_config
from vim_deploy.families.vim.official_dense import is_dense, read_official
from vim_deploy.recipe.catalog import recipes_folder
from vim_deploy.recipe.dense_config import DenseConfig, read_dense
from vim_deploy.recipe.detector_config import DetectorConfig
from vim_deploy.recipe.load import load_recipe

GENERATOR, ROI = "proposal_generator", "roi_heads"
POOLER, HEAD = "roi_heads.box_pooler", "proposal_generator.head"
STAGE = "roi_heads.box_predictors.0"


def changed(short: str, *changes: tuple[str, object]) -> dict[str, Any]:
    """The configuration of a case with values replaced, added, or (``...``) removed."""
    result = copy.deepcopy(dict(detector_case(short).config))
    for path, value in changes:
        *tables, name = path.split(".")
        table: Any = result
        for part in tables:
            table = table[int(part)] if part.isdecimal() else table[part]
        if value is ...:
            del table[name]
        else:
            table[name] = value
    return result


def refusal(config: dict[str, Any]) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        read_official(config)
    assert caught.value.fix
    return caught.value


def test_the_cases() -> None:
    cascade, one = (read_official(dict(detector_case(short).config)) for short in ("F01", "F02"))
    found = cascade.dense.detector
    assert found is not None
    assert found.stages == DetectorConfig().stages
    assert (found.num_classes, found.class_agnostic, found.canonical_box_size) == (7, True, 60)
    assert (found.proposals.pre_nms_topk, found.proposals.post_nms_topk) == (400, 200)
    assert (found.box_head.convs, found.box_head.fc_dims) == (2, (32,))
    assert found.mask_head is not None
    assert found.mask_head.convs == 2
    found = one.dense.detector
    assert found is not None
    assert (len(found.stages), found.class_agnostic, found.num_classes) == (1, False, 10)
    assert found.proposals.anchor_sizes == (16, 32, 64, 128, 256)
    assert is_dense(dict(detector_case("F01").config))
    assert read_dense(encode(cascade.dense)) == cascade.dense


def test_what_only_training_uses_is_read_over() -> None:
    plain = read_official(changed("F01"))
    training = changed(
        "F01",
        ("vis_period", 20),
        ("proposal_generator.anchor_boundary_thresh", -1.0),
        ("proposal_generator.loss_weight", {"loss_rpn_cls": 1.0}),
        ("proposal_generator.pre_nms_topk", [9, 400]),
        ("roi_heads.train_on_pred_boxes", True),
        ("roi_heads.keypoint_head", None),
        (f"{STAGE}.smooth_l1_beta", 0.1),
        (f"{STAGE}.use_fed_loss", True),
        ("backbone.net.if_cls_token", True),
    )
    assert read_official(training) == plain


def test_defaults_of_detectron2() -> None:
    """As the classes there have them: F01's own values left out, or said."""
    left_out = changed(
        "F01", (f"{GENERATOR}.nms_thresh", ...), ("roi_heads.box_pooler.canonical_box_size", ...),
        ("roi_heads.mask_pooler.canonical_box_size", ...),
        ("roi_heads.box_predictors.2.test_score_thresh", ...),
    )  # fmt: skip
    found = read_official(left_out).dense.detector
    assert found is not None
    assert found.proposals.nms_threshold == 0.7
    assert found.canonical_box_size == 224
    # The last stage alone chooses detections.
    assert found.score_threshold == 0.0
    said = changed(
        "F01",
        ("roi_heads.box_predictors.2.test_nms_thresh", 0.6),
        ("roi_heads.box_predictors.2.test_topk_per_image", 50),
    )
    found = read_official(said).dense.detector
    assert found is not None
    assert (found.nms_threshold, found.detections) == (0.6, 50)


def test_a_detector_without_masks() -> None:
    config = changed("F02", ("roi_heads.mask_head", None), ("roi_heads.mask_pooler", ...))
    found = read_official(config).dense.detector
    assert found is not None
    assert found.mask_head is None


@pytest.mark.parametrize(
    ("short", "path", "value", "named"),
    [
        ("F01", "_target_", "detectron2.modeling.PanopticFPN", "PanopticFPN"),
        ("F01", ROI, None, "without roi_heads"),
        ("F01", f"{ROI}._target_", "detectron2.modeling.Res5ROIHeads", "Res5ROIHeads"),
        ("F01", f"{ROI}.keypoint_head", {"_target_": "x"}, "keypoint_head"),
        ("F01", f"{ROI}.keypoint_in_features", ["p2"], "keypoint"),
        ("F01", f"{ROI}.box_in_features", ["p2", "p3", "p4", "p5", "p6"], "box_in_features"),
        ("F01", f"{ROI}.box_heads", [], "box_heads is empty"),
        ("F01", f"{POOLER}.pooler_type", "ROIAlign", "pooler_type"),
        ("F01", f"{POOLER}.pooler_type", "ROIPool", "pooler_type"),
        ("F01", f"{POOLER}.pooler_type", "ROIAlignRotated", "pooler_type"),
        ("F01", f"{POOLER}.sampling_ratio", 2, "sampling_ratio"),
        ("F01", f"{POOLER}.sampling_ratio", False, "sampling_ratio"),
        ("F01", f"{POOLER}.output_size", 9, "output_size"),
        ("F01", f"{POOLER}.canonical_level", 3, "canonical_level"),
        ("F01", f"{POOLER}.canonical_box_size", 61, "two canonical_box_size"),
        ("F01", f"{POOLER}.canonical_box_size", 0, "canonical_box_size"),
        ("F01", f"{POOLER}.scales", [0.25, 0.125], "scales"),
        ("F01", POOLER, ..., "without box_pooler"),
        ("F01", f"{GENERATOR}._target_", "detectron2.modeling.RRPN", "RRPN"),
        ("F01", f"{GENERATOR}.in_features", ["p3", "p4", "p5", "p6", "p7"], "in_features"),
        ("F01", f"{GENERATOR}.min_box_size", 1.0, "min_box_size"),
        ("F01", f"{GENERATOR}.pre_nms_topk", 1000, "pre_nms_topk"),
        ("F01", f"{GENERATOR}.pre_nms_topk", [1000], "pre_nms_topk = [1000]"),
        ("F01", f"{GENERATOR}.box2box_transform.weights", [10, 10, 5, 5], "weights"),
        ("F01", f"{GENERATOR}.box2box_transform.scale_clamp", 4.0, "scale_clamp"),
        ("F01", f"{GENERATOR}.anchor_generator.offset", 0.5, "offset"),
        ("F01", f"{GENERATOR}.anchor_generator.offset", ..., "offset"),
        ("F01", f"{GENERATOR}.anchor_generator.strides", [8, 16, 32, 64, 128], "strides"),
        ("F01", f"{GENERATOR}.anchor_generator.sizes", [[32, 64]], "sizes"),
        ("F01", f"{GENERATOR}.anchor_generator.sizes", [32, 64, 128, 256, 512], "sizes"),
        ("F01", f"{GENERATOR}.anchor_generator.aspect_ratios", [[1], [2]], "aspect_ratios"),
        ("F01", f"{GENERATOR}.anchor_generator.aspect_ratios", [1.0], "num_anchors"),
        ("F01", f"{HEAD}.conv_dims", [64, 64], "conv_dims"),
        ("F01", f"{HEAD}.box_dim", 5, "box_dim"),
        ("F01", f"{ROI}.box_heads.0.conv_norm", "BN", "conv_norm"),
        ("F01", f"{ROI}.box_heads.0.conv_norm", ..., "conv_norm"),
        ("F01", f"{ROI}.box_heads.1.fc_dims", [64], "differ from stage to stage"),
        ("F01", f"{ROI}.box_heads.0.conv_dims", [32, 32], "conv_dims"),
        ("F01", f"{STAGE}.use_sigmoid_ce", True, "use_sigmoid_ce"),
        ("F01", f"{STAGE}.num_classes", 8, "num_classes"),
        ("F01", f"{STAGE}.cls_agnostic_bbox_reg", False, "cls_agnostic_bbox_reg"),
        ("F01", f"{STAGE}.box2box_transform.weights", [10, 10, 5, 0], "box weights"),
        ("F01", f"{STAGE}.box2box_transform._target_", "a.Box2BoxTransformRotated", "Rotated"),
        ("F01", f"{ROI}.mask_head._target_", "a.PointRendMaskHead", "PointRendMaskHead"),
        ("F01", f"{ROI}.mask_head.num_classes", 1, "num_classes"),
        ("F01", f"{ROI}.mask_head.conv_dims", [], "conv_dims"),
        ("F01", "backbone.square_pad", 1024, "square_pad"),
        ("F01", "backbone.top_block", None, "p6"),
        ("F01", "backbone._target_", "detectron2.modeling.FPN", "FPN"),
        ("F02", f"{ROI}.box_predictor.test_score_thresh", 1.5, "score_threshold"),
        ("F02", f"{GENERATOR}.nms_thresh", -0.1, "nms_threshold"),
    ],
)
def test_what_is_refused(short: str, path: str, value: object, named: str) -> None:
    error = refusal(changed(short, (path, value)))
    assert error.code == "VIM-408"
    assert named in error.message


def test_a_cascade_with_a_box_for_each_class() -> None:
    stages = [
        (f"roi_heads.box_predictors.{stage}.cls_agnostic_bbox_reg", False) for stage in range(3)
    ]
    error = refusal(changed("F01", *stages))
    assert error.code == "VIM-408"
    assert "cascade" in error.message


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("backbon", "backbone"),
        (f"{GENERATOR}.nms_tresh", "nms_thresh"),
        (f"{GENERATOR}.anchor_generator.offsets", "offset"),
        (f"{ROI}.box_poler", "box_pooler"),
        (f"{POOLER}.aligned", ""),
        (f"{STAGE}.test_score_tresh", "test_score_thresh"),
        (f"{ROI}.mask_head.conv_dim", "conv_dims"),
    ],
)
def test_unknown_options(path: str, near: str) -> None:
    error = refusal(changed("F01", (path, 1)))
    assert error.code == "VIM-201"
    assert path.rpartition(".")[2] in error.message
    assert near in error.fix


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"img_size": [128, 192], "if_rope": False}, "128x192"),
        ({"patch_size": 8, "stride": 8}, "patches of 8x8"),
    ],
)
def test_backbones_that_do_not_fit(keywords: dict[str, Any], named: str) -> None:
    found = read_official(dict(detector_case("F01").config))
    with pytest.raises(VimDeployError) as caught:
        read_config({**found.backbone, **keywords}).require_dense(found.dense)
    assert caught.value.code == "VIM-408"
    assert named in caught.value.message


def recipe(name: str) -> DenseConfig:
    dense = load_recipe(recipes_folder() / f"{name}.toml").dense
    assert dense is not None
    return dense


def test_recipes_have_the_published_values() -> None:
    cascade = recipe("cascade-vimdet-tiny")
    one = recipe("mask-rcnn-vimdet-base")
    lite = recipe("cascade-vimdet-tiny-lite")
    assert cascade.detector == DetectorConfig()
    assert one.detector == DetectorConfig(stages=DetectorConfig().stages[:1], class_agnostic=False)
    assert lite.detector is not None
    assert lite.detector.box_head.fc_dims == (768,)
    assert lite.pyramid is not None
    assert lite.pyramid.out_channels == 192
