"""Detections of two sides: which belong together, how far apart those are, and what is left over.

Rows mean nothing: two detections of nearly the same score may stand in either order. A pair is one
detection of each side of the same class whose boxes lie on one another, and each belongs to one
pair at most. What only one side has is a difference, unless a decision was too near to tell:

- its score is within ``margin`` of the cut: the score threshold, or the last score of the other
  side where that is full, which cuts just as the threshold does;
- or (``suppression_pixels``) a better detection of its class overlaps it by so nearly the
  suppression's IoU that boxes within their limit could have gone the other way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vim_deploy.errors import VimDeployError
from vim_deploy.parity.comparison import Comparison
from vim_deploy.parity.found import LISTED, Found, Lone
from vim_deploy.parity.limits import DetectionLimits, detection_limits
from vim_deploy.parity.metrics import Tolerance, compare
from vim_deploy.runtimes.base import Array, is_finite

_MASKS = "masks"
#: The output that stands for them all in a report.
DETECTIONS = "detections"
#: Boxes belong together from this IoU on, or when no side is further off than so many pixels: the
#: suppression leaves no two of a class with such an IoU, and a small box may lose it by rounding.
_PAIR_IOU, _PAIR_PIXELS = 0.5, 2.0
#: By how much the IoU of two boxes changes at most when every side moves by e: the intersection
#: changes by 2 e (w + h), the union by that and both areas, 6 e (w + h) together, each over the
#: union; with an IoU of a half, in units of e (w + h) / area.
_IOU_CHANGE = 5.0


@dataclass(frozen=True)
class Side:
    """The detections of one side in one picture.

    Attributes:
        boxes: float [N, 4]; left, top, right and bottom.
        scores: float [N].
        classes: int [N].
        masks: float [N, rows, columns]; None without.
        full: whether the model could not have given more.
    """

    boxes: Array
    scores: Array
    classes: Array
    masks: Array | None
    full: bool

    def __len__(self) -> int:
        return len(self.scores)


def sides_of(outputs: Mapping[str, Array], who: str) -> list[Side]:
    """The detections of every picture.

    Args:
        outputs: arrays of a batch, of the head ``detections``.
        who: gave them, for the message.

    Raises:
        VimDeployError: VIM-415 for arrays that do not belong together.
    """
    boxes, scores, classes = (outputs[name] for name in ("boxes", "scores", "classes"))
    count, masks = outputs["count"], outputs.get(_MASKS)
    rows = scores.shape[:2]
    fits = scores.ndim == 2 and boxes.shape == (*rows, 4) and classes.shape == rows
    fits = fits and count.shape == rows[:1] and (masks is None or masks.shape[:2] == rows)
    fits = fits and count.dtype.kind in "iu" and classes.dtype.kind in "iu"
    if not fits or (count.size and not 0 <= int(count.min()) <= int(count.max()) <= rows[1]):
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in outputs.items())
        raise VimDeployError(
            "VIM-415",
            f"{who} gives no detections that can be compared",
            why=f"{shapes}; expected boxes [B, N, 4], scores and classes [B, N], count [B] up to N",
            fix="give a detector exported by vim-deploy",
        )
    return [
        Side(
            boxes[picture, :number].astype(np.float64),
            scores[picture, :number].astype(np.float64),
            classes[picture, :number],
            None if masks is None else masks[picture, :number],
            full=int(number) == rows[1],
        )
        for picture, number in enumerate(count)
    ]


def ious(first: Array, second: Array) -> Array:
    """Intersection over union of every box of one side with every one of the other, [N, M]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    union = areas(first)[:, None] + areas(second)[None] - both
    found: Array = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return found


def areas(boxes: Array) -> Array:
    """Of boxes [N, 4]."""
    found: Array = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    return found


