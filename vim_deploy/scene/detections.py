"""What a detector's outputs mean: detections of one picture, in the picture's own pixels.

Boxes come in pixels of the network's input. They become the picture's as in detectron2's
``detector_postprocess``: each side by its own ratio, clipped to the picture, and a box that has no
area then is dropped with its detection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import InputMisfitError, VimDeployError
from vim_deploy.heads import of_file
from vim_deploy.recipe.detector_config import DetectorConfig
from vim_deploy.runtimes.base import Array, not_finite, unfit

#: Height and width.
Size = tuple[int, int]


@dataclass(frozen=True)
class Detected:
    """Detections of one picture, the best first.

    Attributes:
        boxes: left, top, right and bottom in pixels of the picture, float32 [n, 4], each within it
            and with an area.
        scores: float32 [n].
        classes: int64 [n], of the model's.
        masks: probabilities within the boxes, float32 [n, cells, cells]; None without a mask head.
    """

    boxes: Array
    scores: Array
    classes: Array
    masks: Array | None

    def __len__(self) -> int:
        return len(self.boxes)

    def chosen(self, rows: Array | slice) -> Detected:
        """Those of some rows."""
        return replace(
            self,
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            classes=self.classes[rows],
            masks=None if self.masks is None else self.masks[rows],
        )


def detector_of(info: ExportInfo) -> DetectorConfig:
    """The detector that a file with the head ``detections`` describes.

    Raises:
        VimDeployError: VIM-415 for one that says nothing of it.
    """
    if info.dense is None or info.dense.detector is None:
        raise InputMisfitError(
            "VIM-415",
            f"the head {info.head} needs a detector, and the file describes none",
            fix="export the model again",
        )
    return info.dense.detector


def require_outputs(outputs: Mapping[str, Array], info: ExportInfo) -> None:
    """VIM-415 for outputs of a batch that are not what the artifact says of itself."""
    head, rows = of_file(info), detector_of(info).detections
    sizes = {"detections": rows, "sides": 4}
    for wanted in head.gives:
        values = outputs.get(wanted.name)
        if values is None and wanted.name == "masks":
            # A model without a mask head.
            continue
        sides = () if values is None else values.shape[1:]
        fits = len(sides) == len(wanted.axes) - 1 and all(
            side == sizes.get(axis, side) for axis, side in zip(wanted.axes[1:], sides, strict=True)
        )
        # Masks are square.
        if values is None or not fits or len(set(sides[1:])) > 1:
            found = {name: list(value.shape) for name, value in outputs.items()}
            raise VimDeployError(
                "VIM-415",
                f"the artifact does not give what its head {head.name} says",
                why=f"outputs: {found}; expected {wanted.name} for {rows} detections",
                fix="export the model again",
            )


def detections_in(
    name: str, row: Mapping[str, Array], own: Size, run: Size, classes: int
) -> Detected:
    """Detections of one picture.

    Args:
        name: of the picture, for messages.
        row: the head's outputs for it, without the batch: boxes [N, 4] in pixels of the network,
            scores [N], classes [N], count [], and masks [N, cells, cells] or none.
        own: size of the picture.
        run: size it was run at, within the input.
        classes: how many the model tells apart.

    Raises:
        VimDeployError: VIM-430 for NaN or Inf anywhere in the outputs, VIM-415 for a count or a
            class that there cannot be.
    """
    if why := unfit(row):
        raise not_finite(name, why)
    count = int(row["count"])
    if not 0 <= count <= len(row["boxes"]):
        raise _garbled(name, f"a count of {count} for {len(row['boxes'])} rows")
    numbers = row["classes"][:count].astype(np.int64)
    if ((numbers < 0) | (numbers >= classes)).any():
        worst = numbers[(numbers < 0) | (numbers >= classes)][0]
        raise _garbled(name, f"class {worst}; the model has {classes}")
    masks = row.get("masks")
    found = Detected(
        _in_picture(row["boxes"][:count], own, run),
        row["scores"][:count].astype(np.float32),
        numbers,
        None if masks is None else masks[:count].astype(np.float32),
    )
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    return found.chosen(np.flatnonzero((sides > 0).all(axis=1)))


def _in_picture(boxes: Array, own: Size, run: Size) -> Array:
    """Boxes [n, 4] of the network's pixels in the picture's, clipped to it, float32."""
    ratios = [whole / part for whole, part in zip(own, run, strict=True)]
    scale = np.array([ratios[1], ratios[0]] * 2, np.float32)
    limits = np.array([own[1], own[0]] * 2, np.float32)
    scaled: Array = boxes.astype(np.float32) * scale
    return np.clip(scaled, np.float32(0), limits)


def _garbled(name: str, why: str) -> VimDeployError:
    return InputMisfitError(
        "VIM-415",
        f"the model's detections of {name} mean nothing",
        why=why,
        fix="verify the artifact against its checkpoint, or export the model again",
    )
