"""The reference detectors F01 and F02: what the official code found in their pictures.

Left out of the arrays and made again here: the resized pictures (their hash is in the record), and
the proposals, which are the boxes of the first stage. Of F02 the masks of the best 12 are kept.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from tests.support.reference import (
    SMALL,
    Array,
    arrays_of,
    checkpoint_path,
    detector_cases,
)


@dataclass(frozen=True)
class StageOutputs:
    """What went into a box head, [P, 4] in network pixels, and its logits [P, K + 1]."""

    boxes: Array
    logits: Array


@dataclass(frozen=True)
class Picture:
    """One picture and what the official code found in it.

    Attributes:
        picture: the photograph, uint8 [h0, w0, 3], RGB.
        resized: as the network gets it, before normalisation: uint8 [h, w, 3].
        proposals: [P, 4] in network pixels, by falling logit, and proposal_logits [P].
        stages: of each box head.
        boxes: [N, 4] in network pixels, with scores [N], classes [N] and masks [N, 28, 28] (of F02
            the best 12).
        final_index: rows of ``boxes`` that survive in the photograph, with final_boxes [M, 4] in
            its pixels and final_masks bool [M, h0, w0].
    """

    picture: Array
    resized: Array
    proposals: Array
    proposal_logits: Array
    stages: tuple[StageOutputs, ...]
    boxes: Array
    scores: Array
    classes: Array
    masks: Array
    final_index: Array
    final_boxes: Array
    final_masks: Array

    @property
    def size(self) -> tuple[int, int]:
        """Height and width within the network's input."""
        return self.resized.shape[0], self.resized.shape[1]


@dataclass(frozen=True)
class DetectorCase:
    """One official detector.

    Attributes:
        config: the whole model's configuration, as a user gives it with ``--config FILE.json``.
        yaml: what LazyConfig.save wrote, for ``--config FILE.yaml``.
        side: of the network's input.
        mean, std: of its pixels, 0 to 255.
    """

    name: str
    config: Mapping[str, Any]
    yaml: Path
    checkpoint: Path
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pictures: tuple[Picture, ...]

    def normalized(self, *numbers: int) -> Array:
        """The network's input, f32[len(numbers), 3, side, side], of the pictures ``numbers``."""
        batch = np.zeros((len(numbers), 3, self.side, self.side), np.float32)
        mean, std = np.float32(self.mean), np.float32(self.std)
        for row, number in enumerate(numbers):
            resized = self.pictures[number].resized
            height, width = self.pictures[number].size
            whole = (resized.astype(np.float32) - mean) / std
            batch[row, :, :height, :width] = whole.transpose(2, 0, 1)
        return batch

    def sizes(self, *numbers: int) -> Array:
        """Heights and widths, int64 [len(numbers), 2]."""
        return np.array([self.pictures[number].size for number in numbers], np.int64)


@functools.cache
def detector_case(short: str) -> DetectorCase:
    """The case whose name starts with ``short``: F01 or F02."""
    (name,) = (name for name in detector_cases() if name.startswith(short))
    record = json.loads((SMALL / f"{name}.json").read_text(encoding="utf-8"))
    config = record["model_config"]
    arrays = detector_arrays(short)
    pictures = tuple(_picture(arrays, number) for number in range(len(record["images"])))
    return DetectorCase(
        name=name,
        config=MappingProxyType(config),
        yaml=SMALL / f"{name}.yaml",
        checkpoint=checkpoint_path(name),
        side=config["backbone"]["net"]["img_size"],
        mean=tuple(config["pixel_mean"]),
        std=tuple(config["pixel_std"]),
        pictures=pictures,
    )


@functools.cache
def detector_arrays(short: str) -> dict[str, Array]:
    """The arrays of a case by the names of the official run, those that were left out again."""
    (name,) = (name for name in detector_cases() if name.startswith(short))
    record = json.loads((SMALL / f"{name}.json").read_text(encoding="utf-8"))
    arrays = arrays_of(SMALL / f"{name}.npz")
    for number, image in enumerate(record["images"]):
        prefix = f"i{number}_"
        photograph = Image.open(io.BytesIO(arrays[f"{prefix}picture"].tobytes()))
        height, width = image["network_size_hw"]
        resized = np.asarray(photograph.resize((width, height), Image.Resampling.BILINEAR))
        assert hashlib.sha256(resized.tobytes()).hexdigest() == image["resized_sha256"]
        arrays[f"{prefix}picture"], arrays[f"{prefix}resized"] = np.asarray(photograph), resized
        arrays[f"{prefix}proposal_boxes"] = arrays[f"{prefix}stage0_boxes"]
    return arrays


def _picture(arrays: Mapping[str, Array], number: int) -> Picture:
    own = {
        key.removeprefix(f"i{number}_"): array
        for key, array in arrays.items()
        if key.startswith(f"i{number}_")
    }
    stages = sum(key.endswith("_logits") and key.startswith("stage") for key in own)
    height, width, _ = own["picture"].shape
    bits = np.unpackbits(own["final_masks"], axis=1, count=height * width)
    return Picture(
        picture=own["picture"],
        resized=own["resized"],
        proposals=own["proposal_boxes"],
        proposal_logits=own["proposal_logits"],
        stages=tuple(
            StageOutputs(own[f"stage{stage}_boxes"], own[f"stage{stage}_logits"])
            for stage in range(stages)
        ),
        final_masks=bits.reshape(-1, height, width).astype(bool),
        **{
            name: own[name]
            for name in ("boxes", "scores", "classes", "masks", "final_index", "final_boxes")
        },
    )


def apart(outputs: Mapping[str, Array], row: int, expected: Picture, least: float = 0.0) -> Array:
    """How far the official detections are from those of ``outputs``, each from the nearest.

    Args:
        outputs: of an exported detector.
        row: of the picture in them.
        expected: what the official code found.
        least: score up to which an official detection may be missing.

    Returns:
        Largest differences of boxes, scores and masks, f64[3]; infinite where one is missing, or
        two are one and the same here.
    """
    count = int(outputs["count"][row])
    boxes, scores, classes, masks = (
        outputs[name][row, :count] for name in ("boxes", "scores", "classes", "masks")
    )
    wanted = np.flatnonzero(expected.scores > least)
    if not len(wanted):
        return np.zeros(3)
    if not count:
        return np.full(3, np.inf)
    gaps = np.abs(boxes[None] - expected.boxes[wanted][:, None]).max(2)
    gaps[classes[None] != expected.classes[wanted][:, None]] = np.inf
    nearest = gaps.argmin(1)
    if len(set(nearest.tolist())) < len(wanted):
        return np.full(3, np.inf)
    kept = wanted < len(expected.masks)
    differences = masks[nearest[kept]] - expected.masks[wanted[kept]]
    return np.array(
        [
            gaps.min(1).max(),
            np.abs(scores[nearest] - expected.scores[wanted]).max(),
            np.abs(differences).max(initial=0.0),
        ]
    )
