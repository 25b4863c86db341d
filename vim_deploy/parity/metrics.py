"""How far apart two outputs are, and whether that is within tolerance.

NaN and Inf agree with nothing, not even with themselves: one of them on either side fails, however
large the tolerance, and so does an output without values. Only what is numbers throughout is
measured, and a distance that is no number itself is no agreement.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vim_deploy.codec import encode, stored
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.parity.distances import (
    Distances,
    chunks,
    class_axis,
    is_label_map,
    is_logits,
    is_per_pixel,
    largest,
    mean_iou,
)
from vim_deploy.precisions import TABLE
from vim_deploy.ranges import COSINE, RELATIVE, SHARE, TOLERANCE, require_all
from vim_deploy.recipe.schema import Tolerances
from vim_deploy.runtimes.base import is_finite, strays

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

#: Share of pixels that change their class, over the relative error of the logits. Where two classes
#: are closer than the error, either may come first. For logits of 150 classes that are independent
#: and normal, the gap between the best two has the density sqrt(2 ln 150) = 3.2 at zero, in units
#: of their standard deviation (spacings of normal extremes: David and Nagaraja, Order Statistics,
#: 2003), and errors e of both change the order in 3.2 e / sqrt(pi) = 1.8 e of the pixels. Rounded
#: up; trained models have fewer pixels without a clear class.
_CHANGED_PIXELS = 2.0
#: Smallest share of equal pixels of label maps without a recipe: 0.9998, 0.98 and 0.84.
LABEL_AGREEMENT = {
    name: round(1 - _CHANGED_PIXELS * row.relative_l2, 6) for name, row in TABLE.items()
}
_HALF_ORIGIN = (
    "rounding of {precision}: about seven roundings a block and 24 blocks, independent, give "
    "13 unit roundoffs; class indices of pictures are reported, not limited; twice as large a "
    "share of a label map may change: the pixels whose best two classes are closer than that"
)


@dataclass(frozen=True)
class Tolerance:
    """Limits of a comparison; None leaves a metric unchecked.

    Attributes:
        atol, rtol: |candidate - reference| <= atol + rtol |reference| for every element; atol None
            leaves the elements unchecked.
        relative_l2: largest |candidate - reference| / |reference| of a whole output, as L2 norms.
        same_integers: whether class indices of pictures (integers of one or two axes) must be equal
            in every row.
        cosine: smallest cosine similarity of any row.
        top1_agreement: smallest share of rows, in segmentation of pixels, with the same first
            class.
        kl: largest KL divergence of any row's softmax, in nats; for logits.
        origin: why these numbers.
        label_agreement: smallest share of equal pixels of a label map (integers of three axes).
        where_classes: whether ``top1_agreement`` is demanded only where there are classes, as by a
            recipe, which knows the model and not which of its outputs were chosen; else an output
            without classes fails.
    """

    atol: float | None = FP32_ATOL
    rtol: float = FP32_RTOL
    relative_l2: float | None = None
    same_integers: bool = True
    cosine: float | None = None
    top1_agreement: float | None = None
    kl: float | None = None
    origin: str = TOLERANCE_ORIGIN
    label_agreement: float | None = LABEL_AGREEMENT["fp32"]
    where_classes: bool = False

    def __post_init__(self) -> None:
        """VIM-202 for a limit that limits nothing or is no number."""
        require_all(self, atol=TOLERANCE, rtol=RELATIVE, relative_l2=RELATIVE, cosine=COSINE)
        require_all(self, top1_agreement=SHARE, kl=TOLERANCE, label_agreement=SHARE)

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
    if TABLE[precision].typed:
        return Tolerance(
            atol=None,
            relative_l2=TABLE[precision].relative_l2,
            same_integers=False,
            origin=_HALF_ORIGIN.format(precision=precision),
            label_agreement=LABEL_AGREEMENT[precision],
        )
    if tolerances is None:
        return Tolerance()
    found = Tolerance(**encode(tolerances), where_classes=True)
    if found.top1_agreement is None:
        return found
    return dataclasses.replace(found, label_agreement=found.top1_agreement)


def adjusted(tolerance: Tolerance, limits: Mapping[str, float]) -> Tolerance:
    """``tolerance`` with the limits that the user set; its origin says so."""
    if not limits:
        return tolerance
    known = {item.name for item in dataclasses.fields(Tolerance)} - {"origin", "where_classes"}
    for name in limits:
        if name not in known:
            raise VimDeployError("VIM-202", f"{name!r} is no limit", fix=nearest(name, known))
    origin = f"{', '.join(limits)} set by the user; else {tolerance.origin}"
    changes: dict[str, Any] = {**limits, "origin": origin}
    if "top1_agreement" in limits:
        # What the user asks for holds for every output, label maps included.
        changes |= {"where_classes": False, "label_agreement": None}
    return dataclasses.replace(tolerance, **changes)


@stored(also=("passed",))
@dataclass(frozen=True)
class Comparison:
    """Metrics of one output over all rows (images).

    ``max_abs``, ``mean_abs`` and ``relative_l2`` are over all elements; ``worst`` is the largest
    difference as a multiple of what is allowed, at most 1 when within tolerance. Agreement of top-1
    and top-5 is None where an output has no classes (``distances.class_axis``); where each pixel
    has one, shares are of pixels, and only then there is a ``mean_iou`` (as ``distances`` has it).
    ``kl`` is ``distances.largest_kl``, for outputs with logits, else None. ``worst_row`` is the row
    furthest from the reference. ``indices``: the output holds class indices, which have no
    distance: ``relative_l2`` is 0 where all are equal and else 1, and ``cosine`` the other way
    round.
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
    mean_iou: float | None = None
    indices: bool = False

    @property
    def passed(self) -> bool:
        """Whether every limit is met."""
        return not self.failures

    @property
    def in_words(self) -> str:
        """How far apart the sides are."""
        if not self.indices or self.top1_agreement is None:
            return f"largest difference {self.max_abs:.2g} (relative L2 {self.relative_l2:.2g})"
        share = f"{100 * self.top1_agreement:.2f} %"
        if self.mean_iou is None:
            return f"the same first class for {share} of the pictures"
        return f"the same class at {share} of the pixels (mean IoU {100 * self.mean_iou:.2f} %)"

    def explained(self, limits: str) -> str:
        """What is not met, with the distances and their ``limits`` where there are any."""
        found = "; ".join(self.failures)
        if self.indices:
            return found
        sizes = f"max abs {self.max_abs:.3g}, relative L2 {self.relative_l2:.3g}"
        return f"{found} ({sizes}; allowed: {limits})"


