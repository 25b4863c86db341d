"""Inner tensors of a detector with rows that belong together: proposals swap rows, so they do.

Two proposals of nearly the same logit may stand in either order, and everything behind them with
them. So rows are matched before anything is compared: proposals by their boxes, and the logits and
deltas of every stage go with them; boxes and masks of detections by class and box. Rows that only
one side has are left out of what is behind them. That happens where a suppression or a cut went the
other way; where too many go, the proposals themselves are at fault.

The furthest rows are left out as well, as many as may lose their partner: RoIAlign takes a whole
number of samples for each bin, and a box that rounding moves over that step is pooled otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vim_deploy.parity.detections import paired
from vim_deploy.places import BEHIND_BLOCKS, Place, place
from vim_deploy.runtimes.base import Array, is_finite

#: Two proposals of a level overlap by 0.7 at most: halfway from there to 1 it is the same one.
_SAME_IOU, _SAME_PIXELS = 0.85, 0.5
#: Share of the rows that may have no partner, and that may be anything: a hundredth, or ten times
#: the relative distance that parts are allowed, a fifth at most. Of the 490 proposals of F01 all
#: have one in float32 and float16; in float16 the furthest hundredth of the rows makes the
#: distance of the second stage's logits 1.0e-2 instead of 4.2e-3.
_LOST, _LOST_PER_LIMIT, _MOST_LOST = 0.01, 10.0, 0.2

_PROPOSALS, _BOXES, _CLASSES, _MASKS = (
    place(BEHIND_BLOCKS, name) for name in ("proposals", "boxes", "classes", "masks")
)


def matched_parts(
    wanted: Mapping[Place, Array], found: Mapping[Place, Array], limit: float
) -> tuple[dict[Place, Array], dict[Place, Array]]:
    """Both sides' parts with the rows of regions in pairs, rows without a partner left out.

    Args:
        wanted, found: inner tensors of the reference and of the candidate.
        limit: largest relative L2 distance of a part.

    Returns:
        The reference's and the candidate's. Where more proposals than may have no partner the
        candidate's are NaN, which agree with nothing; the numbers of classes are in neither.
    """
    sides = dict(wanted), dict(found)
    lost = min(max(_LOST, _LOST_PER_LIMIT * limit), _MOST_LOST)
    if all(_PROPOSALS in side for side in sides):
        _match_proposals(*sides, lost)
    if all(_BOXES in side and _CLASSES in side for side in sides):
        _match_detections(*sides, lost)
    for side in sides:
        side.pop(_CLASSES, None)
    return sides


def _match_proposals(wanted: dict[Place, Array], found: dict[Place, Array], lost: float) -> None:
    sides = wanted, found
    boxes = [side[_PROPOSALS] for side in sides]
    if not all(map(is_finite, boxes)):
        return
    rows = [[_filled(picture) for picture in side] for side in boxes]
    pairs = [
        _pairs(*(side[picture][kept[picture]] for side, kept in zip(boxes, rows, strict=True)))
        for picture in range(len(boxes[0]))
    ]
    chosen = [
        [kept[picture][both[:, column]] for picture, both in enumerate(pairs)]
        for column, kept in enumerate(rows)
    ]
    count = boxes[0].shape[1], boxes[1].shape[1]
    behind = [where for where in wanted.keys() & found.keys() if where.part.startswith("stage.")]
    for where in (_PROPOSALS, *behind):
        for side, picked, each in zip(sides, chosen, count, strict=True):
            value = side[where]
            by_picture = value.reshape(-1, each, *value.shape[-1:])
            side[where] = np.concatenate(
                [by_picture[picture][kept] for picture, kept in enumerate(picked)]
            )
    total = max(sum(map(len, kept)) for kept in rows)
    for where in behind:
        _leave_out_furthest(wanted, found, where, lost)
    if total - sum(map(len, pairs)) > lost * total:
        found[_PROPOSALS] = np.full_like(found[_PROPOSALS], np.nan)
    if not total:
        # Of nothing nothing can be said, and it is no difference either.
        for side in sides:
            for where in (_PROPOSALS, *behind):
                del side[where]


def _pairs(first: Array, second: Array) -> Array:
    found = paired(first, second, iou=_SAME_IOU, pixels=_SAME_PIXELS)
    return found[np.argsort(found[:, 0])]


def _filled(boxes: Array) -> Array:
    """Rows [N, 4] that hold a box."""
    return np.flatnonzero(boxes.any(axis=1))


def _match_detections(wanted: dict[Place, Array], found: dict[Place, Array], lost: float) -> None:
    sides = wanted, found
    if not all(is_finite(side[_BOXES]) for side in sides):
        return
    values: dict[Place, list[list[Array]]] = {
        where: [[], []] for where in (_BOXES, _MASKS) if all(where in side for side in sides)
    }
    for picture in range(len(wanted[_BOXES])):
        rows = [_filled(side[_BOXES][picture]) for side in sides]
        boxes, classes = (
            [side[where][picture][kept] for side, kept in zip(sides, rows, strict=True)]
            for where in (_BOXES, _CLASSES)
        )
        pairs = paired(boxes[0], boxes[1], (classes[0], classes[1]))
        for where, joined in values.items():
            for column, side in enumerate(sides):
                joined[column].append(side[where][picture][rows[column][pairs[:, column]]])
    for where, joined in values.items():
        for side, parts in zip(sides, joined, strict=True):
            side[where] = np.concatenate(parts)
        if not wanted[where].size:
            del wanted[where], found[where]
            continue
        _leave_out_furthest(wanted, found, where, lost)


def _leave_out_furthest(
    wanted: dict[Place, Array], found: dict[Place, Array], where: Place, lost: float
) -> None:
    """Take the ``lost`` share of the rows that are furthest apart out of both sides."""
    first, second = wanted[where], found[where]
    if first.shape != second.shape or not (is_finite(first) and is_finite(second)):
        return
    difference = (second.astype(np.float64) - first).reshape(len(first), -1)
    distance = np.square(difference).sum(axis=1)
    kept = np.sort(np.argsort(distance)[: len(first) - int(lost * len(first))])
    wanted[where], found[where] = first[kept], second[kept]
