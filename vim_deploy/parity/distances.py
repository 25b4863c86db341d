"""Distances and agreement of two outputs, added up over rows so that memory stays small.

Scores of classes are rows of the last axis; those of a segmentation network stand on axis 1, one
row for each pixel. A label map holds the class of each pixel itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vim_deploy.heads import outputs_called

Array = NDArray[Any]

_PIXEL_AXES = 4
_LABEL_MAP_AXES = 3
#: Scores of which KL works on copies at once.
_KL_SCORES = 1 << 22


def is_logits(output: str) -> bool:
    """Whether an output has logits: KL is taken of them.

    With four axes they are those of every pixel, [B, classes, rows, columns].
    """
    return any(known.holds == "logits" for known, _ in outputs_called(output))


def class_axis(output: str, shape: tuple[int, ...]) -> int | None:
    """Axis of ``output`` that holds the classes; None where there are none to compare."""
    if len(shape) == _PIXEL_AXES:
        axis = 1 if is_logits(output) else None
    else:
        known, _ = next(outputs_called(output), (None, None))
        no_scores = known is not None and known.holds in ("values", "counts")
        axis = None if len(shape) < 2 or no_scores else len(shape) - 1
    return None if axis is None or shape[axis] < 2 else axis


def is_label_map(values: Array) -> bool:
    """Whether ``values`` are the classes of pixels, integers [B, H, W]."""
    return np.issubdtype(values.dtype, np.integer) and values.ndim == _LABEL_MAP_AXES


def is_per_pixel(output: str, values: Array) -> bool:
    """Whether classes of ``values`` are those of pixels: scores of every pixel, or a label map."""
    scores = values.ndim == _PIXEL_AXES and class_axis(output, values.shape) == 1
    return scores or is_label_map(values)


def mean_iou(reference: Array, candidate: Array) -> float | None:
    """Mean over classes of the intersection over union of the labels of two sides.

    IoU of a class: |both say it| / |either says it|, counted over all pixels of all pictures
    together, as in the segmentation task of PASCAL VOC (Everingham et al., International Journal
    of Computer Vision 111, 2015). The mean is over the classes that either side says;
    None without a pixel.

    Args:
        reference, candidate: integers of the same shape.
    """
    if not reference.size:
        return None
    intersections = _counts(reference[reference == candidate])
    in_reference, in_candidate = _counts(reference), _counts(candidate)
    shares = []
    for label in in_reference.keys() | in_candidate.keys():
        both = intersections.get(label, 0)
        union = in_reference.get(label, 0) + in_candidate.get(label, 0) - both
        shares.append(both / union)
    return float(np.mean(shares))


def _counts(labels: Array) -> dict[int, int]:
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def same_best(reference: Array, candidate: Array, count: int, axis: int) -> Array | None:
    """Whether the ``count`` largest scores of each row are of the same classes, in any order.

    Scores that tie with the last of them count as well. None where there are no more classes than
    that.
    """
    if reference.shape[axis] <= count:
        return None
    same: Array = (_best(reference, count, axis) == _best(candidate, count, axis)).all(axis=axis)
    return same


def _best(scores: Array, count: int, axis: int) -> Array:
    """Which scores are at least the one at place ``count``."""
    place = scores.shape[axis] - count
    least = np.partition(scores, place, axis=axis).take([place], axis=axis)
    best: Array = scores >= least
    return best


def largest_kl(reference: Array, candidate: Array, axis: int = -1) -> float | None:
    """KL divergence of softmax(candidate) from softmax(reference) in nats, the largest of any row.

    sum_i p_i (log p_i - log q_i) over ``axis``, p from the reference (Kullback and Leibler,
    Annals of Mathematical Statistics 22, 1951). A class with the reference's logit -Inf has p_i = 0
    and adds nothing. Rows without a softmax (NaN, +Inf or nothing but -Inf on either side) are
    left out; None when no row is left or there is no axis of classes.
    """
    if reference.ndim < 2 or reference.shape[axis] < 2:
        return None
    classes = reference.shape[axis]
    all_p, all_q = (
        np.moveaxis(values, axis, -1).reshape(-1, classes) for values in (reference, candidate)
    )
    step = max(_KL_SCORES // classes, 1)
    parts = [
        _largest_kl_of_rows(all_p[start : start + step], all_q[start : start + step])
        for start in range(0, len(all_p), step)
    ]
    return max((part for part in parts if part is not None), default=None)


def _largest_kl_of_rows(rows_p: Array, rows_q: Array) -> float | None:
    rows_p, rows_q = rows_p.astype(np.float64), rows_q.astype(np.float64)
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
