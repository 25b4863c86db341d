"""How far apart two outputs are, and whether that is within tolerance.

NaN and Inf are values like others: they must stand in the same places with the same sign, and
then only the finite values are measured. One NaN too many fails, however large the tolerance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vim_deploy.recipe.schema import Tolerances

Array = NDArray[Any]

#: Default tolerances for float32 against float32. The official code differs from itself by up to
#: 1.1e-5 (its own kernels' bodies against its reference functions, feature maps up to 20, logits
#: 5e-6; measured on the reference vectors in tests/data/reference). 1e-4 leaves a factor of nine
#: for other summation orders; the relative part covers outputs far above 1.
FP32_ATOL = 1e-4
FP32_RTOL = 1e-5
TOLERANCE_ORIGIN = (
    "float32 rounding: the official code differs from itself by up to 1.1e-5 absolute; "
    "1e-4 + 1e-5 |reference| allows for other summation orders"
)

#: Relative L2 of half-precision outputs against float32. Every block rounds about seven times; 24
#: blocks with independent errors of one unit roundoff u give sqrt(168) u = 13 u: 6e-3 for float16
#: (u = 2^-11), 5e-2 for bfloat16 (u = 2^-8). Measured on Vim-Ti: 2e-3 and 1.6e-2.
HALF_RELATIVE_L2 = {"fp16": 1e-2, "bf16": 8e-2}
#: The output that KL is taken of (``model.heads``).
LOGITS = "logits"
_HALF_ORIGIN = (
    "rounding of {precision}: about seven roundings a block and 24 blocks, independent, give "
    "13 unit roundoffs; class indices are reported, not limited"
)


@dataclass(frozen=True)
class Tolerance:
    """Limits of a comparison; None leaves a metric unchecked.

    Attributes:
        atol, rtol: |candidate - reference| <= atol + rtol |reference| for every element; atol None
            leaves the elements unchecked.
        relative_l2: largest |candidate - reference| / |reference| of a whole output, as L2 norms.
        same_integers: whether integer outputs (class indices) must be equal in every row.
        cosine: smallest cosine similarity of any row.
        top1_agreement: smallest share of rows whose largest element is at the same place.
        kl: largest KL divergence of any row's softmax, in nats; for logits.
        origin: why these numbers.
    """

    atol: float | None = FP32_ATOL
    rtol: float = FP32_RTOL
    relative_l2: float | None = None
    same_integers: bool = True
    cosine: float | None = None
    top1_agreement: float | None = None
    kl: float | None = None
    origin: str = TOLERANCE_ORIGIN

    def limits(self) -> str:
        """The limits on differences, for a sentence."""
        parts = []
        if self.atol is not None:
            parts.append(f"{self.atol:g} + {self.rtol:g} |reference|")
        if self.relative_l2 is not None:
            parts.append(f"relative L2 {self.relative_l2:g}")
        return ", ".join(parts) or "any difference"


def tolerance_for(precision: str, tolerances: Tolerances | None = None) -> Tolerance:
    """For outputs of a graph of this precision against float32.

    Args:
        precision: ``fp32``, ``fp16`` or ``bf16``.
        tolerances: what a recipe demands of float32 outputs.
    """
    if precision in HALF_RELATIVE_L2:
        return Tolerance(
            atol=None,
            relative_l2=HALF_RELATIVE_L2[precision],
            same_integers=False,
            origin=_HALF_ORIGIN.format(precision=precision),
        )
    return Tolerance() if tolerances is None else Tolerance(**dataclasses.asdict(tolerances))


def adjusted(tolerance: Tolerance, limits: Mapping[str, float]) -> Tolerance:
    """``tolerance`` with the limits that the user set; its origin says so."""
    if not limits:
        return tolerance
    origin = f"{', '.join(limits)} set by the user; else {tolerance.origin}"
    changes: dict[str, Any] = {**limits, "origin": origin}
    return dataclasses.replace(tolerance, **changes)


@dataclass(frozen=True)
class Comparison:
    """Metrics of one output over all rows (images).

    ``max_abs``, ``mean_abs`` and ``relative_l2`` are over finite elements; ``worst`` is the largest
    difference as a multiple of what is allowed, at most 1 when within tolerance. Agreement of top-1
    and top-5 is None where an output has no class axis. ``kl`` is ``largest_kl``, for outputs
    called ``logits``, else None. ``worst_row`` is the row furthest from the reference.
    """

    output: str
    rows: int
    max_abs: float
    mean_abs: float
    relative_l2: float
    cosine: float
    worst: float
    top1_agreement: float | None
    top5_agreement: float | None
    failures: tuple[str, ...]
    kl: float | None = None
    worst_row: int = 0

    @property
    def passed(self) -> bool:
        """Whether every limit is met."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**dataclasses.asdict(self), "passed": self.passed}