def compare(output: str, reference: Array, candidate: Array, tolerance: Tolerance) -> Comparison:
    """Compare two arrays of the same output; the first axis is the batch."""
    why = _other_form(reference, candidate)
    if why:
        return _incomparable(output, len(candidate) if candidate.ndim else 0, why)
    if is_label_map(reference):
        return _compare_labels(output, reference, candidate, tolerance)
    if np.issubdtype(reference.dtype, np.integer):
        return _compare_integers(output, reference, candidate, tolerance)
    if not (is_finite(candidate) and is_finite(reference)):
        return _not_numbers(output, reference, candidate)
    found = Distances(
        class_axis(output, reference.shape), is_logits(output), tolerance.atol, tolerance.rtol
    )
    for rows in chunks(reference):
        found.add(reference[rows], candidate[rows])
    return _comparison(output, found, reference, tolerance)


def _other_form(reference: Array, candidate: Array) -> str:
    """Why two arrays cannot be compared element by element; empty where they can."""
    if reference.shape != candidate.shape:
        return f"shape {candidate.shape} instead of {reference.shape}"
    if not reference.ndim or not reference.size:
        return "it holds no rows of values: nothing was compared"
    kinds = [_kind(values) for values in (reference, candidate)]
    if None in kinds or kinds[0] != kinds[1]:
        return f"type {candidate.dtype} instead of {reference.dtype}"
    return ""


def _kind(values: Array) -> str | None:
    """``classes`` for integers, ``numbers`` for what has a distance; None for what is neither."""
    if np.issubdtype(values.dtype, np.integer):
        return "classes"
    # bfloat16 is a type of its own to NumPy, of the kind of raw bytes.
    real = values.dtype.kind in "bf" or values.dtype.name == "bfloat16"
    return "numbers" if real else None


def _not_numbers(output: str, reference: Array, candidate: Array) -> Comparison:
    """The failure of an output with NaN or Inf on a side; the worst row has most of them."""
    sides = {"it": candidate, "the reference": reference}
    counts = [
        f"{count} of {values.size} values of {side} are NaN or Inf"
        for side, values in sides.items()
        if (count := strays(values))
    ]
    failed = _incomparable(output, len(candidate), "; ".join(counts))
    where = ~(np.isfinite(reference) & np.isfinite(candidate))
    return dataclasses.replace(failed, worst_row=_furthest_row(where))


