"""Comparison part by part: what is first, what is missing, and NaN."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vim_deploy.codec import encode
from vim_deploy.parity.blocks import compare_parts, part_limit
from vim_deploy.places import BEFORE_BLOCKS, BEHIND_BLOCKS, Place, place

Values = dict[Place, np.ndarray]
PLACES = (
    place(BEFORE_BLOCKS, "tokens"),
    place(0, "norm"),
    place(0, "scan", "fwd"),
    place(0, "scan", "bwd"),
    place(0, "out_proj"),
    place(1, "residual"),
    place(1, "out_proj"),
    place(BEHIND_BLOCKS, "head"),
)


def values(**factors: float) -> Values:
    """Ones at every place, times a factor at those named by their number."""
    return {
        where: np.full((1, 3), factors.get(f"p{number}", 1.0), dtype=np.float32)
        for number, where in enumerate(PLACES)
    }


def test_places_sort_in_order_of_computation() -> None:
    assert sorted(set(PLACES)) == list(PLACES)
    assert [str(where) for where in PLACES[2:4]] == ["block 0 scan fwd", "block 0 scan bwd"]
    assert str(PLACES[0]) == "tokens"
    with pytest.raises(ValueError, match="not in tuple"):
        place(0, "scan")


def test_first_part_beyond_the_limit() -> None:
    report = compare_parts(values(), values(p2=1.00001, p3=1.5, p4=2, p6=3), 1e-4, False)
    assert report.first is not None
    assert str(report.first.place) == "block 0 scan bwd"
    assert report.first.place.role == "scan"
    assert report.first.relative_l2 == pytest.approx(0.5)
    assert "block 0 scan bwd" in report.verdict
    assert report.rise is not None
    assert str(report.rise.place) == "block 1 out_proj"
    assert report.growth("out_proj") == [(0, pytest.approx(1)), (1, pytest.approx(2))]
    assert not report.passed


def test_outputs_beyond_theirs_with_every_part_within() -> None:
    report = compare_parts(values(), values(p5=1.00005), 1e-4, outputs_passed=False)
    assert report.first is None
    assert not report.passed
    assert "rises most at block 1 residual" in report.verdict
    assert compare_parts(values(), values(p5=1.00005), 1e-4, outputs_passed=True).passed


def test_nothing_in_common_is_not_a_pass() -> None:
    report = compare_parts(values(), {}, 1e-4, outputs_passed=True)
    assert not report.passed
    assert len(report.missing) == len(PLACES)


@pytest.mark.parametrize("stray", [np.nan, np.inf])
def test_nan_and_inf_are_beyond_any_limit(stray: float) -> None:
    wrong = values()
    wrong[PLACES[4]][0, 1] = stray
    report = compare_parts(values(), wrong, 1e-4, outputs_passed=False)
    assert report.first is not None
    assert report.first.place == PLACES[4]
    # In either direction: a reference with Inf and a candidate without is no match.
    assert compare_parts(wrong, values(), 1e-4, True).first is not None
    # Nor do they agree with themselves.
    assert compare_parts(wrong, wrong, 1e-4, True).first is not None
    stored = json.loads(json.dumps(encode(report), allow_nan=False))
    assert stored["first"]["place"] == "block 0 out_proj"


def test_another_shape_is_beyond_any_limit() -> None:
    wrong = values()
    wrong[PLACES[1]] = np.ones((1, 4), dtype=np.float32)
    report = compare_parts(values(), wrong, 1e9, outputs_passed=True)
    assert report.first is not None
    assert report.first.place == PLACES[1]


def test_json_form() -> None:
    stored = encode(compare_parts(values(), values(p3=2), 1e-4, False, "image 0"))
    assert (stored["passed"], stored["limit"], stored["images"]) == (False, 1e-4, "image 0")
    assert stored["first"]["block"] == 0
    assert stored["first"]["direction"] == "bwd"
    assert [stored["parts"][number]["block"] for number in (0, -1)] == [-1, 10_000]
    assert [entry["block"] for entry in stored["growth"]["residual"]] == [1]


def test_limits_by_precision() -> None:
    assert part_limit("fp32") < part_limit("fp16") < part_limit("bf16")
