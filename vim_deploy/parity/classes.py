"""Classes of two sides: where an output has them, how often both sides agree, mean IoU.

Scores of classes are rows of the last axis; those of a segmentation network stand on axis 1, one
row for each pixel. A label map holds the class of each pixel itself.
"""

from __future__ import annotations

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
        no_scores = known is not None and known.holds == "values"
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