def _comparison(
    output: str, found: Distances, reference: Array, tolerance: Tolerance
) -> Comparison:
    top1, top5 = found.agreement()
    per_pixel = is_per_pixel(output, reference)
    measured = (found.max_abs, found.sum_abs, found.relative_l2, found.cosine, found.worst)
    if not np.isfinite(measured).all():
        return _incomparable(
            output, len(reference), "the distance is beyond what float64 numbers can say"
        )
    worst = max(found.worst, _times(found.relative_l2, tolerance))
    kind = "pixel" if per_pixel else "top-1"
    return Comparison(
        output=output,
        rows=len(reference),
        max_abs=found.max_abs,
        mean_abs=found.sum_abs / reference.size if reference.size else 0.0,
        relative_l2=found.relative_l2,
        cosine=found.cosine,
        worst=worst,
        top1_agreement=top1,
        top5_agreement=top5,
        failures=(
            *_distance_failures(worst, found.cosine, tolerance),
            *_class_failures(top1, found.kl, tolerance, kind),
        ),
        kl=found.kl,
        worst_row=int(np.argmax(found.row_squares)) if found.row_squares else 0,
        mean_iou=mean_iou(*found.labels()) if per_pixel and top1 is not None else None,
    )


def _furthest_row(difference: Array) -> int:
    """The row (image) with the largest sum of squares; 0 when there is nothing."""
    rows = np.asarray(difference, dtype=np.float64).reshape(len(difference), -1)
    return int(np.square(rows).sum(axis=1).argmax()) if rows.size else 0


def _times(relative_l2: float, tolerance: Tolerance) -> float:
    """The relative L2 distance as a multiple of what it may be."""
    if tolerance.relative_l2 is None or relative_l2 == 0:
        return 0.0
    limit = tolerance.relative_l2
    return relative_l2 / limit if limit else float(np.finfo(np.float64).max)


def _distance_failures(worst: float, cosine: float, tolerance: Tolerance) -> Iterator[str]:
    if worst > 1:
        yield f"largest difference is {worst:.3g} times what is allowed"
    if tolerance.cosine is not None and cosine < tolerance.cosine:
        yield f"cosine {cosine:.6f} is below {tolerance.cosine}"


def _class_failures(
    top1: float | None, kl: float | None, tolerance: Tolerance, kind: str
) -> Iterator[str]:
    """What is not met of the limits on classes; ``kind`` of agreement for the sentences."""
    wanted = tolerance.top1_agreement
    if wanted is not None and top1 is None:
        if not tolerance.where_classes:
            yield "top-1 agreement was asked for, but this output has no classes"
    elif wanted is not None and top1 is not None and top1 < wanted:
        yield f"{kind} agreement {top1:.6g} is below {wanted:g}"
    if tolerance.kl is not None:
        if kl is None:
            yield "a limit of KL was set, but this output has no logits to take it of"
        elif kl > tolerance.kl:
            yield f"KL {kl:.3g} is above {tolerance.kl:g}"


def _incomparable(output: str, rows: int, failure: str) -> Comparison:
    largest = float(np.finfo(np.float64).max)
    return Comparison(
        output, rows, largest, largest, largest, -1.0, largest, None, None, (failure,)
    )


def _compare_integers(
    output: str, reference: Array, candidate: Array, tolerance: Tolerance
) -> Comparison:
    """Class indices of pictures: the share of equal rows."""
    same = (reference == candidate).reshape(len(reference), -1)
    share, top1 = float(same.all(axis=1).mean()), float(same[:, 0].mean())
    failed = tolerance.same_integers and share < 1
    failures = [f"{(1 - share) * len(same):.0f} rows differ"] if failed else []
    return _indices(
        output,
        reference,
        candidate,
        worst=float(np.finfo(np.float64).max) if failed else 0.0,
        top1_agreement=top1,
        failures=(*failures, *_class_failures(top1, None, tolerance, "top-1")),
    )


def _compare_labels(
    output: str, reference: Array, candidate: Array, tolerance: Tolerance
) -> Comparison:
    """Label maps: the share of equal pixels, and mean IoU."""
    share = float((reference == candidate).mean())
    limits = [tolerance.label_agreement, tolerance.top1_agreement]
    wanted = max((limit for limit in limits if limit is not None), default=None)
    worst = 0.0
    if wanted is not None and share < 1:
        worst = (1 - share) / (1 - wanted) if wanted < 1 else float(np.finfo(np.float64).max)
    strictest = dataclasses.replace(tolerance, top1_agreement=wanted)
    return _indices(
        output,
        reference,
        candidate,
        worst=worst,
        top1_agreement=share,
        failures=tuple(_class_failures(share, None, strictest, "pixel")),
        mean_iou=mean_iou(reference, candidate),
    )


def _indices(
    output: str,
    reference: Array,
    candidate: Array,
    **changes: Any,  # noqa: ANN401 - fields of Comparison
) -> Comparison:
    """What is said of all indices."""
    difference = np.abs(reference.astype(np.int64) - candidate.astype(np.int64))
    same = not difference.any()
    return Comparison(
        output=output,
        rows=len(reference),
        max_abs=largest(difference),
        mean_abs=float(difference.mean()),
        relative_l2=0.0 if same else 1.0,
        cosine=1.0 if same else 0.0,
        top5_agreement=None,
        worst_row=_furthest_row(reference != candidate),
        indices=True,
        **changes,
    )
