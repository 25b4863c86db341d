"""Configurations of the official segmentation and detection models, as their users have them.

Understood are an mmsegmentation model (``EncoderDecoder``, or a whole config with ``model``), the
keywords of ``VisionMambaSeg`` alone, those of ``SimpleFeaturePyramid`` with a ``VisionMambaDet`` as
``net``, and a detectron2 model (``GeneralizedRCNN``, or a whole config with ``model``) around it.
What only training uses is read over; an unknown keyword is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vim_deploy.families.vim.official_detector import MODEL, MODEL_TRAINING, PARTS, read_detector
from vim_deploy.families.vim.official_values import (
    as_list,
    class_name,
    known,
    refuse,
    require_type,
    table,
    whole,
)
from vim_deploy.recipe.dense_config import LEVELS, PYRAMID_SCALES, DenseConfig, read_dense

#: Defaults of VisionMambaSeg and VisionMambaDet (seg/backbone/vim.py, det/.../backbone/vim.py).
_SEG_DEFAULTS: dict[str, Any] = {
    "in_chans": 3,
    "num_classes": 80,
    "out_indices": [3, 5, 7, 11],
    "if_fpn": True,
    "use_residual_as_feature": False,
    "last_layer_process": "none",
}
_DET_DEFAULTS: dict[str, Any] = {"in_chans": 3, "last_layer_process": "none"}
#: Keywords of either that no exported model depends on.
_TRAINING = (
    "type", "_target_", "pretrained", "use_checkpoint", "init_cfg", "out_feature", "if_cls_token",
    "use_middle_cls_token", "use_double_cls_token", "final_pool_type", "flip_img_sequences_ratio",
)  # fmt: skip
_HEAD_TRAINING = (
    "type", "dropout_ratio", "loss_decode", "sampler", "init_cfg", "ignore_index", "act_cfg",
    "conv_cfg", "in_channels", "norm_cfg", "align_corners", "input_transform", "out_channels",
    "threshold",
)  # fmt: skip
#: detectron2's norms whose parameters are those of a batch norm.
_BATCH_NORMS = ("BN", "SyncBN", "FrozenBN", "nnSyncBN")
#: Of a detector: how it takes pictures (``recipe.stored_preparation``).
_PIXELS = ("pixel_mean", "pixel_std", "input_format")
_MODEL_TRAINING = ("type", "pretrained", "data_preprocessor", "train_cfg", "init_cfg")
#: What the official files call such models, and the only top block that they use.
_TYPES = ("EncoderDecoder", "VisionMambaSeg", "SimpleFeaturePyramid", MODEL)
_TOP_BLOCK = "LastLevelMaxPool"
#: Of nn.BatchNorm2d; the exported heads have no other.
_NORM_EPS = 1e-5
#: Keywords that only a dense model has.
_DENSE_KEYWORDS = (
    "backbone", "net", "out_indices", "in_chans", "if_fpn", "out_feature",
    "use_residual_as_feature", "last_layer_process", "model",
)  # fmt: skip


@dataclass(frozen=True)
class OfficialDense:
    """An official configuration.

    Attributes:
        backbone: keywords of ``VimConfig``, without channels and d_state.
        slots: what the configuration calls ``in_chans`` and, for segmentation, ``num_classes``;
            what they mean only the weights tell (``model.dense.slots``).
        dense: everything behind the blocks.
    """

    backbone: dict[str, Any]
    slots: tuple[int, int | None]
    dense: DenseConfig


def is_dense(values: Mapping[str, Any]) -> bool:
    """Whether keywords are those of a dense model rather than of a classifier."""
    return (
        any(name in values for name in _DENSE_KEYWORDS) or class_name(values.get("type")) in _TYPES
    )


def read_official(values: Mapping[str, Any]) -> OfficialDense:
    """Read an official configuration.

    Raises:
        vim_deploy.errors.VimDeployError: VIM-201 for an unknown keyword, VIM-408 for what cannot be
            exported.
    """
    if "model" in values:
        values = table(values, "model")
    if "net" in values:
        return _detection(values)
    if "backbone" in values and _is_detector(values):
        return _whole_detector(values)
    if "backbone" not in values:
        if "out_feature" in values:
            raise refuse(
                "VisionMambaDet without its feature pyramid",
                'give {"net": {...}, "out_channels": 256, "norm": "LN", "top_block": true}',
            )
        return _segmentation(values, {})
    known(
        values, (*_MODEL_TRAINING, "backbone", "decode_head", "auxiliary_head", "test_cfg"), "model"
    )
    require_type(values, "EncoderDecoder")
    backbone = table(values, "backbone")
    parts: dict[str, Any] = {}
    if values.get("decode_head") is not None:
        parts["decode_head"] = _uper_head(table(values, "decode_head"))
    if values.get("auxiliary_head") is not None:
        parts["auxiliary_head"] = _fcn_head(table(values, "auxiliary_head"))
    if values.get("test_cfg") and parts:
        parts["test"] = _scene_test(table(values, "test_cfg"), backbone)
    return _segmentation(backbone, parts)


def _segmentation(given: Mapping[str, Any], parts: dict[str, Any]) -> OfficialDense:
    require_type(given, "VisionMambaSeg")
    values = {**_SEG_DEFAULTS, **given}
    dense = {
        "task": "segmentation",
        "out_indices": as_list(values.pop("out_indices"), "out_indices"),
        **{
            name: values.pop(name)
            for name in ("use_residual_as_feature", "last_layer_process", "if_fpn")
        },
        **parts,
    }
    slots = whole(values, "in_chans"), whole(values, "num_classes")
    for name in ("in_chans", "num_classes"):
        del values[name]
    return OfficialDense(_backbone(values), slots, read_dense(dense))


def _is_detector(values: Mapping[str, Any]) -> bool:
    named = class_name(values.get("_target_", values.get("type")))
    return named == MODEL or any(part in values for part in PARTS)


def _whole_detector(values: Mapping[str, Any]) -> OfficialDense:
    known(values, (*MODEL_TRAINING, *_PIXELS, *PARTS, "backbone"), MODEL)
    pyramid = table(values, "backbone")
    require_type(pyramid, "SimpleFeaturePyramid")
    if "net" not in pyramid:
        raise refuse("backbone without net", "a SimpleFeaturePyramid over a VisionMambaDet")
    heads = read_detector(values, pyramid.get("out_channels"))
    found = _detection(pyramid, heads)
    size, padding = found.backbone.get("img_size", 224), pyramid.get("square_pad", 0)
    if padding not in (0, size):
        raise refuse(f"backbone.square_pad = {padding!r}", f"{size!r}, the net's img_size")
    return found


def _detection(values: Mapping[str, Any], heads: Mapping[str, Any] | None = None) -> OfficialDense:
    known(
        values,
        ("type", "_target_", "net", "in_feature", "out_channels", "scale_factors", "norm",
         "square_pad", "top_block", *_PIXELS),
        "SimpleFeaturePyramid",
    )  # fmt: skip
    net = {**_DET_DEFAULTS, **table(values, "net")}
    require_type(net, "VisionMambaDet")
    norm = str(values.get("norm", "LN"))
    pyramid = {
        "out_channels": values.get("out_channels"),
        "scale_factors": as_list(values.get("scale_factors", PYRAMID_SCALES), "scale_factors"),
        "norm": "BN" if norm in _BATCH_NORMS else norm,
        "top_block": _top_block(values.get("top_block")),
    }
    depth = whole({"depth": 24, **net}, "depth")
    dense = {
        "task": "detection",
        "out_indices": [depth - 1],
        "last_layer_process": net.pop("last_layer_process"),
        "if_fpn": False,
        "pyramid": pyramid,
        "detector": heads,
    }
    channels = whole(net, "in_chans")
    del net["in_chans"]
    for unused in ("num_classes", "if_fpn"):
        net.pop(unused, None)
    return OfficialDense(_backbone(net), (channels, None), read_dense(dense))


def _top_block(value: object) -> bool:
    """Whether there is a level behind the last one; VIM-408 for another kind of it."""
    if isinstance(value, bool) or value is None:
        return bool(value)
    named = value.get("_target_", value.get("type")) if isinstance(value, Mapping) else value
    if class_name(named) != _TOP_BLOCK:
        raise refuse(f"top_block = {value!r}", f"{_TOP_BLOCK}, or null for none")
    return True


def _backbone(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of the Vim itself: no class token, no classes."""
    kept = {name: value for name, value in values.items() if name not in _TRAINING}
    return {**kept, "if_cls_token": False, "num_classes": 0, "final_pool_type": "all"}