def paired(
    first: Array,
    second: Array,
    groups: tuple[Array, Array] | None = None,
    iou: float = _PAIR_IOU,
    pixels: float = _PAIR_PIXELS,
) -> Array:
    """Rows of boxes that belong together, the nearest first: int [pairs, 2].

    Args:
        first, second: boxes [N, 4] and [M, 4].
        groups: of each row of both sides; only rows of one group make a pair.
        iou, pixels: boxes that overlap by so much, or are off by no more, may be a pair.
    """
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.int64)
    distance = np.abs(first[:, None] - second[None]).max(axis=2)
    near = (distance <= pixels) | (ious(first, second) >= iou)
    if groups is not None:
        near &= groups[0][:, None] == groups[1][None]
    rows, columns = np.nonzero(near)
    # Of pairs at the same distance those that stand in the same row come first.
    order = np.lexsort((np.abs(rows - columns), distance[rows, columns]))
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in taken[0] and column not in taken[1]:
            taken[0].add(row)
            taken[1].add(column)
            pairs.append((row, column))
    return np.array(pairs, np.int64).reshape(-1, 2)


def compare_detections(
    reference: Mapping[str, Array],
    candidate: Mapping[str, Array],
    limits: DetectionLimits | None = None,
) -> tuple[Comparison, ...]:
    """Which detections both sides have, then boxes, scores and masks of those.

    Args:
        reference, candidate: outputs of a batch; N may differ.
        limits: None for those of float32.

    Returns:
        ``detections``, whose ``found`` has the counts; with pairs ``boxes`` and ``scores``, and
        ``masks`` where both sides have them. Rows are pairs, ``worst_row`` is a picture.

    Raises:
        VimDeployError: VIM-415 for outputs that do not belong together.
    """
    limits = limits or detection_limits("fp32")
    strange = [
        compare(name, reference[name], candidate[name], Tolerance(), classes=False)
        for name in ("boxes", "scores", _MASKS)
        if name in reference
        and name in candidate
        and not (is_finite(reference[name]) and is_finite(candidate[name]))
    ]
    if strange:
        return tuple(strange)
    ours, theirs = sides_of(reference, "the reference"), sides_of(candidate, "the artifact")
    if len(ours) != len(theirs):
        raise VimDeployError(
            "VIM-415", f"{len(theirs)} pictures were answered, the reference answers {len(ours)}"
        )
    pairs = [
        paired(a.boxes, b.boxes, (a.classes, b.classes)) for a, b in zip(ours, theirs, strict=True)
    ]
    found = _found(ours, theirs, pairs, limits)
    return (found, *_values(ours, theirs, pairs, limits))


def _found(
    ours: Sequence[Side], theirs: Sequence[Side], pairs: Sequence[Array], limits: DetectionLimits
) -> Comparison:
    """How many have a partner, and whether those that have none are excused."""
    missing, extra = [], []
    for picture, (a, b, both) in enumerate(zip(ours, theirs, pairs, strict=True)):
        missing += list(_lone(picture, a, b, both[:, 0], limits))
        extra += list(_lone(picture, b, a, both[:, 1], limits))
    unexcused = [item for item in (*missing, *extra) if not item.excuse]
    matched = sum(map(len, pairs))
    sizes = sum(map(len, ours)), sum(map(len, theirs))
    failures = []
    for side, items in (("the reference", missing), ("the artifact", extra)):
        if lost := [item for item in items if not item.excuse]:
            failures.append(f"{len(lost)} detections of {side} alone: {lost[0].in_words}"
                            + (", ..." if len(lost) > 1 else ""))  # fmt: skip
    share = 1.0 if not any(sizes) else matched / max(sizes)
    first = max(unexcused or [*missing, *extra], key=lambda item: item.score, default=None)
    return Comparison(
        output=DETECTIONS,
        rows=len(ours),
        max_abs=float(len(missing) + len(extra)),
        mean_abs=(len(missing) + len(extra)) / len(ours),
        relative_l2=1 - share,
        cosine=share,
        worst=float(np.finfo(np.float64).max) if unexcused else 0.0,
        top1_agreement=share,
        top5_agreement=None,
        failures=tuple(failures),
        worst_row=0 if first is None else first.picture,
        indices=True,
        found=Found(*sizes, matched, len(unexcused), tuple(_best(missing)), tuple(_best(extra))),
    )


