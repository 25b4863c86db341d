"""Metrics on arrays whose answers can be worked out by hand."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from vim_deploy.codec import encode
from vim_deploy.parity.comparison import Comparison
from vim_deploy.parity.distances import largest_kl
from vim_deploy.parity.metrics import (
    Tolerance,
    adjusted,
    compare,
    tolerance_for,
)
from vim_deploy.recipe.schema import Tolerances

EXACT = Tolerance(atol=0, rtol=0)


def compared(reference: object, candidate: object, tolerance: Tolerance = EXACT) -> Comparison:
    return compare("logits", np.array(reference), np.array(candidate), tolerance)


def test_equal_arrays_pass_exactly() -> None:
    result = compared([[1.0, 2.0], [0.0, 0.0]], [[1.0, 2.0], [0.0, 0.0]])
    assert result.passed
    assert (result.max_abs, result.relative_l2, result.cosine) == (0, 0, 1)
    assert result.top1_agreement == 1


def test_values_by_hand() -> None:
    result = compared([[3.0, 4.0]], [[3.0, 4.5]], Tolerance(atol=1, rtol=0))
    assert result.max_abs == 0.5
    assert result.mean_abs == 0.25
    assert result.relative_l2 == pytest.approx(0.1)
    assert result.cosine == pytest.approx((9 + 18) / (5 * np.hypot(3, 4.5)))
    assert result.worst == 0.5
    assert result.passed


def test_relative_part_of_the_tolerance() -> None:
    # Allowed: 0.5 + 0.1 * 10 = 1.5.
    assert compared([[10.0]], [[11.4]], Tolerance(atol=0.5, rtol=0.1)).passed
    assert not compared([[10.0]], [[11.6]], Tolerance(atol=0.5, rtol=0.1)).passed


def test_any_difference_fails_when_nothing_is_allowed() -> None:
    assert not compared([[1.0, 0.0]], [[1.0, 1e-12]]).passed


@pytest.mark.parametrize("stray", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, "bfloat16"])
def test_nan_and_inf_agree_with_nothing_not_even_themselves(stray: float, dtype: Any) -> None:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    values = np.array([[1.0, 2.0], [stray, 1.0]]).astype(kind)
    for tolerance in (Tolerance(), tolerance_for("fp16")):
        found = compare("logits", values, values, tolerance)
        assert not found.passed
        assert "1 of 4 values of it are NaN or Inf" in found.failures[0]
        assert "1 of 4 values of the reference" in found.failures[0]
        assert found.worst_row == 1
        json.dumps(encode(found), allow_nan=False)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_nothing_compared_is_no_agreement(shape: tuple[int, int], dtype: Any) -> None:
    found = compare("logits", np.zeros(shape, dtype), np.zeros(shape, dtype), Tolerance())
    assert "nothing was compared" in found.failures[0]


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (np.zeros((2, 3), np.int64), np.full((2, 3), np.nan, np.float32)),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int64)),
        (np.zeros((2, 3), np.complex64), np.zeros((2, 3), np.complex64)),
        (np.array([["a"]]), np.array([["a"]])),
        (np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32)),
        (np.zeros((2, 3), np.float32), np.float32(0)),
    ],
)
def test_other_kinds_and_shapes_are_not_compared(reference: Any, candidate: Any) -> None:
    found = compare("logits", reference, np.asarray(candidate), tolerance_for("fp16"))
    assert not found.passed
    assert "instead of" in found.failures[0]


@pytest.mark.parametrize("size", [1e154, 1e200, 1e308])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_distance_beyond_float64_is_no_agreement(size: float, precision: str) -> None:
    values = np.array([[size, -size, 1.0]])
    assert not compare("features", values, -values, tolerance_for(precision)).passed


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        ([[1.0, 2.0]], [[1.0, np.nan]]),
        ([[1.0, np.nan]], [[1.0, 2.0]]),
        ([[1.0, np.inf]], [[1.0, -np.inf]]),
        ([[1.0, np.inf]], [[1.0, np.nan]]),
    ],
)
def test_stray_nan_or_inf_fails_whatever_the_tolerance(
    reference: object, candidate: object
) -> None:
    result = compared(reference, candidate, Tolerance(atol=65504, rtol=1))
    assert not result.passed
    assert "NaN or Inf" in result.failures[0]


def test_other_shape_fails() -> None:
    assert not compared([[1.0, 2.0]], [[1.0, 2.0, 3.0]], Tolerance(atol=65504)).passed


def test_cosine_is_the_worst_row() -> None:
    result = compared([[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], Tolerance(atol=9))
    assert result.cosine == pytest.approx(0)
    assert not compared([[1.0, 0.0]], [[0.0, 1.0]], Tolerance(atol=9, cosine=0.5)).passed


def test_cosine_of_zero_rows() -> None:
    assert compared([[0.0, 0.0]], [[0.0, 0.0]]).cosine == 1
    assert compared([[0.0, 0.0]], [[1.0, 0.0]], Tolerance(atol=9)).cosine == 0


def test_top_agreement() -> None:
    reference = np.eye(8)[[0, 1, 2, 3]]
    candidate = np.eye(8)[[0, 1, 2, 4]]
    result = compared(reference, candidate, Tolerance(atol=9, top1_agreement=0.8))
    assert result.top1_agreement == 0.75
    assert not result.passed
    assert compared(reference, candidate, Tolerance(atol=9, top1_agreement=0.75)).passed


def test_top5_ignores_the_order_of_the_five() -> None:
    reference = np.arange(8.0)[None]
    candidate = reference[:, ::-1].copy()
    swapped = reference.copy()
    swapped[0, [6, 7]] = swapped[0, [7, 6]]
    assert compared(reference, swapped, Tolerance(atol=9)).top5_agreement == 1
    assert compared(reference, swapped, Tolerance(atol=9)).top1_agreement == 0
    assert compared(reference, candidate, Tolerance(atol=9)).top5_agreement == 0


def test_agreement_without_classes() -> None:
    assert compared([1.0, 2.0], [1.0, 2.0]).top1_agreement is None
    assert not compared([1.0, 2.0], [1.0, 2.0], Tolerance(atol=0, top1_agreement=0.5)).passed


def test_integers_have_no_tolerance() -> None:
    assert compared([[1, 2]], [[1, 2]], Tolerance(atol=9)).passed
    result = compared([[1, 2], [3, 4]], [[1, 2], [3, 5]], Tolerance(atol=9))
    assert not result.passed
    assert result.failures == ("1 rows differ",)


@pytest.mark.parametrize(("size", "passes"), [(1.009, True), (1.011, False)])
def test_relative_l2_limits_a_whole_output(size: float, passes: bool) -> None:
    half = tolerance_for("fp16")
    result = compared([[3.0, 4.0]], [[3.0 * size, 4.0 * size]], half)
    assert result.passed == passes
    assert result.worst == pytest.approx((size - 1) / 1e-2)
    assert half.limits() == "relative L2 0.01"


def test_half_precision_reports_other_classes_and_fails_on_nan() -> None:
    indices = compared([[1, 2]], [[1, 3]], tolerance_for("bf16"))
    assert indices.passed
    assert indices.relative_l2 == 1
    assert not compared([[1.0]], [[np.nan]], tolerance_for("bf16")).passed


def test_a_recipe_decides_for_float32_only() -> None:
    strict = Tolerances(atol=1e-6, rtol=0.0, cosine=1.0, top1_agreement=1.0, origin="here")
    assert tolerance_for("fp32", strict).atol == 1e-6
    assert tolerance_for("fp16", strict) == tolerance_for("fp16")
    assert tolerance_for("fp32") == Tolerance()


def test_tolerance_says_what_the_user_set() -> None:
    assert adjusted(Tolerance(), {}) == Tolerance()
    changed = adjusted(Tolerance(), {"atol": 1e-3, "cosine": 0.9})
    assert (changed.atol, changed.cosine) == (1e-3, 0.9)
    assert changed.origin.startswith("atol, cosine set by the user")


def test_json_has_no_infinity() -> None:
    import json

    json.dumps(encode(compared([[1.0]], [[np.nan]])), allow_nan=False)


def test_kl_against_a_plain_sum() -> None:
    ref, cand = np.random.default_rng(0).standard_normal((2, 5, 9))
    p = np.exp(ref) / np.exp(ref).sum(axis=1, keepdims=True)
    q = np.exp(cand) / np.exp(cand).sum(axis=1, keepdims=True)
    expected = (p * np.log(p / q)).sum(axis=1).max()
    assert largest_kl(ref, cand) == pytest.approx(expected, rel=1e-12)
    assert largest_kl(ref, ref + 7) == pytest.approx(0, abs=1e-12)


def test_kl_of_large_logits_does_not_overflow() -> None:
    assert largest_kl(np.array([[1e4, 0.0]]), np.array([[1e4, 1.0]])) == 0
    value = largest_kl(np.array([[1e4, 0.0]]), np.array([[0.0, 1e4]]))
    assert value == pytest.approx(1e4)


def test_kl_with_infinite_logits() -> None:
    inf, nan = np.inf, np.nan
    # A class that the reference rules out adds nothing.
    assert largest_kl(np.array([[0.0, 0, -inf]]), np.array([[0.0, 0, -inf]])) == pytest.approx(0)
    # A class that only the candidate rules out is infinitely far: the largest number.
    assert largest_kl(np.zeros((1, 2)), np.array([[0.0, -inf]])) == np.finfo(np.float64).max
    # Rows without a softmax are left out.
    rows = np.array([[nan, 1.0], [inf, 1.0], [-inf, -inf], [0.0, 1.0]])
    assert largest_kl(rows, rows) == 0
    assert largest_kl(rows[:3], rows[:3]) is None
    assert largest_kl(np.zeros(3), np.zeros(3)) is None


def test_kl_is_taken_of_logits_and_can_be_limited() -> None:
    ref, cand = np.eye(3), 2 * np.eye(3)
    loose = Tolerance(atol=None)
    found = compare("logits", ref, cand, loose)
    assert found.kl is not None
    assert found.passed
    assert compare("features", ref, cand, loose).kl is None
    strict = dataclasses.replace(loose, kl=found.kl / 2)
    assert "KL" in compare("logits", ref, cand, strict).failures[0]
    assert "no logits" in compare("features", ref, cand, strict).failures[0]
    assert compare("logits", ref, cand, dataclasses.replace(loose, kl=found.kl)).passed


def test_worst_row() -> None:
    ref = np.zeros((4, 3))
    cand = ref.copy()
    cand[2, 1] = 0.5
    assert compare("logits", ref, cand, Tolerance()).worst_row == 2
    cand[3, 0] = np.nan
    found = compare("logits", ref, cand, Tolerance())
    assert not found.passed
    assert found.worst_row == 3
    classes = np.array([[1], [2], [3]])
    assert compare("classes", classes, np.array([[1], [9], [3]]), Tolerance()).worst_row == 1