def compare(output: str, reference: Array, candidate: Array, tolerance: Tolerance) -> Comparison:
    """Compare two arrays of the same output; the first axis is the batch."""
    if reference.shape != candidate.shape:
        return _incomparable(
            output, len(candidate), f"shape {candidate.shape} instead of {reference.shape}"
        )
    if np.issubdtype(reference.dtype, np.integer):
        return _compare_integers(output, reference, candidate, tolerance.same_integers)
    ref, cand = reference.astype(np.float64), candidate.astype(np.float64)
    finite = np.isfinite(ref)
    if not np.array_equal(finite, np.isfinite(cand)) or not np.array_equal(
        ref[~finite], cand[~finite], equal_nan=True
    ):
        strays = int((~np.isfinite(cand)).sum())
        failed = _incomparable(
            output, len(cand), f"{strays} NaN or Inf not matched by the reference"
        )
        both_nan = np.isnan(ref) & np.isnan(cand)
        unmatched = (~finite | ~np.isfinite(cand)) & (ref != cand) & ~both_nan
        return dataclasses.replace(failed, worst_row=_furthest_row(unmatched))
    kl = largest_kl(ref, cand) if output == LOGITS else None
    difference = np.abs(np.where(finite, cand - np.where(finite, ref, 0), 0))
    ref, cand = np.where(finite, ref, 0), np.where(finite, cand, 0)
    norm, distance = float(np.linalg.norm(ref)), float(np.linalg.norm(difference))
    relative_l2 = distance / norm if norm else distance
    worst = max(_worst_element(difference, ref, tolerance), _times(relative_l2, tolerance))
    cosine = _smallest_cosine(ref, cand)
    top1, top5 = _agreement(ref, cand, 1), _agreement(ref, cand, 5)
    return Comparison(
        output=output,
        rows=len(ref),
        max_abs=_largest(difference),
        mean_abs=float(difference.mean()) if difference.size else 0.0,
        relative_l2=relative_l2,
        cosine=cosine,
        worst=worst,
        top1_agreement=top1,
        top5_agreement=top5,
        failures=_failures(worst, cosine, top1, kl, tolerance),
        kl=kl,
        worst_row=_furthest_row(difference),
    )


def largest_kl(reference: Array, candidate: Array) -> float | None:
    """KL divergence of softmax(candidate) from softmax(reference) in nats, the largest of any row.

    sum_i p_i (log p_i - log q_i) over the last axis, p from the reference (Kullback and Leibler,
    Annals of Mathematical Statistics 22, 1951). A class with the reference's logit -Inf has p_i = 0
    and adds nothing. Rows without a softmax (NaN, +Inf or nothing but -Inf on either side) are
    left out; None when no row is left or there is no axis of classes.
    """
    if reference.ndim < 2 or reference.shape[-1] < 2:
        return None
    rows_p = reference.astype(np.float64).reshape(-1, reference.shape[-1])
    rows_q = candidate.astype(np.float64).reshape(-1, candidate.shape[-1])
    tops = [np.max(rows, axis=1, initial=-np.inf) for rows in (rows_p, rows_q)]
    # NaN and +Inf make the maximum not finite, and so does a row of -Inf.
    usable = np.isfinite(tops[0]) & np.isfinite(tops[1])
    if not usable.any():
        return None
    log_p, log_q = _log_softmax(rows_p[usable]), _log_softmax(rows_q[usable])
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        terms = np.where(p > 0, p * (log_p - log_q), 0.0)
    # Rounding can make a sum of an exact zero slightly negative; Inf is no JSON number.
    largest = float(np.clip(terms.sum(axis=1), 0.0, np.finfo(np.float64).max).max())
    return largest


def _log_softmax(rows: Array) -> Array:
    shifted = rows - rows.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _furthest_row(difference: Array) -> int:
    """The row (image) with the largest sum of squares; 0 when there is nothing."""
    rows = np.asarray(difference, dtype=np.float64).reshape(len(difference), -1)
    return int(np.square(rows).sum(axis=1).argmax()) if rows.size else 0


