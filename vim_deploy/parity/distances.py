"""Distances and agreement of two float outputs, added up over rows so that memory stays small."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vim_deploy.parity.classes import largest_kl, same_best

Array = NDArray[Any]

#: Elements that are measured at once, in float64: what is kept small is memory.
_CHUNK = 1 << 22


def chunks(values: Array) -> Iterator[slice]:
    """Rows that are measured together: one at least."""
    rows = max(_CHUNK * len(values) // max(values.size, 1), 1)
    return (slice(start, start + rows) for start in range(0, len(values), rows))


@dataclass
class Distances:
    """What the rows seen so far add up to.

    Attributes:
        axis: of the classes; None without any.
        with_kl: whether they are logits.
        atol, rtol: limits of the elements, as of ``metrics.Tolerance``.
        row_squares: sum of the squared differences of every row.
    """

    axis: int | None
    with_kl: bool
    atol: float | None
    rtol: float
    max_abs: float = 0.0
    sum_abs: float = 0.0
    sum_squares: float = 0.0
    worst: float = 0.0
    cosine: float = 1.0
    kl: float | None = None
    row_squares: list[float] = field(default_factory=list)
    _first: list[tuple[Array, Array]] = field(default_factory=list)
    _same_five: list[Array] = field(default_factory=list)

    def add(self, reference: Array, candidate: Array) -> None:
        """Rows that are finite on both sides.

        What float64 cannot say (squares of numbers beyond 1e154) becomes Inf or NaN, and stays so.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            self._add(reference, candidate)

    def _add(self, reference: Array, candidate: Array) -> None:
        ref, cand = reference.astype(np.float64), candidate.astype(np.float64)
        if self.with_kl and self.axis is not None:
            found = (self.kl, largest_kl(ref, cand, self.axis))
            self.kl = max((value for value in found if value is not None), default=None)
        if self.axis is not None:
            self._first.append((ref.argmax(axis=self.axis), cand.argmax(axis=self.axis)))
            five = same_best(ref, cand, 5, self.axis)
            self._same_five += [] if five is None else [five]
        difference = np.abs(cand - ref)
        self.max_abs = float(np.maximum(self.max_abs, largest(difference)))
        self.sum_abs += float(difference.sum())
        self.sum_squares += float(np.square(ref).sum())
        element = _worst_element(difference, ref, self.atol, self.rtol)
        self.worst = float(np.maximum(self.worst, element))
        self.cosine = float(np.minimum(self.cosine, _smallest_cosine(ref, cand)))
        self.row_squares += np.square(difference).reshape(len(ref), -1).sum(axis=1).tolist()

    @property
    def relative_l2(self) -> float:
        """|candidate - reference| / |reference|, or the former where the latter is zero."""
        # ``math.fsum`` would raise where this becomes Inf.
        norm, distance = math.sqrt(self.sum_squares), math.sqrt(sum(self.row_squares))
        return distance / norm if norm else distance

    def labels(self) -> tuple[Array, Array]:
        """The first class of every row or pixel, on each side."""
        reference, candidate = zip(*self._first, strict=True)
        return np.concatenate(reference), np.concatenate(candidate)

    def agreement(self) -> tuple[float | None, float | None]:
        """Share of rows or pixels with the same first class, and with the same first five."""
        if not self._first:
            return None, None
        reference, candidate = self.labels()
        five = float(np.concatenate(self._same_five).mean()) if self._same_five else None
        return float((reference == candidate).mean()), five


def _worst_element(difference: Array, reference: Array, atol: float | None, rtol: float) -> float:
    """The largest difference of an element, as a multiple of what it may be."""
    if atol is None:
        return 0.0
    allowed = atol + rtol * np.abs(reference)
    return largest(np.divide(difference, allowed, out=_unmet(difference), where=allowed > 0))


def largest(values: Array) -> float:
    """The maximum; 0 of nothing."""
    return float(values.max()) if values.size else 0.0


def _unmet(difference: Array) -> Array:
    """Ratio where nothing is allowed: 0 for an exact match, else beyond any limit."""
    return np.where(difference > 0, np.finfo(np.float64).max, 0.0)


def _smallest_cosine(ref: Array, cand: Array) -> float:
    """Over rows; 1 where both are zero, 0 where only one is."""
    a, b = ref.reshape(len(ref), -1), cand.reshape(len(cand), -1)
    dots = np.einsum("ij,ij->i", a, b)
    norms: Array = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
    both_zero = np.asarray(~a.any(axis=1) & ~b.any(axis=1))
    cosines = np.divide(dots, norms, out=both_zero.astype(np.float64), where=norms > 0)
    # NumPy's minimum keeps NaN, which Python's loses.
    return float(cosines.min(initial=1.0))