def _best(items: Sequence[Lone]) -> list[Lone]:
    """Those to list: without an excuse first, then by falling score."""
    return sorted(items, key=lambda item: (bool(item.excuse), -item.score))[:LISTED]


def _lone(
    picture: int, side: Side, other: Side, paired_rows: Array, limits: DetectionLimits
) -> Iterator[Lone]:
    """The detections of ``side`` without a partner."""
    for row in np.setdiff1d(np.arange(len(side)), paired_rows):
        yield Lone(
            picture,
            int(side.classes[row]),
            float(side.scores[row]),
            tuple(round(float(value), 3) for value in side.boxes[row]),
            _excuse(side, other, int(row), limits),
        )


def _excuse(side: Side, other: Side, row: int, limits: DetectionLimits) -> str:
    """Why a detection of ``side`` may be missing on the other; empty where it may not."""
    score, box = float(side.scores[row]), side.boxes[row]
    if score - limits.score_threshold <= limits.margin:
        return f"its score is within {limits.margin:g} of the threshold {limits.score_threshold:g}"
    last = float(other.scores.min()) if other.full and len(other) else -np.inf
    if score - last <= limits.margin:
        return f"its score is within {limits.margin:g} of the last of a full list, {last:.4f}"
    if limits.suppression_pixels is None or limits.nms_threshold is None:
        return ""
    same = (other.classes == side.classes[row]) & (other.scores >= score - limits.scores)
    overlaps = ious(box[None], other.boxes[same])[0]
    smallest = min(areas(box[None])[0], areas(other.boxes[same]).min(initial=np.inf))
    sides = float((box[2:] - box[:2]).sum())
    slack = _IOU_CHANGE * limits.suppression_pixels * sides / max(float(smallest), 1e-9)
    near = np.abs(overlaps - limits.nms_threshold) <= slack
    if near.any():
        overlap = float(overlaps[near][0])
        return (
            f"a better one overlaps it by {overlap:.6f}, suppressed from {limits.nms_threshold:g}"
        )
    return ""


def _values(
    ours: Sequence[Side], theirs: Sequence[Side], pairs: Sequence[Array], limits: DetectionLimits
) -> Iterator[Comparison]:
    """Boxes, scores and masks of the pairs, a row each."""
    pictures = np.repeat(np.arange(len(pairs)), [len(both) for both in pairs])
    if not len(pictures):
        return
    with_masks = all(side.masks is not None for side in (*ours, *theirs))
    for name in ("boxes", "scores", *((_MASKS,) if with_masks else ())):
        reference, candidate = (
            np.concatenate(
                [
                    getattr(side, name)[both[:, column]]
                    for side, both in zip(sides, pairs, strict=True)
                ]
            )
            for column, sides in enumerate((ours, theirs))
        )
        tolerance = Tolerance(atol=getattr(limits, name), rtol=0.0)
        found = compare(name, reference, candidate, tolerance, classes=False)
        if name == "boxes" and not found.passed:
            hint = _another_box(ours, theirs, pairs, limits)
            found = dataclasses.replace(found, failures=(*found.failures, *hint))
        yield dataclasses.replace(found, worst_row=int(pictures[found.worst_row]))


def _another_box(
    ours: Sequence[Side], theirs: Sequence[Side], pairs: Sequence[Array], limits: DetectionLimits
) -> Iterator[str]:
    """What may explain boxes that are off: two for one object, of which either comes first.

    It is no excuse: from the detections alone it cannot be told from a fault.
    """
    off = even = 0
    for side, other, both in zip(ours, theirs, pairs, strict=True):
        first, second = side.boxes[both[:, 0]], other.boxes[both[:, 1]]
        gap = np.abs(side.scores[both[:, 0]] - other.scores[both[:, 1]])
        wrong = np.abs(first - second).max(axis=1, initial=0.0) > limits.boxes
        off += int(wrong.sum())
        even += int((wrong & (gap <= limits.scores)).sum())
    if even and even == off:
        yield (
            f"of {sum(map(len, pairs))} boxes {off} are off, with scores that agree: another box "
            "of the same object may have come first"
        )
