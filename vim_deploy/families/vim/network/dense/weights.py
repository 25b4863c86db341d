"""The weights of dense checkpoints: which kind they are, and the ones that are exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

#: ``segmentor``: backbone and heads of mmsegmentation; ``backbone``: VisionMambaSeg alone;
#: ``detector``: VisionMambaDet with its pyramid; ``rcnn``: detectron2's detector around it.
Kind = Literal["segmentor", "backbone", "detector", "rcnn"]

#: Counts of training steps: no output depends on them.
_COUNTER = "num_batches_tracked"
_BACKBONE = "backbone."
#: Keys of a whole detector behind its backbone begin with these.
_BEHIND = ("proposal_generator", "roi_heads")
#: What detectron2 stores of a detector and computes anew: no weights.
_PIXELS = ("pixel_mean", "pixel_std")
#: How messages call each kind; None stands for keys of a Vim alone, without feature scales.
KIND_NAMES: dict[Kind | None, str] = {
    "segmentor": "a whole segmentation network",
    "backbone": "a segmentation backbone alone",
    "detector": "a detection backbone with its pyramid",
    "rcnn": "a whole detector",
    None: "a bare Vim without feature scales",
}
_VIM_PATHS: dict[Kind, str] = {
    "segmentor": "backbone",
    "backbone": "",
    "detector": "net",
    "rcnn": "backbone.net",
}
#: Parts that a note lists before it only counts.
_LISTED = 8


@dataclass(frozen=True)
class DenseWeights:
    """Weights by the keys of our modules.

    Attributes:
        kind: what they belong to.
        tensors: without counters and what is not exported.
        vim_path: where the Vim's own keys are: ``backbone``, ``net``, ``backbone.net`` or empty.
        notes: sentences on what was left out.
    """

    kind: Kind
    tensors: Mapping[str, Tensor]
    vim_path: str
    notes: tuple[str, ...]

    def has(self, part: str) -> bool:
        """Whether any weight belongs to that part, such as ``auxiliary_head``."""
        return any(key.startswith(f"{part}.") for key in self.tensors)

    def backbone_alone(self) -> DenseWeights:
        """Of a whole detector its backbone and pyramid, which may be exported alone."""
        found = dense_weights(self.tensors, "detector")
        return replace(found, notes=(*self.notes, *found.notes))

    def vim(self) -> dict[str, Tensor]:
        """The Vim's weights by the keys of a classifier, the feature scales left out."""
        prefix = f"{self.vim_path}." if self.vim_path else ""
        own = {
            key.removeprefix(prefix): value
            for key, value in self.tensors.items()
            if key.startswith(prefix)
        }
        return {key: value for key, value in own.items() if not key.startswith("fpn")}


def kind_of(state_dict: Mapping[str, Tensor]) -> Kind | None:
    """What the keys say; None for a classifier, or a backbone that looks like one."""
    first = {key.partition(".")[0] for key in state_dict}
    if "simfp_2" in first or any(key.startswith("backbone.simfp_2.") for key in state_dict):
        whole = "backbone" in first and not first.isdisjoint(_BEHIND)
        return "rcnn" if whole else "detector"
    if "backbone" in first or "decode_head" in first:
        return "segmentor" if "decode_head" in first else "backbone"
    return "backbone" if "fpn1" in first else None


def name_of(state_dict: Mapping[str, Tensor]) -> str:
    """What messages call the checkpoint."""
    kind = kind_of(state_dict)
    if kind is None and any(key.startswith(("head.", "cls_token")) for key in state_dict):
        return "a classifier"
    return KIND_NAMES[kind]


def dense_weights(state_dict: Mapping[str, Tensor], kind: Kind) -> DenseWeights:
    """The part of a checkpoint of that kind that is exported."""
    notes = []
    tensors = {key: value for key, value in state_dict.items() if not key.endswith(_COUNTER)}
    if kind == "rcnn":
        tensors = {key: value for key, value in tensors.items() if key not in _PIXELS}
    if kind == "detector" and any(key.startswith(_BACKBONE) for key in tensors):
        # A whole detector: proposals, regions and their heads are behind what is exported.
        behind = [key for key in tensors if not key.startswith(_BACKBONE)]
        if behind:
            parts = sorted({key.partition(".")[0] for key in behind})
            named = ", ".join(parts[:_LISTED]) + ", ..." * (len(parts) > _LISTED)
            notes.append(f"{len(behind)} tensors behind the backbone left out: {named}")
        tensors = {key: value for key, value in tensors.items() if key.startswith(_BACKBONE)}
    if kind not in ("segmentor", "rcnn") and any(key.startswith(_BACKBONE) for key in tensors):
        tensors = {key.removeprefix(_BACKBONE): value for key, value in tensors.items()}
        notes.append("prefix 'backbone.' removed from all keys")
        if kind == "backbone":
            notes.append("the checkpoint has no decode_head: the backbone alone is exported")
    return DenseWeights(kind, tensors, _VIM_PATHS[kind], tuple(notes))
