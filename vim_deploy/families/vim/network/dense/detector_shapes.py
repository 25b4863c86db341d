"""What the shapes of a whole detector's weights tell about its heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.model.keys import cannot_infer, count_of, shape_of
from vim_deploy.recipe.detector_config import CASCADE_WEIGHTS, DetectorConfig, ProposalConfig

_RPN, _ROI = "proposal_generator.rpn_head", "roi_heads"
_MASK = f"{_ROI}.mask_head"
_PARTS = ("box_head", "box_predictor", "mask_head")
_INSTEAD = (
    "give the model's configuration with --config FILE; or the part of it that is the backbone, "
    "which is then exported alone"
)


@dataclass(frozen=True)
class Finding:
    """One number of an architecture and the key that tells it."""

    key: str
    value: Any


def heads_of(tensors: Mapping[str, Tensor], statements: list[str]) -> dict[str, Any]:
    """The values of ``DetectorConfig``: from shapes, and what was published where they do not tell.

    Args:
        tensors: of a whole detector.
        statements: what was found and what was assumed is said behind them.

    Raises:
        VimDeployError: VIM-407 for heads that are none of those that are exported.
    """
    found = {name: item.value for name, item in _measured(tensors).items()}
    defaults = DetectorConfig()
    stages = {1: CASCADE_WEIGHTS[:1], len(CASCADE_WEIGHTS): CASCADE_WEIGHTS}.get(found["stages"])
    ratios = defaults.proposals.aspect_ratios
    if stages is None or found["anchors"] != len(ratios):
        raise cannot_infer(
            "the architecture cannot be inferred: the heads of the detector",
            f"{found['stages']} stages and {found['anchors']} anchors of each place; published are "
            f"1 or {len(CASCADE_WEIGHTS)} stages and {len(ratios)} anchors",
            _INSTEAD,
        )
    proposals = ProposalConfig(convs=found["proposals.convs"])
    values = encode(defaults) | {
        "num_classes": found["num_classes"],
        "stages": [list(weights) for weights in stages],
        "class_agnostic": found["boxes"] == 1,
        "proposals": encode(proposals),
        "box_head": {"convs": found["box_head.convs"], "fc_dims": list(found["box_head.fc_dims"])},
        "mask_head": found["mask_head.convs"] and {"convs": found["mask_head.convs"]},
    }
    shown = ", ".join(f"{name}={value}" for name, value in found.items())
    statements += [
        f"from the shapes of the heads: {shown}",
        f"assumed anchor_sizes={_list(proposals.anchor_sizes)}, aspect_ratios={_list(ratios)}, "
        f"pre_nms_topk={proposals.pre_nms_topk}, post_nms_topk={proposals.post_nms_topk}, "
        f"nms_thresh={proposals.nms_threshold} of proposals, canonical_box_size="
        f"{defaults.canonical_box_size:g}, box weights {values['stages']}, test_score_thresh="
        f"{defaults.score_threshold}, test_nms_thresh={defaults.nms_threshold}, "
        f"test_topk_per_image={defaults.detections}: the published detectors have these",
    ]
    return values


def require_heads(config: DetectorConfig, tensors: Mapping[str, Tensor], source: str) -> None:
    """VIM-404 when the heads of ``config``, from ``source``, are not those of the weights.

    What is missing altogether is left to the strict loading, which lists the keys.
    """
    said = {
        "num_classes": config.num_classes,
        "stages": len(config.stages),
        "boxes": 1 if config.class_agnostic else config.num_classes,
        "proposals.convs": config.proposals.convs,
        "anchors": len(config.proposals.aspect_ratios),
        "box_head.convs": config.box_head.convs,
        "box_head.fc_dims": config.box_head.fc_dims,
        "mask_head.convs": config.mask_head and config.mask_head.convs,
    }
    for name, finding in _measured(tensors).items():
        if finding.value != said[name]:
            raise VimDeployError(
                "VIM-404",
                f"{name} of the detector: {source} has {said[name]}, and the checkpoint "
                f"{finding.value}",
                why=f"the weights of {finding.key} tell",
                fix="give the configuration that the checkpoint was trained with, or none: it is "
                "then read off the checkpoint",
            )


def _measured(tensors: Mapping[str, Tensor]) -> dict[str, Finding]:
    """What shapes and names of the heads tell.

    ``boxes`` are those of one proposal: 1 or one for each class; ``anchors`` those of one place.

    Raises:
        VimDeployError: VIM-407 for heads that are none of those that are exported.
    """
    _require_known_parts(tensors)
    stages = count_of(tensors, rf"{_ROI}\.box_predictor\.(\d+)\.")
    number = ".0" if stages else ""
    scores = f"{_ROI}.box_predictor{number}.cls_score.weight"
    deltas = f"{_ROI}.box_predictor{number}.bbox_pred.weight"
    anchors, head = f"{_RPN}.objectness_logits.weight", f"{_ROI}.box_head{number}"
    fcs = range(1, _layers(tensors, f"{head}.fc") + 1)
    widths = tuple(shape_of(tensors, f"{head}.fc{layer}.weight", 2)[0] for layer in fcs)
    masks = any(key.startswith(f"{_MASK}.") for key in tensors)
    return {
        "num_classes": Finding(scores, shape_of(tensors, scores, 2)[0] - 1),
        "stages": Finding(scores, stages or 1),
        "boxes": Finding(deltas, shape_of(tensors, deltas, 2)[0] // 4),
        "proposals.convs": Finding(f"{_RPN}.conv", _layers(tensors, f"{_RPN}.conv.conv", 0) or 1),
        "anchors": Finding(anchors, shape_of(tensors, anchors, 4)[0]),
        "box_head.convs": Finding(f"{head}.conv*", _layers(tensors, f"{head}.conv")),
        "box_head.fc_dims": Finding(f"{head}.fc*", widths),
        "mask_head.convs": Finding(_MASK, _layers(tensors, f"{_MASK}.mask_fcn") if masks else None),
    }


def _layers(tensors: Mapping[str, Tensor], name: str, first: int = 1) -> int:
    """How many layers ``name1``, ``name2`` and so on have weights, without a gap."""
    count = 0
    while f"{name}{first + count}.weight" in tensors:
        count += 1
    return count


def _require_known_parts(tensors: Mapping[str, Tensor]) -> None:
    of_heads = [key.split(".") for key in tensors if key.startswith((f"{_ROI}.", "proposal_"))]
    known = {"rpn_head", *_PARTS}
    other = sorted({".".join(key[:2]) for key in of_heads if key[1] not in known})
    if other:
        raise cannot_infer(
            f"the heads of this detector cannot be exported: it has {', '.join(other[:4])}",
            "exported are an RPN and StandardROIHeads or CascadeROIHeads with box_head, "
            "box_predictor and mask_head",
            _INSTEAD,
        )


def _list(values: tuple[int | float, ...]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