def _uper_head(values: Mapping[str, Any]) -> dict[str, Any]:
    require_type(values, "UPerHead")
    known(values, (*_HEAD_TRAINING, "in_index", "pool_scales", "channels", "num_classes"), "UPer")
    _require_plain(values, "decode_head")
    if as_list(values.get("in_index", [0, 1, 2, 3]), "decode_head.in_index") != [0, 1, 2, 3]:
        raise refuse(f"decode_head.in_index = {values['in_index']}", "[0, 1, 2, 3]")
    return {
        "channels": values.get("channels", 512),
        "num_classes": values.get("num_classes"),
        "pool_scales": as_list(values.get("pool_scales", (1, 2, 3, 6)), "decode_head.pool_scales"),
    }


def _fcn_head(values: Mapping[str, Any]) -> dict[str, Any]:
    require_type(values, "FCNHead")
    own = ("in_index", "channels", "num_classes", "num_convs", "kernel_size", "concat_input")
    known(values, (*_HEAD_TRAINING, *own), "auxiliary_head")
    _require_plain(values, "auxiliary_head")
    if values.get("concat_input", True):
        raise refuse("auxiliary_head.concat_input", "set it to false, as the official models do")
    index = values.get("in_index", -1)
    if type(index) is int and -LEVELS <= index < 0:
        index += LEVELS
    return {
        "channels": values.get("channels"),
        "num_classes": values.get("num_classes"),
        "in_index": index,
        "num_convs": values.get("num_convs", 2),
        "kernel_size": values.get("kernel_size", 3),
    }