def _worst_element(difference: Array, reference: Array, tolerance: Tolerance) -> float:
    """The largest difference of an element, as a multiple of what it may be."""
    if tolerance.atol is None:
        return 0.0
    allowed = tolerance.atol + tolerance.rtol * np.abs(reference)
    return _largest(np.divide(difference, allowed, out=_unmet(difference), where=allowed > 0))


def _times(relative_l2: float, tolerance: Tolerance) -> float:
    """The relative L2 distance as a multiple of what it may be."""
    if tolerance.relative_l2 is None or relative_l2 == 0:
        return 0.0
    limit = tolerance.relative_l2
    return relative_l2 / limit if limit else float(np.finfo(np.float64).max)


def _largest(values: Array) -> float:
    return float(values.max()) if values.size else 0.0


def _unmet(difference: Array) -> Array:
    """Ratio where nothing is allowed: 0 for an exact match, else beyond any limit."""
    return np.where(difference > 0, np.finfo(np.float64).max, 0.0)


def _failures(
    worst: float, cosine: float, top1: float | None, kl: float | None, tolerance: Tolerance
) -> tuple[str, ...]:
    failures = []
    if worst > 1:
        failures.append(f"largest difference is {worst:.3g} times what is allowed")
    if tolerance.cosine is not None and cosine < tolerance.cosine:
        failures.append(f"cosine {cosine:.6f} is below {tolerance.cosine}")
    if tolerance.top1_agreement is not None:
        if top1 is None:
            failures.append("top-1 agreement was asked for, but this output has no classes")
        elif top1 < tolerance.top1_agreement:
            failures.append(f"top-1 agreement {top1:.4f} is below {tolerance.top1_agreement}")
    if tolerance.kl is not None:
        if kl is None:
            failures.append("a limit of KL was set, but this output has no logits to take it of")
        elif kl > tolerance.kl:
            failures.append(f"KL {kl:.3g} is above {tolerance.kl:g}")
    return tuple(failures)


def _incomparable(output: str, rows: int, failure: str) -> Comparison:
    largest = float(np.finfo(np.float64).max)
    return Comparison(
        output, rows, largest, largest, largest, -1.0, largest, None, None, (failure,)
    )


def _compare_integers(
    output: str, reference: Array, candidate: Array, must_agree: bool
) -> Comparison:
    """Class indices: the share of equal rows."""
    same = (reference == candidate).reshape(len(reference), -1)
    share = float(same.all(axis=1).mean())
    difference = np.abs(reference.astype(np.int64) - candidate.astype(np.int64))
    failed = must_agree and share < 1
    failures = (f"{(1 - share) * len(same):.0f} rows differ",) if failed else ()
    return Comparison(
        output=output,
        rows=len(reference),
        max_abs=_largest(difference),
        mean_abs=float(difference.mean()),
        relative_l2=0.0 if share == 1 else 1.0,
        cosine=1.0 if share == 1 else 0.0,
        worst=float(np.finfo(np.float64).max) if failed else 0.0,
        top1_agreement=float(same[:, 0].mean()),
        top5_agreement=None,
        failures=failures,
        worst_row=_furthest_row(~same),
    )


def _smallest_cosine(ref: Array, cand: Array) -> float:
    """Over rows; 1 where both are zero, 0 where only one is."""
    a, b = ref.reshape(len(ref), -1), cand.reshape(len(cand), -1)
    dots = np.einsum("ij,ij->i", a, b)
    norms: Array = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
    both_zero = np.asarray(~a.any(axis=1) & ~b.any(axis=1))
    cosines = np.divide(dots, norms, out=both_zero.astype(np.float64), where=norms > 0)
    return float(min(cosines.min(initial=1.0), 1.0))


def _agreement(ref: Array, cand: Array, count: int) -> float | None:
    """Share of rows whose ``count`` largest elements are the same set."""
    if ref.ndim < 2 or ref.shape[-1] <= count:
        return None
    a, b = ref.reshape(-1, ref.shape[-1]), cand.reshape(-1, cand.shape[-1])
    best_a = np.sort(np.argsort(-a, axis=1, kind="stable")[:, :count], axis=1)
    best_b = np.sort(np.argsort(-b, axis=1, kind="stable")[:, :count], axis=1)
    return float((best_a == best_b).all(axis=1).mean())
