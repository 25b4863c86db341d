"""A detector's pictures and answers, for client.py beside this.

A picture is fitted into the model's square input as detectron2 does it: upright, the longer side
becomes the input's, zeros to the right and below. Its size without these goes along as a second
input. Boxes come back in that picture's pixels, masks in parts of their boxes; both are brought to
the pixels of the picture as it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from client_answers import Outputs, ServerError, no_numbers, printable
from client_pictures import read_picture, scaled
from numpy.typing import NDArray

#: Height and width.
Size = tuple[int, int]
#: Boxes of one class no side of which is further off are the same thing, in pixels of the input;
#: how far off they may be is the package's to say.
SAME_PIXELS = 2.0


def fitted_size(height: int, width: int, side: int) -> Size:
    """Height and width, at least 1, with the longer one ``side``: ``ResizeShortestEdge``'s steps.

    detectron2/data/transforms/transform_gen.py with short edge and largest size both ``side``: its
    roundings are part of what the model was trained with.
    """
    scale = side / min(height, width)
    down, right = (side, scale * width) if height < width else (scale * height, side)
    if max(down, right) > side:
        scale = side / max(down, right)
        down, right = down * scale, right * scale
    return max(int(down + 0.5), 1), max(int(right + 0.5), 1)


def fit(path: Path, facts: dict[str, Any]) -> tuple[NDArray[Any], Size, Size]:
    """One picture as a row of the input, its size inside that, and its size as it was."""
    from PIL import Image

    how = facts["image"]
    side, channels = how["height"], how["channels"]
    picture = read_picture(path, {1: "L", 3: "RGB"}[channels], upright=True)
    size = fitted_size(picture.height, picture.width, side)
    own = (picture.height, picture.width)
    if own != size:
        # First the columns, then the rows: one call does it otherwise in some releases of Pillow.
        kernel = Image.Resampling[how["interpolation"].upper()]
        columns = picture.resize((size[1], picture.height), kernel)
        picture = columns.resize((size[1], size[0]), kernel)
    pixels = np.zeros((side, side, channels), np.uint8)
    pixels[: size[0], : size[1]] = np.asarray(picture, np.uint8).reshape(*size, channels)
    row = scaled(pixels, facts).astype(facts["input"]["dtype"])
    return row, size, own


def detections(
    outputs: Outputs, row: int, facts: dict[str, Any], sizes: Sequence[Size]
) -> list[dict[str, Any]]:
    """What was found in one picture, best first, in the pixels of the picture as it was.

    Each has ``class``, ``label``, ``score``, ``box`` (left, top, right, bottom) and, where the
    model gives masks, ``area`` and ``mask`` (``run_lengths``). ``sizes`` are those that ``fit``
    gave. Boxes without area are dropped (detectron2's ``detector_postprocess``).

    ServerError for a count or class that there cannot be.
    """
    (height, width), (own_height, own_width) = sizes
    count = int(outputs["count"][row])
    numbers = outputs["classes"][row][: max(count, 0)]
    if not 0 <= count <= len(outputs["boxes"][row]) or (numbers < 0).any():
        raise ServerError(f"{count} detections of the classes {numbers.tolist()} mean nothing")
    factors = np.array([own_width / width, own_height / height] * 2, np.float32)
    limits = np.array([own_width, own_height] * 2, np.float32)
    boxes = np.clip(outputs["boxes"][row][:count].astype(np.float32) * factors, 0, limits)
    labels, found = facts["labels"], []
    for at, box in enumerate(boxes):
        if not (box[2] > box[0] and box[3] > box[1]):
            continue
        index = int(numbers[at])
        entry: dict[str, Any] = {
            "class": index,
            "label": labels[index] if index < len(labels) else "",
            "score": float(outputs["scores"][row][at]),
            "box": [float(value) for value in box],
        }
        if "masks" in outputs:
            part, corner = pasted(outputs["masks"][row][at], box, (own_height, own_width))
            entry["area"] = int(part.sum())
            entry["mask"] = run_lengths(part, corner, (own_height, own_width))
        found.append(entry)
    return found


def taps(low: np.float32, high: np.float32, length: int, size: int) -> tuple[Any, ...]:
    """First pixel, cells of a mask of ``size`` before each pixel of a box's side, and how far each
    pixel is beyond its cell; float32 throughout."""
    start = max(int(np.floor(low)) - 1, 0)
    stop = max(min(int(np.ceil(high)) + 1, length), start)
    one, two, half = np.float32(1), np.float32(2), np.float32(0.5)
    centre = np.arange(start, stop, dtype=np.float32) + half
    place = (centre - low) / (high - low) * two - one
    at = (place + one) * (np.float32(size) / two) - half
    # Where a pixel is beyond the zeros around a mask does not matter; a box may be very thin.
    at = np.clip(at, np.float32(-2), np.float32(size + 1))
    cell = np.floor(at)
    return start, cell.astype(np.int64), at - cell


def pasted(mask: NDArray[Any], box: NDArray[Any], picture: Size) -> tuple[NDArray[np.bool_], Size]:
    """The pixels around a box, whether each is the object's, and the row and column of the first.

    A mask is sampled at the pixels' centres, bilinearly, zero outside, as ``grid_sample`` does it
    for detectron2's ``paste_masks_in_image``, in its order of operations; a pixel is set from 0.5.
    """
    height, width = mask.shape
    top, y, down = taps(box[1], box[3], picture[0], height)
    left, x, right = taps(box[0], box[2], picture[1], width)
    # A border of zeros stands for everything outside.
    padded = np.zeros((height + 2, width + 2), np.float32)
    padded[1:-1, 1:-1] = mask
    rows = [np.clip(y + step, 0, height + 1)[:, None] for step in (1, 2)]
    columns = [np.clip(x + step, 0, width + 1)[None] for step in (1, 2)]
    one = np.float32(1)
    weights = [(one - down)[:, None], down[:, None]], [(one - right)[None], right[None]]
    value = np.float32(0)
    for j in range(2):
        for i in range(2):
            value = value + padded[rows[j], columns[i]] * (weights[0][j] * weights[1][i])
    return np.asarray(value >= np.float32(0.5)), (top, left)


def run_lengths(part: NDArray[np.bool_], corner: Size, picture: Size) -> dict[str, Any]:
    """A mask as COCO's uncompressed run lengths: down the columns, pixels not set come first."""
    height, width = picture
    columns = np.zeros((part.shape[1], part.shape[0] + 2), np.int8)
    columns[:, 1:-1] = part.T
    steps = np.diff(columns, axis=1)
    first = (corner[1] + np.arange(part.shape[1])) * height + corner[0]
    starts, ends = ((first[at[0]] + at[1]) for at in (np.nonzero(steps > 0), np.nonzero(steps < 0)))
    # A run that ends with its column goes on where the next one begins at its top.
    apart = starts[1:] != ends[:-1]
    starts, ends = starts[np.r_[True, apart][: len(starts)]], ends[np.r_[apart, True][: len(ends)]]
    marks = np.column_stack([starts, ends]).ravel()
    counts = np.diff(np.r_[0, marks, height * width])
    return {"size": [height, width], "counts": [int(count) for count in counts]}


def show_found(name: object, found: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print what a detector found in one picture: a line for each, the best first."""
    if options.score is not None:
        found = [entry for entry in found if entry["score"] > options.score]
    found = found[: options.top]
    if options.json:
        print(json.dumps({"picture": str(name), "top": [], "detections": found}))
        return
    name = printable(name)
    for entry in found:
        what = f"{entry['class']} {printable(entry['label'])}".rstrip()
        box = " ".join(f"{value:.1f}" for value in entry["box"])
        area = f"\t{entry['area']} pixels" if "area" in entry else ""
        print(f"{name}\t{what}\t{100 * entry['score']:.2f} %\t{box}{area}")
    if not found:
        print(f"{name}\tnothing found")


def differences(wanted: Outputs, answered: Outputs, limits: dict[str, Any]) -> list[str]:
    """Sentences about detections that are not the stored ones; none when they are.

    Rows mean nothing: two of nearly the same score may stand in either order. One that only one
    side has is a difference unless its score is within the limits' ``margin`` of what the model
    leaves out: of the threshold, or of the other side's last one where its list is full.
    """
    pictures = len(wanted["count"])
    for name, values in wanted.items():
        if name not in answered or answered[name].shape != values.shape:
            return [f"{name}: not answered, or of another shape than {list(values.shape)}"]
        for side, outputs in (("answer", answered), ("stored output", wanted)):
            if any(no_numbers({name: outputs[name]}, row) for row in range(pictures)):
                return [f"{name}: NaN or Inf in the {side}"]
    sentences = []
    for row in range(pictures):
        pairs = same_things(wanted, answered, row)
        for name in ("boxes", "scores", "masks"):
            limit = limits.get(name)
            if name not in wanted or limit is None or not pairs:
                continue
            first, second = np.array(pairs).T
            a, b = wanted[name][row][first], answered[name][row][second]
            worst = float(np.abs(a.astype(np.float64) - b).max())
            if not worst <= limit:
                sentences.append(f"picture {row}: {name} differ by up to {worst:g}")
        for side, at, own, other in (
            ("stored", 0, wanted, answered),
            ("answered", 1, answered, wanted),
        ):
            left = set(range(int(own["count"][row]))) - {pair[at] for pair in pairs}
            lost = [i for i in sorted(left) if not is_near_cut(own, other, (row, i), limits)]
            if lost:
                sentences.append(f"picture {row}: {len(lost)} detections are only {side}")
    return sentences


def same_things(wanted: Outputs, answered: Outputs, row: int) -> list[tuple[int, int]]:
    """Rows of both sides that are one thing in a picture: of one class, their boxes nearest."""
    near = []
    for i in range(int(wanted["count"][row])):
        for j in range(int(answered["count"][row])):
            if wanted["classes"][row][i] == answered["classes"][row][j]:
                apart = float(np.abs(wanted["boxes"][row][i] - answered["boxes"][row][j]).max())
                near += [(apart, abs(i - j), i, j)] if apart <= SAME_PIXELS else []
    pairs: list[tuple[int, int]] = []
    for _, _, i, j in sorted(near):
        if all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return pairs


def is_near_cut(own: Outputs, other: Outputs, at: tuple[int, int], limits: dict[str, Any]) -> bool:
    """Whether one side's detection may be what the other side has just left out."""
    scores, count = other["scores"][at[0]], int(other["count"][at[0]])
    cut = float(limits["score_threshold"])
    if count == len(scores):
        cut = max(cut, float(scores[count - 1]))
    return float(own["scores"][at]) <= cut + float(limits["margin"])
