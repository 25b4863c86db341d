"""Detections of two sides: pairs, distances, what is excused, and nothing at all."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from vim_deploy.errors import VimDeployError
from vim_deploy.parity.comparison import Comparison
from vim_deploy.parity.detections import compare_detections, ious, paired
from vim_deploy.parity.limits import DetectionLimits, detection_limits
from vim_deploy.parity.metrics import Tolerance, adjusted, tolerance_for

ROWS = 4
LIMITS = dataclasses.replace(detection_limits("fp32"), score_threshold=0.05, nms_threshold=0.5)
#: Two of class 0 far apart, one of class 1 on the first of them.
BOXES = [[10, 10, 30, 40], [60, 20, 90, 70], [10, 10, 30, 41]]
SCORES = [0.9, 0.6, 0.3]
CLASSES = [0, 0, 1]

Outputs = dict[str, np.ndarray[Any, Any]]


def outputs(
    boxes: Any = BOXES, scores: Any = SCORES, classes: Any = CLASSES, rows: int = ROWS
) -> Outputs:
    """What a detector gives for one picture, masks of 2x2 among it."""
    count = len(scores)
    found: Outputs = {
        "boxes": np.zeros((1, rows, 4), np.float32),
        "scores": np.zeros((1, rows), np.float32),
        "classes": np.zeros((1, rows), np.int64),
        "masks": np.zeros((1, rows, 2, 2), np.float32),
        "count": np.array([count]),
    }
    if count:
        found["boxes"][0, :count] = boxes
        found["scores"][0, :count] = scores
        found["classes"][0, :count] = classes
        found["masks"][0, :count] = np.asarray(scores, np.float32)[:, None, None]
    return found


def without(row: int, found: Outputs | None = None) -> Outputs:
    """``outputs`` less one of its rows."""
    kept = [index for index in range(3) if index != row]
    return outputs(*([values[index] for index in kept] for values in (BOXES, SCORES, CLASSES)))


def by_name(comparisons: tuple[Comparison, ...]) -> dict[str, Comparison]:
    return {item.output: item for item in comparisons}


def test_rows_that_swapped_are_no_difference() -> None:
    order = [1, 2, 0]
    swapped = outputs(*([values[row] for row in order] for values in (BOXES, SCORES, CLASSES)))
    found = by_name(compare_detections(outputs(), swapped, LIMITS))
    assert list(found) == ["detections", "boxes", "scores", "masks"]
    assert all(item.passed and item.max_abs == 0 for item in found.values())
    counts = found["detections"].found
    assert counts is not None
    assert (counts.reference, counts.candidate, counts.matched) == (3, 3, 3)
    assert found["boxes"].rows == 3


def test_distances_are_those_of_the_pairs() -> None:
    other = outputs()
    other["boxes"][0, 1, 2] += 0.25
    other["scores"][0, 0] -= 0.01
    found = by_name(compare_detections(outputs(), other, LIMITS))
    assert found["detections"].passed
    assert found["boxes"].max_abs == 0.25
    assert found["boxes"].mean_abs == pytest.approx(0.25 / 12)
    assert found["scores"].max_abs == pytest.approx(0.01, rel=1e-5)
    assert not found["boxes"].passed
    assert found["boxes"].worst == pytest.approx(250)
    half = by_name(compare_detections(outputs(), other, detection_limits("fp16")))
    assert all(item.passed for item in half.values())


@pytest.mark.parametrize("change", ["class", "place"])
def test_another_class_or_place_is_another_detection(change: str) -> None:
    other = outputs()
    if change == "class":
        other["classes"][0, 1] = 2
    else:
        other["boxes"][0, 1] += 40
    found = by_name(compare_detections(outputs(), other, LIMITS))
    counts = found["detections"].found
    assert counts is not None
    assert (counts.matched, counts.missing, counts.unexcused) == (2, 1, 2)
    assert not found["detections"].passed
    assert "class 0 with 0.6000 at [60.0, 20.0, 90.0, 70.0]" in found["detections"].failures[0]
    assert found["boxes"].rows == 2


@pytest.mark.parametrize(
    ("score", "limits", "excused"),
    [
        (0.0695, detection_limits("fp16"), True),
        (0.0705, detection_limits("fp16"), False),
        (0.05009, detection_limits("fp32"), True),
        (0.0502, detection_limits("fp32"), False),
    ],
)
def test_near_the_threshold(score: float, limits: DetectionLimits, excused: bool) -> None:
    limits = dataclasses.replace(limits, score_threshold=0.05)
    reference = outputs(scores=[0.9, 0.6, score])
    for sides in ((reference, without(2)), (without(2), reference)):
        (found, *_) = compare_detections(*sides, limits)
        assert found.passed == excused
        assert found.found is not None
        (lone,) = (*found.found.only_reference, *found.found.only_candidate)
        assert bool(lone.excuse) == excused
        assert lone.score == pytest.approx(score)


def test_a_full_list_cuts_at_its_last_score() -> None:
    full = outputs([*BOXES, [0, 0, 5, 5]], [*SCORES, 0.2], [*CLASSES, 3])
    other = outputs([*BOXES, [50, 0, 60, 5]], [*SCORES, 0.20005], [*CLASSES, 3])
    (found, *_) = compare_detections(full, other, LIMITS)
    assert found.passed
    # Where there is room for it, nothing explains that it is missing.
    assert not compare_detections(full, outputs(), LIMITS)[0].passed


def test_a_suppression_that_is_too_near_to_tell() -> None:
    # 20 x 20 of 20 x 40.0001 pixels.
    boxes = [[0, 0, 20, 20], [0, 0, 20, 40.0001]]
    one, both = outputs(boxes[:1], [0.9], [0]), outputs(boxes, [0.9, 0.8], [0, 0])
    assert ious(np.array(boxes[:1]), np.array(boxes))[0, 1] == pytest.approx(0.5, abs=1e-5)
    assert compare_detections(both, one, LIMITS)[0].passed
    assert not compare_detections(both, one, detection_limits("fp16"))[0].passed
    clear = outputs([boxes[0], [0, 0, 20, 42]], [0.9, 0.8], [0, 0])
    assert not compare_detections(clear, one, LIMITS)[0].passed


def test_nothing_on_either_side_is_said() -> None:
    nothing = outputs([], [], [])
    (found,) = compare_detections(nothing, nothing, LIMITS)
    assert found.found is not None
    assert found.found.nothing
    assert found.in_words == "neither side has a detection"
    assert not compare_detections(outputs(), nothing, LIMITS)[0].passed


def test_nan_agrees_with_nothing() -> None:
    other = outputs()
    other["scores"][0, 3] = np.nan
    (found,) = compare_detections(outputs(), other, LIMITS)
    assert found.output == "scores"
    assert not found.passed


@pytest.mark.parametrize(
    "change",
    [
        {"count": np.array([5])},
        {"count": np.array([-1])},
        {"count": np.array([1.0])},
        {"boxes": np.zeros((1, 3, 4))},
        {"classes": np.zeros((2, 4), np.int64)},
        {"masks": np.zeros((1, 2, 2, 2))},
    ],
)
def test_outputs_that_are_no_detections(change: Outputs) -> None:
    with pytest.raises(VimDeployError) as caught:
        compare_detections(outputs(), {**outputs(), **change}, LIMITS)
    assert caught.value.code == "VIM-415"


def test_pairs_are_one_to_one_and_the_nearest() -> None:
    first = np.array([[0, 0, 10, 10], [1, 0, 11, 10]], np.float64)
    second = np.array([[1.1, 0, 11.1, 10], [0.1, 0, 10.1, 10], [3, 0, 13, 10]])
    assert sorted(map(tuple, paired(first, second).tolist())) == [(0, 1), (1, 0)]
    assert paired(first[:0], second).shape == (0, 2)


def test_limits_of_detections_are_their_own() -> None:
    detector = dataclasses.replace(tolerance_for("fp32"), detections=LIMITS)
    changed = adjusted(detector, {"boxes": 0.25, "relative_l2": 1e-3}).detections
    assert changed is not None
    assert (changed.boxes, changed.scores) == (0.25, LIMITS.scores)
    assert changed.origin.startswith("boxes set by the user")
    for tolerance, limit in ((detector, "cosine"), (Tolerance(), "boxes")):
        with pytest.raises(VimDeployError) as caught:
            adjusted(tolerance, {limit: 0.5})
        assert caught.value.code == "VIM-203"
    with pytest.raises(VimDeployError) as caught:
        adjusted(detector, {"boxes": -1.0})
    assert caught.value.code == "VIM-202"


def test_boxes_that_are_off_with_scores_that_agree_are_pointed_out() -> None:
    other = outputs()
    other["boxes"][0, 1, 2] += 4
    boxes = by_name(compare_detections(outputs(), other, LIMITS))["boxes"]
    assert not boxes.passed
    assert boxes.failures[-1].startswith("of 3 boxes 1 are off, with scores that agree")
    other["scores"][0, 1] -= 0.1
    assert len(by_name(compare_detections(outputs(), other, LIMITS))["boxes"].failures) == 1
