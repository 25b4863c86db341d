"""Metrics where every pixel has a class, and of outputs that have none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vim_deploy.codec import encode
from vim_deploy.parity import distances
from vim_deploy.parity.comparison import Comparison
from vim_deploy.parity.distances import class_axis, largest_kl, mean_iou, same_best
from vim_deploy.parity.limits import LABEL_AGREEMENT
from vim_deploy.parity.metrics import (
    Tolerance,
    adjusted,
    compare,
    tolerance_for,
)
from vim_deploy.recipe.schema import Tolerances

LOOSE = Tolerance(atol=None, label_agreement=None)
#: Two pictures of 2x2 pixels; the candidate gives another class to one pixel of the second.
LABELS = np.array([[[0, 0], [1, 1]], [[2, 2], [0, 1]]])
OTHER = np.array([[[0, 0], [1, 1]], [[2, 2], [0, 0]]])
#: Pixels of class 0, 1, 2: 3, 3, 2 against 4, 2, 2; both: 3, 2, 2.
IOU = (3 / 4 + 2 / 3 + 2 / 2) / 3


def scores(labels: np.ndarray, count: int = 7) -> np.ndarray:
    """Logits [B, classes, H, W] of which ``labels`` are the largest."""
    return np.moveaxis(np.eye(count, dtype=np.float32)[labels], -1, 1).copy()


@pytest.mark.parametrize(
    ("output", "shape", "axis"),
    [
        ("logits", (2, 7), 1),
        ("logits", (2, 5, 7), 2),
        ("logits", (2, 7, 4, 4), 1),
        ("aux_logits", (2, 7, 4, 4), 1),
        ("probabilities", (2, 7), 1),
        ("output of a file of the user", (2, 7), 1),
        ("logits", (2, 1), None),
        ("logits", (2,), None),
        ("features", (2, 48), None),
        ("tokens", (2, 17, 48), None),
        ("feature_0", (2, 48, 16, 16), None),
        ("p2", (2, 32, 16, 16), None),
        ("map of a file of the user", (2, 32, 16, 16), None),
    ],
)
def test_where_the_classes_are(output: str, shape: tuple[int, ...], axis: int | None) -> None:
    assert class_axis(output, shape) == axis
    values = np.random.default_rng(0).standard_normal(shape)
    assert (compare(output, values, values, LOOSE).top1_agreement is None) == (axis is None)


@pytest.mark.parametrize("output", ["logits", "aux_logits"])
def test_agreement_of_logits_is_a_share_of_pixels(output: str) -> None:
    found = compare(output, scores(LABELS), scores(OTHER), LOOSE)
    assert found.top1_agreement == 7 / 8
    assert found.mean_iou == pytest.approx(IOU)
    assert found.worst_row == 1
    assert found.kl is not None
    assert found.kl > 0
    strict = compare(output, scores(LABELS), scores(OTHER), Tolerance(None, top1_agreement=0.9))
    assert strict.failures == ("pixel agreement 0.875 is below 0.9",)


def test_label_maps_agree_by_pixels() -> None:
    found = compare("labels", LABELS, OTHER, LOOSE)
    assert (found.top1_agreement, found.indices, found.passed) == (7 / 8, True, True)
    assert found.mean_iou == pytest.approx(IOU)
    assert found.worst_row == 1
    # The same labels, however they come: as maps or as the largest of the logits.
    assert found.mean_iou == compare("logits", scores(LABELS), scores(OTHER), LOOSE).mean_iou
    assert found.in_words == "the same class at 87.50 % of the pixels (mean IoU 80.56 %)"
    assert "largest difference 1 " in compare("x", scores(LABELS), scores(OTHER), LOOSE).in_words
    equal = compare("labels", LABELS, LABELS, Tolerance())
    assert (equal.top1_agreement, equal.mean_iou, equal.worst) == (1, 1, 0)


def test_mean_iou_takes_classes_of_either_side() -> None:
    assert mean_iou(np.array([0, 0]), np.array([0, 0])) == 1
    # Class 0: one of two; class 5 only the candidate has: 0.
    assert mean_iou(np.array([0, 0]), np.array([0, 5])) == pytest.approx(0.25)
    assert mean_iou(np.array([[255]]), np.array([[-1]])) == 0
    assert mean_iou(np.zeros((0, 2, 2), int), np.zeros((0, 2, 2), int)) is None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_label_maps_have_a_limit_of_their_precision(precision: str) -> None:
    limit = {"fp32": 0.9998, "fp16": 0.98, "bf16": 0.84}[precision]
    assert LABEL_AGREEMENT[precision] == limit
    tolerance = tolerance_for(precision)
    pixels = np.zeros((1, 100, 100), np.int64)
    allowed = round((1 - limit) * pixels.size)
    for changed, passes in ((allowed, True), (allowed + 1, False)):
        other = pixels.copy()
        other.reshape(-1)[:changed] = 3
        found = compare("labels", pixels, other, tolerance)
        assert found.passed == passes
        assert found.worst == pytest.approx(changed / allowed)
    assert "pixel agreement" in found.explained(tolerance.limits())
    assert "relative L2" not in found.explained(tolerance.limits())


def test_the_user_s_limit_replaces_that_of_label_maps() -> None:
    exact = adjusted(tolerance_for("fp16"), {"top1_agreement": 1.0})
    found = compare("labels", LABELS, OTHER, exact)
    assert found.failures == ("pixel agreement 0.875 is below 1",)
    assert found.worst > 1e300
    assert compare("labels", LABELS, OTHER, adjusted(Tolerance(), {"top1_agreement": 0.8})).passed


def test_a_limit_of_kl_needs_logits() -> None:
    limited = dataclasses.replace(LOOSE, kl=1.0)
    assert "no logits" in compare("labels", LABELS, LABELS, limited).failures[0]
    maps = np.ones((1, 2, 3, 3))
    assert "no logits" in compare("feature_0", maps, maps, limited).failures[0]


def test_a_recipe_s_agreement_is_for_outputs_with_classes() -> None:
    demanded = Tolerances(atol=1e-4, rtol=0, cosine=0.9, top1_agreement=0.999, origin="here")
    tolerance = tolerance_for("fp32", demanded)
    maps = np.ones((1, 2, 3, 3))
    assert compare("feature_0", maps, maps, tolerance).passed
    assert tolerance.label_agreement == 0.999
    assert not compare("logits", scores(LABELS), scores(OTHER), tolerance).passed
    # Asked for by the user, it is not passed over.
    asked = adjusted(tolerance, {"top1_agreement": 0.5})
    assert "no classes" in compare("feature_0", maps, maps, asked).failures[0]
    none = dataclasses.replace(demanded, top1_agreement=None)
    assert tolerance_for("fp32", none).label_agreement == LABEL_AGREEMENT["fp32"]


def test_agreement_of_ranked_classes_can_be_limited() -> None:
    half = adjusted(tolerance_for("fp16"), {"top1_agreement": 0.9})
    found = compare("classes", np.array([[1, 2], [3, 4]]), np.array([[1, 2], [4, 3]]), half)
    assert found.failures == ("top-1 agreement 0.5 is below 0.9",)


def _measured() -> Comparison:
    reference, candidate = np.random.default_rng(3).standard_normal((2, 3, 8, 5, 4))
    return compare("logits", reference, candidate, Tolerance(atol=1))


def test_how_much_is_measured_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = _measured()
    monkeypatch.setattr(distances, "_CHUNK", 1)
    monkeypatch.setattr(distances, "_KL_SCORES", 1)
    in_parts = encode(_measured())
    for name, value in encode(whole).items():
        found = in_parts[name]
        assert found == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value)
    assert whole.top5_agreement is not None


def test_best_five_of_pixels_and_of_rows_are_counted_alike() -> None:
    reference, candidate = np.random.default_rng(4).standard_normal((2, 3, 8, 5, 4))
    pixels = same_best(reference, candidate, 5, 1)
    rows = [np.moveaxis(side, 1, -1).reshape(-1, 8) for side in (reference, candidate)]
    wanted = [
        set(np.argsort(-a)[:5]) == set(np.argsort(-b)[:5]) for a, b in zip(*rows, strict=True)
    ]
    assert pixels is not None
    np.testing.assert_array_equal(pixels.reshape(-1), wanted)
    assert same_best(reference[:, :5], candidate[:, :5], 5, 1) is None
    assert largest_kl(reference, candidate, 1) == largest_kl(*rows)


def test_stray_nan_in_logits_of_pixels() -> None:
    wrong = scores(LABELS)
    wrong[1, 0, 0, 0] = np.nan
    found = compare("logits", scores(LABELS), wrong, Tolerance(atol=65504))
    assert "NaN" in found.failures[0]
    assert (found.worst_row, found.mean_iou) == (1, None)
