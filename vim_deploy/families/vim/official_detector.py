"""detectron2's GeneralizedRCNN in an official configuration: what is behind the feature pyramid.

Every option that changes a result is read, or has to have the value that is built here; what only
training uses is read over; an unknown one is an error. Names and defaults are those of the det
folder of hustvl/Vim (a fork of detectron2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vim_deploy.families.vim.official_values import (
    as_list,
    class_name,
    known,
    refuse,
    require_type,
    table,
)

#: The classes that are built, as their configurations name them.
MODEL = "GeneralizedRCNN"
_CASCADE, _STANDARD = "CascadeROIHeads", "StandardROIHeads"
#: What a detector's configuration has beside its backbone and how it takes pictures.
PARTS = ("proposal_generator", "roi_heads")
MODEL_TRAINING = ("type", "_target_", "vis_period", "input_format")
#: Pixels of the image in one of each level's, p2 to p6.
_STRIDES = (4, 8, 16, 32, 64)
_LEVELS = ("p2", "p3", "p4", "p5", "p6")
#: exp(dw) of detectron2 grows to at most this.
_SCALE_CLAMP = math.log(1000.0 / 16)
_TARGET = ("type", "_target_")
_LOSSES = ("smooth_l1_beta", "box_reg_loss_type", "loss_weight")
_RPN_TRAINING = (
    *_TARGET, *_LOSSES, "anchor_matcher", "batch_size_per_image", "positive_fraction",
    "anchor_boundary_thresh",
)  # fmt: skip
_ROI_TRAINING = (
    *_TARGET, "batch_size_per_image", "positive_fraction", "proposal_matcher",
    "proposal_matchers", "proposal_append_gt", "train_on_pred_boxes",
)  # fmt: skip
_PREDICTOR_TRAINING = (
    *_TARGET, *_LOSSES, "input_shape", "use_fed_loss", "fed_loss_num_classes",
    "get_fed_loss_cls_weights",
)  # fmt: skip


def read_detector(values: Mapping[str, Any], out_channels: object) -> dict[str, Any]:
    """The values of ``DetectorConfig`` that a configuration of GeneralizedRCNN has.

    Args:
        values: the whole model's keywords.
        out_channels: of its pyramid; every convolution of the heads has as many.

    Raises:
        VimDeployError: VIM-201 for an unknown keyword, VIM-408 for what cannot be exported.
    """
    require_type(values, MODEL)
    for part in PARTS:
        if values.get(part) is None:
            raise refuse(
                f"a detector without {part}", "give the whole model, or its backbone alone"
            )
    heads = table(values, "roi_heads")
    return {
        "proposals": _proposals(table(values, "proposal_generator"), out_channels),
        **_roi_heads(heads, out_channels),
    }


def _proposals(values: Mapping[str, Any], channels: object) -> dict[str, Any]:
    where = "proposal_generator"
    require_type(values, "RPN")
    known(
        values,
        (*_RPN_TRAINING, "in_features", "head", "anchor_generator", "box2box_transform",
         "pre_nms_topk", "post_nms_topk", "nms_thresh", "min_box_size"),
        where,
    )  # fmt: skip
    _only(values, "in_features", list(_LEVELS), None, where)
    _only(values, "min_box_size", 0.0, 0.0, where)
    if _weights(values, where) != [1.0, 1.0, 1.0, 1.0]:
        raise refuse(f"{where}.box2box_transform.weights", "(1, 1, 1, 1)")
    head = table(values, "head")
    require_type(head, "StandardRPNHead")
    known(head, (*_TARGET, "in_channels", "num_anchors", "box_dim", "conv_dims"), f"{where}.head")
    _only(head, "box_dim", 4, 4, f"{where}.head")
    _only(head, "in_channels", channels, channels, f"{where}.head")
    return {
        "convs": _convs(head.get("conv_dims", (-1,)), channels, f"{where}.head.conv_dims"),
        **_anchors(table(values, "anchor_generator"), head.get("num_anchors")),
        "pre_nms_topk": _at_test(values, "pre_nms_topk"),
        "post_nms_topk": _at_test(values, "post_nms_topk"),
        "nms_threshold": values.get("nms_thresh", 0.7),
    }


def _anchors(values: Mapping[str, Any], count: object) -> dict[str, Any]:
    where = "proposal_generator.anchor_generator"
    require_type(values, "DefaultAnchorGenerator")
    known(values, (*_TARGET, "sizes", "aspect_ratios", "strides", "offset"), where)
    _only(values, "strides", list(_STRIDES), None, where)
    # detectron2's own default is 0.5; the published configurations have 0.
    _only(values, "offset", 0.0, 0.5, where)
    sizes = as_list(values.get("sizes"), f"{where}.sizes")
    one_each = [as_list(size, f"{where}.sizes") for size in sizes if not _is_number(size)]
    if len(one_each) != len(_LEVELS) or any(len(size) != 1 for size in one_each):
        raise refuse(f"{where}.sizes = {sizes!r}", "one size for each of p2 to p6: [[32], ...]")
    ratios = as_list(values.get("aspect_ratios"), f"{where}.aspect_ratios")
    if len(ratios) == 1 and not _is_number(ratios[0]):
        ratios = as_list(ratios[0], f"{where}.aspect_ratios")
    if not ratios or not all(_is_number(ratio) for ratio in ratios):
        raise refuse(f"{where}.aspect_ratios = {ratios!r}", "the same for all levels: [0.5, 1, 2]")
    if count != len(ratios):
        raise refuse(
            f"proposal_generator.head.num_anchors = {count!r}", f"{len(ratios)}, as aspect_ratios"
        )
    return {"anchor_sizes": [size[0] for size in one_each], "aspect_ratios": ratios}


def _roi_heads(values: Mapping[str, Any], channels: object) -> dict[str, Any]:
    where = "roi_heads"
    kind = class_name(values.get("_target_", values.get("type", _STANDARD)))
    if kind not in (_CASCADE, _STANDARD):
        raise refuse(f"roi_heads of the kind {kind}", f"{_STANDARD} or {_CASCADE}")
    cascade = kind == _CASCADE
    boxes = ("box_heads", "box_predictors") if cascade else ("box_head", "box_predictor")
    for name in values:
        if str(name).startswith("keypoint_") and values[name] is not None:
            raise refuse(f"{where}.{name}: keypoint heads are not exported", "remove it")
    known(
        values,
        (*_ROI_TRAINING, *boxes, "num_classes", "box_in_features", "box_pooler",
         "mask_in_features", "mask_pooler", "mask_head",
         *(name for name in values if str(name).startswith("keypoint_"))),
        where,
    )  # fmt: skip
    found = [_several(values, name, cascade) for name in boxes]
    heads, predictors = found
    if len(heads) != len(predictors):
        raise refuse(
            f"{len(heads)} box_heads and {len(predictors)} box_predictors", "one of each a stage"
        )
    classes = values.get("num_classes")
    shapes = [_box_head(head, channels) for head in heads]
    if any(shape != shapes[0] for shape in shapes):
        raise refuse("box_heads that differ from stage to stage", "the same layers in all of them")
    stages = [_predictor(predictor, classes) for predictor in predictors]
    if any(stage["class_agnostic"] != stages[0]["class_agnostic"] for stage in stages):
        raise refuse("cls_agnostic_bbox_reg that differs from stage to stage", "true in all")
    # As CascadeROIHeads, whose last stage alone chooses detections.
    last = dict(stages[-1])
    del last["weights"]
    _only(values, "box_in_features", list(_LEVELS[:4]), None, where)
    canonical = _pooler(values, "box_pooler", 7)
    mask = _mask_head(values, classes, channels)
    if mask is not None and _pooler(values, "mask_pooler", 14) != canonical:
        raise refuse("poolers of two canonical_box_size", "the same in box_pooler and mask_pooler")
    return {
        "num_classes": classes,
        "stages": [stage["weights"] for stage in stages],
        **last,
        "box_head": shapes[0],
        "mask_head": mask,
        "canonical_box_size": canonical,
    }


def _several(values: Mapping[str, Any], name: str, cascade: bool) -> list[Mapping[str, Any]]:
    """The tables of all stages under ``name``."""
    if not cascade:
        return [table({name: None, **values}, name)]
    listed = as_list(values.get(name), f"roi_heads.{name}")
    if not listed:
        raise refuse(f"roi_heads.{name} is empty", "one of it for each stage")
    return [table({name: item}, name) for item in listed]


def _box_head(values: Mapping[str, Any], channels: object) -> dict[str, Any]:
    where = "box_head"
    require_type(values, "FastRCNNConvFCHead")
    known(values, (*_TARGET, "input_shape", "conv_dims", "fc_dims", "conv_norm"), where)
    convs = _convs(values.get("conv_dims", ()), channels, f"{where}.conv_dims")
    return {
        "convs": convs,
        "fc_dims": as_list(values.get("fc_dims"), f"{where}.fc_dims"),
        "norm": _norm(values, convs, where),
    }


def _predictor(values: Mapping[str, Any], classes: object) -> dict[str, Any]:
    where = "box_predictor"
    require_type(values, "FastRCNNOutputLayers")
    known(
        values,
        (*_PREDICTOR_TRAINING, "box2box_transform", "num_classes", "test_score_thresh",
         "test_nms_thresh", "test_topk_per_image", "cls_agnostic_bbox_reg", "use_sigmoid_ce"),
        where,
    )  # fmt: skip
    # Sigmoids would be other scores than the softmax of the exported heads.
    _only(values, "use_sigmoid_ce", False, False, where)
    _only(values, "num_classes", classes, None, where)
    return {
        "weights": _weights(values, where),
        "class_agnostic": values.get("cls_agnostic_bbox_reg", False),
        "score_threshold": values.get("test_score_thresh", 0.0),
        "nms_threshold": values.get("test_nms_thresh", 0.5),
        "detections": values.get("test_topk_per_image", 100),
    }


def _mask_head(
    values: Mapping[str, Any], classes: object, channels: object
) -> dict[str, Any] | None:
    where = "mask_head"
    if values.get(where) is None:
        return None
    head = table(values, where)
    require_type(head, "MaskRCNNConvUpsampleHead")
    known(
        head,
        (*_TARGET, "input_shape", "num_classes", "conv_dims", "conv_norm", "loss_weight",
         "vis_period"),
        where,
    )  # fmt: skip
    _only(head, "num_classes", classes, None, where)
    _only(values, "mask_in_features", list(_LEVELS[:4]), None, "roi_heads")
    # The last one is the transposed convolution's.
    convs = _convs(head.get("conv_dims"), channels, f"{where}.conv_dims") - 1
    if convs < 0:
        raise refuse(f"{where}.conv_dims is empty", "one width for each convolution, then deconv's")
    return {"convs": convs, "norm": _norm(head, convs, where)}


def _pooler(values: Mapping[str, Any], name: str, bins: int) -> object:
    """The canonical size of a pooler that is otherwise the one that is built."""
    if values.get(name) is None:
        raise refuse(f"roi_heads without {name}", "detectron2's ROIPooler")
    pooler = table(values, name)
    require_type(pooler, "ROIPooler")
    known(
        pooler,
        (*_TARGET, "output_size", "scales", "sampling_ratio", "pooler_type",
         "canonical_box_size", "canonical_level"),
        name,
    )  # fmt: skip
    size = pooler.get("output_size")
    if size != bins and size != [bins, bins]:
        raise refuse(f"{name}.output_size = {size!r}", f"{bins}")
    _only(pooler, "scales", [1 / stride for stride in _STRIDES[:4]], None, name)
    _only(pooler, "sampling_ratio", 0, None, name)
    # ROIAlign is the unaligned one, half a pixel off.
    _only(pooler, "pooler_type", "ROIAlignV2", None, name)
    _only(pooler, "canonical_level", 4, 4, name)
    return pooler.get("canonical_box_size", 224)


def _weights(values: Mapping[str, Any], where: str) -> list[Any]:
    if values.get("box2box_transform") is None:
        raise refuse(f"{where} without box2box_transform", "detectron2's Box2BoxTransform")
    transform = table(values, "box2box_transform")
    require_type(transform, "Box2BoxTransform")
    known(transform, (*_TARGET, "weights", "scale_clamp"), f"{where}.box2box_transform")
    clamp = transform.get("scale_clamp", _SCALE_CLAMP)
    if not _is_number(clamp) or not math.isclose(clamp, _SCALE_CLAMP, rel_tol=1e-6):
        raise refuse(f"{where}.box2box_transform.scale_clamp = {clamp!r}", "log(1000 / 16)")
    return as_list(transform.get("weights"), f"{where}.box2box_transform.weights")


def _at_test(values: Mapping[str, Any], name: str) -> object:
    """The second of the two numbers, for training and for testing."""
    both = as_list(values.get(name), f"proposal_generator.{name}")
    if len(both) != 2:
        raise refuse(f"proposal_generator.{name} = {both!r}", "[training, testing]")
    return both[1]


def _convs(dims: object, channels: object, where: str) -> int:
    """How many convolutions; each as wide as the pyramid, which is what -1 says, too."""
    listed = as_list(dims, where)
    if any(width not in (channels, -1) for width in listed):
        raise refuse(f"{where} = {listed!r}", f"{channels}, the pyramid's out_channels")
    return len(listed)


def _norm(values: Mapping[str, Any], convs: int, where: str) -> str:
    norm = values.get("conv_norm", "")
    if convs and norm != "LN":
        raise refuse(f"{where}.conv_norm = {norm!r}", "LN, as the published configurations have it")
    return "LN"


def _only(
    values: Mapping[str, Any], name: str, wanted: object, default: object, where: str
) -> None:
    """VIM-408 unless the option ``name``, or its ``default``, is the one value that is built."""
    found = values.get(name, default)
    found = list(found) if isinstance(found, tuple) else found
    if found != wanted or isinstance(found, bool) != isinstance(wanted, bool):
        shown = "is missing" if found is None else f"= {_shortened(found)}"
        raise refuse(f"{where}.{name} {shown}", f"{wanted!r}")


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
