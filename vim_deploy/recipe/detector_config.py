"""What stands behind the feature pyramid of a whole detector: proposals, regions, masks.

Names follow detectron2's configurations (LazyConfig): ``proposal_generator`` and ``roi_heads``.
Defaults are those of the published ViTDet-style configurations (hustvl/Vim,
det/projects/ViTDet/configs/COCO).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from vim_deploy.codec import Number, Size
from vim_deploy.errors import VimDeployError, nearest

#: Layers in a row; the published heads have four.
_MOST_LAYERS = 16
#: Stages of a cascade, levels of the pyramid, anchors of one place.
_MOST_STAGES, LEVELS, _MOST_ANCHORS = 8, 5, 16
#: Sides, ratios and weights beyond are a mistake.
_LARGEST = 1e6
#: Norms of the heads' convolutions.
HEAD_NORMS = ("LN",)

#: Divisors of the deltas of x, y, width and height (detectron2's Box2BoxTransform).
BoxWeights: TypeAlias = tuple[Number, Number, Number, Number]
CASCADE_WEIGHTS: tuple[BoxWeights, ...] = (
    (10.0, 10.0, 5.0, 5.0),
    (20.0, 20.0, 10.0, 10.0),
    (30.0, 30.0, 15.0, 15.0),
)


def _above_zero(values: Iterable[Number], name: str) -> None:
    for value in values:
        if not 0 < value < _LARGEST:
            raise _refuse(f"{name}: {value!r}", "numbers above zero")


def _share(value: Number, name: str) -> None:
    if not 0 <= value <= 1:
        raise _refuse(f"{name} = {value!r}", "0 to 1")


def _layers(count: int, name: str, least: int) -> None:
    if not least <= count <= _MOST_LAYERS:
        raise _refuse(f"{name}: {count}", f"{least} to {_MOST_LAYERS}")


def _norm(value: str, name: str) -> None:
    if value not in HEAD_NORMS:
        raise _refuse(f"{name} = {value!r}", nearest(value, HEAD_NORMS))


def _refuse(message: str, fix: str, why: str = "") -> VimDeployError:
    return VimDeployError("VIM-408", f"dense model: {message}", why=why, fix=fix)


@dataclass(frozen=True)
class ProposalConfig:
    """``proposal_generator``: detectron2's RPN with DefaultAnchorGenerator.

    Attributes:
        convs: 3x3 convolutions in front of its two outputs.
        anchor_sizes: side of the square anchor of each level, the finest first, in pixels.
        aspect_ratios: height by width of the anchors of each place.
        pre_nms_topk: best anchors of each level that are looked at.
        post_nms_topk: best proposals of all levels that are kept.
        nms_threshold: overlap (IoU) above which the worse of two boxes of a level goes.
    """

    convs: int = 2
    anchor_sizes: tuple[Number, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    aspect_ratios: tuple[Number, ...] = (0.5, 1.0, 2.0)
    pre_nms_topk: Size = 1000
    post_nms_topk: Size = 1000
    nms_threshold: Number = 0.7

    def __post_init__(self) -> None:
        _layers(self.convs, "proposals.convs", 1)
        if len(self.anchor_sizes) != LEVELS:
            raise _refuse(f"{len(self.anchor_sizes)} anchor_sizes", "one for each of p2 to p6")
        if not 0 < len(self.aspect_ratios) <= _MOST_ANCHORS:
            raise _refuse(f"{len(self.aspect_ratios)} aspect_ratios", "1 to 16")
        _above_zero(self.anchor_sizes, "anchor_sizes")
        _above_zero(self.aspect_ratios, "aspect_ratios")
        _share(self.nms_threshold, "proposals.nms_threshold")


@dataclass(frozen=True)
class BoxHeadConfig:
    """``box_head`` of every stage: FastRCNNConvFCHead; ``norm`` as in ``PyramidConfig``."""

    convs: int = 4
    fc_dims: tuple[Size, ...] = (1024,)
    norm: str = "LN"

    def __post_init__(self) -> None:
        _layers(self.convs, "box_head.convs", 0)
        _layers(len(self.fc_dims), "fc_dims", 0)
        _norm(self.norm, "box_head.norm")


@dataclass(frozen=True)
class MaskHeadConfig:
    """``mask_head``: MaskRCNNConvUpsampleHead, ``convs`` convolutions, then doubled."""

    convs: int = 4
    norm: str = "LN"

    def __post_init__(self) -> None:
        _layers(self.convs, "mask_head.convs", 0)
        _norm(self.norm, "mask_head.norm")


@dataclass(frozen=True)
class DetectorConfig:
    """``roi_heads``, the proposals in front of them, and how detections are chosen.

    Attributes:
        num_classes: without the background.
        stages: weights of the boxes of each stage: one stage is Mask R-CNN (arXiv 1703.06870),
            more are a cascade (arXiv 1712.00726).
        class_agnostic: whether a stage has one box for all classes rather than one for each.
        proposals, box_head, mask_head: the parts; no mask head, no masks.
        canonical_box_size: square root of the area of a box that is pooled from p4, in pixels.
        score_threshold: a detection's score is above it.
        nms_threshold: overlap (IoU) above which the worse of two boxes of a class goes.
        detections: most of them in a picture.
    """

    num_classes: Size = 80
    stages: tuple[BoxWeights, ...] = CASCADE_WEIGHTS
    class_agnostic: bool = True
    proposals: ProposalConfig = ProposalConfig()
    box_head: BoxHeadConfig = BoxHeadConfig()
    mask_head: MaskHeadConfig | None = MaskHeadConfig()
    canonical_box_size: Number = 224.0
    score_threshold: Number = 0.05
    nms_threshold: Number = 0.5
    detections: Size = 100

    def __post_init__(self) -> None:
        if not 0 < len(self.stages) <= _MOST_STAGES:
            raise _refuse(f"{len(self.stages)} stages", f"1 to {_MOST_STAGES}")
        if len(self.stages) > 1 and not self.class_agnostic:
            raise _refuse(
                "a cascade with boxes for each class",
                "cls_agnostic_bbox_reg = true",
                "the next stage takes one box from each",
            )
        for weights in self.stages:
            _above_zero(weights, "box weights")
        _above_zero((self.canonical_box_size,), "canonical_box_size")
        _share(self.score_threshold, "score_threshold")
        _share(self.nms_threshold, "nms_threshold")
