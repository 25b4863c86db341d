"""Detections in COCO's formats: numbers of pictures and classes, and masks as run lengths.

The formats are those of cocodataset.org (``format-data`` and ``format-results``) and of
pycocotools. A mask is read column by column; its runs of unset and set pixels take turns, the first
is of unset ones. Compressed, the lengths from the fourth on are differences from the length two
before, and every number is written in digits of five bits, the lowest first, from the letter "0"
on; a sixth bit says that another digit follows, and the last digit has the sign.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from vim_deploy.files import (
    atomic_output,
    output_errors,
    remove_leftovers,
    single_writer,
    write_json,
)
from vim_deploy.scene.classes import class_name
from vim_deploy.scene.detections import Detected, Size
from vim_deploy.scene.paste import Pasted
from vim_deploy.scene.records import CocoFile

#: The classes of COCO's detection task (2014 and 2017), in the order of models' outputs.
NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
#: Numbers from 1 to 90 that no class of the detection task has.
_MISSING = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
#: pycocotools keeps ids in 64 bits at most.
_MOST_DIGITS = 18


def category_ids(labels: Sequence[str], classes: int) -> tuple[int, ...]:
    """The category of each class: COCO's own where the names are COCO's, else index + 1."""
    if is_coco(labels):
        return tuple(number for number in range(1, 91) if number not in _MISSING)
    return tuple(range(1, classes + 1))


def is_coco(labels: Sequence[str]) -> bool:
    """Whether these are COCO's 80 names in their order."""
    return tuple(labels) == NAMES


def image_ids(names: Iterable[str]) -> dict[str, int] | None:
    """The number at the end of each file's name, such as 139 of ``000000000139.jpg``.

    None where one has no number there, or two the same.
    """
    found: dict[str, int] = {}
    for name in names:
        match = re.search(r"[0-9]+$", Path(name).stem)
        digits = match[0].lstrip("0") or "0" if match else ""
        if not 0 < len(digits) <= _MOST_DIGITS:
            return None
        found[name] = int(digits)
    return found if len(set(found.values())) == len(found) else None


def run_lengths(mask: Pasted, size: Size) -> list[int]:
    """Lengths of a mask's runs on a picture of ``size``, by columns, the unset ones first."""
    height, width = size
    rows, columns = mask.pixels.shape
    # Columns with an unset pixel at both ends: a run begins and ends where neighbours differ.
    edged = np.zeros((columns, rows + 2), np.int8)
    edged[:, 1:-1] = mask.pixels.T
    steps = np.diff(edged, axis=1)
    corner = mask.left * height + mask.top
    starts, ends = (
        corner + column * height + row
        for column, row in (np.nonzero(steps == step) for step in (1, -1))
    )
    if not len(starts):
        return [height * width]
    # A run at the picture's lower edge may go on at the top of the next column.
    apart = starts[1:] != ends[:-1]
    starts, ends = starts[np.append(True, apart)], ends[np.append(apart, True)]
    borders = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [height * width]])
    lengths = [int(length) for length in np.diff(borders)]
    return lengths if lengths[-1] else lengths[:-1]


def compressed(lengths: Sequence[int]) -> str:
    """Run lengths as COCO's string."""
    letters: list[str] = []
    for place, length in enumerate(lengths):
        number = length - lengths[place - 2] if place > 2 else length
        while True:
            digit, number = number & 31, number >> 5
            # Done when all that is left is the sign, which the digit's highest bit has.
            done = number == (-1 if digit & 16 else 0)
            letters.append(chr(48 + digit + (0 if done else 32)))
            if done:
                break
    return "".join(letters)


class CocoWriter:
    """Results that are written picture by picture, and a file of the pictures they belong to.

    Closing ``stack`` puts the results in place.

    Args:
        path: of the results, ``NAME.json``; the pictures go into ``images_path(path)``.
        stack: of whoever writes.
        ids: of all pictures of the run, by name; None for their places, from 1.
        names: of these pictures.
        labels, classes: of the model.
    """

    def __init__(
        self,
        path: Path,
        stack: ExitStack,
        ids: Mapping[str, int] | None,
        names: Sequence[str],
        labels: Sequence[str],
        classes: int,
    ) -> None:
        self._ids = ids or {name: place for place, name in enumerate(names, 1)}
        self._by_name, self._labels, self._path = ids is not None, labels, path
        self._categories = category_ids(labels, classes)
        self._pictures: list[dict[str, Any]] = []
        stack.enter_context(single_writer(path))
        remove_leftovers(path)
        temporary = stack.enter_context(atomic_output(path))
        self._stream = stack.enter_context(temporary.open("w", encoding="utf-8"))
        self._before = "["

    def add(self, name: str, size: Size, found: Detected, masks: Sequence[str]) -> None:
        """The next picture, its size, its detections, and their masks ``compressed``, if any."""
        number, (height, width) = self._ids[name], size
        self._pictures.append({"id": number, "file_name": name, "height": height, "width": width})
        for place in range(len(found)):
            left, top, right, bottom = map(float, found.boxes[place])
            row: dict[str, Any] = {
                "image_id": number,
                "category_id": self._categories[int(found.classes[place])],
                "bbox": [left, top, right - left, bottom - top],
                "score": float(found.scores[place]),
            }
            if masks:
                row["segmentation"] = {"size": [height, width], "counts": masks[place]}
            self._write(self._before + json.dumps(row))
            self._before = ",\n"

    def finish(self) -> CocoFile:
        """Write what comes last; what was written."""
        self._write("[]\n" if self._before == "[" else "]\n")
        pictures = images_path(self._path)
        with single_writer(pictures):
            write_json(
                pictures,
                {
                    "images": self._pictures,
                    "annotations": [],
                    "categories": [
                        {"id": number, "name": class_name(self._labels, index)}
                        for index, number in enumerate(self._categories)
                    ],
                },
            )
        return CocoFile(
            str(self._path),
            str(pictures),
            image_ids="file name" if self._by_name else "order",
            category_ids="coco" if is_coco(self._labels) else "index + 1",
        )

    def _write(self, text: str) -> None:
        with output_errors(self._path):
            self._stream.write(text)


def images_path(results: Path) -> Path:
    """Where the pictures of ``results`` are described: ``NAME.images.json``."""
    return results.with_suffix(".images.json")
