"""Average precision by pycocotools: of known detections, resampled, and against a reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.parity.test_detections import CLASSES, SCORES, Outputs, outputs
from vim_deploy.installation import extra_command
from vim_deploy.parity.average_precision import (
    BOXES,
    MASKS,
    ParityPrecision,
    box_entry,
    evaluate,
    loss_interval,
    mask_entry,
    resampled,
)
from vim_deploy.parity.cases import Case

pytest.importorskip("pycocotools")

SIDE = 100


def entry(picture: int, category: int, box: list[float], score: float = 1.0) -> dict[str, Any]:
    where = {"image_id": picture, "category_id": category, "score": score}
    return {**where, **box_entry(np.array(box, np.float64))}


def pictures(count: int) -> list[dict[str, int]]:
    return [{"id": number, "height": SIDE, "width": SIDE} for number in range(1, count + 1)]


def test_half_of_the_objects_and_a_false_one_before_them() -> None:
    truth = [entry(1, 1, [0, 0, 10, 10]), entry(2, 1, [50, 50, 70, 70])]
    found = [entry(1, 1, [0, 0, 10, 10], 0.8), entry(1, 1, [80, 80, 99, 99], 0.9)]
    # Precision 1/2 up to a recall of 1/2, 51 of the 101 recalls.
    result = evaluate(pictures(2), truth, found, [1], BOXES)
    assert result.ap == pytest.approx(0.5 * 51 / 101)
    # An IoU of 0.81 counts at 0.5 to 0.8: seven thresholds of ten.
    found = [entry(1, 1, [0, 0, 9, 9], 0.5), entry(2, 1, [50, 50, 70, 70])]
    result = evaluate(pictures(2), truth, found, [1, 2], BOXES)
    assert result.ap == pytest.approx((7 + 3 * 51 / 101) / 10)
    assert (result.ap_50, result.ap_75) == pytest.approx((1, 1))
    assert evaluate(pictures(2), [], found, [1], BOXES).ap is None


def test_resampling_is_coco_s_own_figure_with_weights() -> None:
    random = np.random.default_rng(3)
    count = 12

    def some(most: int, noise: float) -> list[dict[str, Any]]:
        corners = np.random.default_rng(5).uniform(0, 60, (count, most, 2))
        sizes = np.random.default_rng(6).uniform(10, 40, (count, most, 2))
        boxes = np.concatenate([corners, corners + sizes], axis=2)
        boxes = boxes + noise * random.standard_normal(boxes.shape)
        return [
            entry(picture + 1, place % 3 + 1, box.tolist(), float(random.random()))
            for picture in range(count)
            for place, box in enumerate(boxes[picture])
        ]

    truth = some(6, 0.0)
    truth[0]["iscrowd"] = 1
    good, bad = (
        evaluate(pictures(count), truth, some(6, noise), [1, 2, 3], BOXES) for noise in (0.5, 6.0)
    )
    for side in (good, bad):
        assert resampled(side, np.ones(count)) == pytest.approx(side.ap, abs=1e-9)
        assert resampled(side, 2.0 * np.ones(count)) == pytest.approx(side.ap, abs=1e-9)
    assert good.ap is not None
    assert bad.ap is not None
    low, high = loss_interval(good, bad, count)
    assert 0 < low < good.ap - bad.ap < high
    assert loss_interval(good, good, count) == (0, 0)


def test_masks_are_compared_where_they_lie() -> None:
    box = np.array([10, 10, 40, 30], np.float32)
    whole = mask_entry(np.ones((28, 28), np.float32), box, (SIDE, SIDE))
    left = np.ones((28, 28), np.float32)
    left[:, 14:] = 0
    half = mask_entry(left, box, (SIDE, SIDE))
    assert whole is not None
    assert half is not None
    assert whole["area"] == 600
    assert half["area"] == 300
    assert mask_entry(np.zeros((28, 28), np.float32), box, (SIDE, SIDE)) is None
    where = {"image_id": 1, "category_id": 1, "score": 0.5}
    same = evaluate(pictures(1), [{**where, **whole}], [{**where, **whole}], [1], MASKS)
    assert same.ap == pytest.approx(1)
    # An IoU of a half is right at the first threshold alone.
    other = evaluate(pictures(1), [{**where, **whole}], [{**where, **half}], [1], MASKS)
    assert other.ap == pytest.approx(0.1)


def case(pictures_: bool = True) -> Case:
    return Case("c", np.zeros((1, 1)), sizes=np.array([[SIDE, SIDE]]), pictures=pictures_)


def parity(reference: Outputs, candidate: Outputs, pictures_: bool = True) -> ParityPrecision:
    collected = ParityPrecision()
    collected.add(case(pictures_), reference, candidate)
    return collected


def test_against_a_reference() -> None:
    masks = np.ones((1, 4, 28, 28), np.float32)
    # The third has a mask without a pixel, which is in nobody's truth.
    masks[0, 2] = 0.1
    reference = {**outputs(), "masks": masks}
    same = parity(reference, reference).result()
    assert same is not None
    assert (same.detections, same.pictures) == (3, 1)
    assert (same.boxes, same.masks) == pytest.approx((1, 1))
    boxes = [[10, 10, 30, 40], [0, 0, 5, 5], [10, 10, 30, 41]]
    other = parity(reference, {**outputs(boxes, SCORES, CLASSES), "masks": masks}).result()
    assert other is not None
    # One of the two of the first class is found, before the false one.
    assert other.boxes == pytest.approx((51 / 101 + 1) / 2)
    assert other.masks == pytest.approx(51 / 101)


def test_without_pictures_or_detections_there_is_none() -> None:
    nothing = outputs([], [], [])
    assert parity(outputs(), outputs(), False).result() is None
    assert parity(nothing, outputs()).result() is None
    assert parity(nothing, nothing).notes == ()


def test_without_pycocotools_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vim_deploy.parity.average_precision.is_installed", lambda: False)
    collected = parity(outputs(), outputs())
    assert collected.result() is None
    assert extra_command("coco") in collected.notes[0]
