"""What stands behind the feature pyramid of a whole detector: proposals, regions, masks.

Names follow detectron2's configurations (LazyConfig): ``proposal_generator`` and ``roi_heads``.
Defaults are those of the published ViTDet-style configurations (hustvl/Vim,
det/projects/ViTDet/configs/COCO).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from vim_deploy.codec import Number, Size

#: Divisors of the deltas of x, y, width and height (detectron2's Box2BoxTransform).
BoxWeights: TypeAlias = tuple[Number, Number, Number, Number]
CASCADE_WEIGHTS: tuple[BoxWeights, ...] = (
    (10.0, 10.0, 5.0, 5.0),
    (20.0, 20.0, 10.0, 10.0),
    (30.0, 30.0, 15.0, 15.0),
)


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

    convs: Size = 2
    anchor_sizes: tuple[Number, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    aspect_ratios: tuple[Number, ...] = (0.5, 1.0, 2.0)
    pre_nms_topk: Size = 1000
    post_nms_topk: Size = 1000
    nms_threshold: Number = 0.7


@dataclass(frozen=True)
class BoxHeadConfig:
    """``box_head`` of every stage: FastRCNNConvFCHead; ``norm`` as in ``PyramidConfig``."""

    convs: int = 4
    fc_dims: tuple[Size, ...] = (1024,)
    norm: str = "LN"


@dataclass(frozen=True)
class MaskHeadConfig:
    """``mask_head``: MaskRCNNConvUpsampleHead, ``convs`` convolutions, then doubled."""

    convs: int = 4
    norm: str = "LN"


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