def _scene_test(values: Mapping[str, Any], backbone: Mapping[str, Any]) -> dict[str, Any]:
    known(values, ("mode", "crop_size", "stride"), "test_cfg")
    size = backbone.get("img_size", 224)
    whole = _pair(size)
    return {
        "mode": values.get("mode", "whole"),
        "crop": _pair(values.get("crop_size", whole)),
        "stride": _pair(values.get("stride", whole)),
    }


def _pair(value: object) -> list[Any]:
    return [value, value] if isinstance(value, int) else as_list(value, "test_cfg")


def _require_plain(values: Mapping[str, Any], where: str) -> None:
    """VIM-408 for the options of mmsegmentation's heads that are built one way only here."""
    if values.get("align_corners", False):
        raise refuse(f"{where}.align_corners", "false, as the official configurations have it")
    norm = values.get("norm_cfg") or {}
    if not isinstance(norm, Mapping) or norm.get("type") not in ("BN", "SyncBN"):
        raise refuse(f"{where}.norm_cfg = {norm!r}", "BN or SyncBN")
    if norm.get("eps", _NORM_EPS) != _NORM_EPS:
        raise refuse(f"{where}.norm_cfg.eps = {norm['eps']!r}", f"{_NORM_EPS}, the default")
    # None would mean no activation at all.
    activation = values.get("act_cfg", {"type": "ReLU"})
    if not isinstance(activation, Mapping) or activation.get("type") != "ReLU":
        raise refuse(f"{where}.act_cfg = {activation!r}", "ReLU")
    if values.get("out_channels") not in (None, values.get("num_classes")):
        raise refuse(f"{where}.out_channels = {values['out_channels']}", "one for each class")
