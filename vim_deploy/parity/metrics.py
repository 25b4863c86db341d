"""How far apart two outputs are, and whether that is within tolerance.

NaN and Inf agree with nothing, not even with themselves: one of them on either side fails, however
large the tolerance, and so does an output without values. Only what is numbers throughout is
measured, and a distance that is no number itself is no agreement.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vim_deploy.codec import encode, stored
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.heads import of_file
from vim_deploy.parity.comparison import Comparison
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
from vim_deploy.parity.limits import (
    DETECTION_NAMES,
    FP32_ATOL,
    FP32_RTOL,
    LABEL_AGREEMENT,
    TOLERANCE_ORIGIN,
    DetectionLimits,
    adjusted_detections,
    detection_limits,
    origin_of,
)
from vim_deploy.precisions import TABLE
from vim_deploy.ranges import COSINE, RELATIVE, SHARE, TOLERANCE, require_all
from vim_deploy.recipe.schema import Tolerances
from vim_deploy.runtimes.base import is_finite, strays

if TYPE_CHECKING:
    from vim_deploy.artifact.metadata import ExportInfo

Array = NDArray[Any]


@stored(sparse=("detections",))
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
        detections: of a detector, whose detections are matched and held to these limits instead.
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
    detections: DetectionLimits | None = None

    def __post_init__(self) -> None:
        """VIM-202 for a limit that limits nothing or is no number."""
        require_all(self, atol=TOLERANCE, rtol=RELATIVE, relative_l2=RELATIVE, cosine=COSINE)
        require_all(self, top1_agreement=SHARE, kl=TOLERANCE, label_agreement=SHARE)

    def limits(self) -> str:
        """The limits on differences, for a sentence."""
        if self.detections is not None:
            return self.detections.in_words()
        parts = []
        if self.atol is not None:
            parts.append(f"{self.atol:g} + {self.rtol:g} |reference|")
        if self.relative_l2 is not None:
            parts.append(f"relative L2 {self.relative_l2:g}")
        return ", ".join(parts) or "any difference"


def tolerance_for(
    precision: str, tolerances: Tolerances | None = None, info: ExportInfo | None = None
) -> Tolerance:
    """For outputs of a graph of this precision against float32.

    Args:
        precision: by the names of ``precisions``.
        tolerances: what a recipe demands of float32 outputs.
        info: what the file says of itself: a detector has limits of its own.
    """
    found = _of_precision(precision, tolerances)
    if info is None or of_file(info).kind != "detections":
        return found
    return dataclasses.replace(found, detections=detection_limits(precision, info))


def _of_precision(precision: str, tolerances: Tolerances | None) -> Tolerance:
    if TABLE[precision].lossy:
        return Tolerance(
            atol=None,
            relative_l2=TABLE[precision].relative_l2,
            same_integers=False,
            origin=origin_of(precision),
            label_agreement=LABEL_AGREEMENT[precision],
        )
    if tolerances is None:
        return Tolerance()
    found = Tolerance(**encode(tolerances), where_classes=True)
    if found.top1_agreement is None:
        return found
    return dataclasses.replace(found, label_agreement=found.top1_agreement)


def adjusted(tolerance: Tolerance, limits: Mapping[str, float]) -> Tolerance:
    """``tolerance`` with the limits that the user set; its origin says so.

    Raises:
        VimDeployError: VIM-202 for what is no limit, VIM-203 for one that the outputs do not have:
            detections have other ones.
    """
    if not limits:
        return tolerance
    own = {item.name for item in dataclasses.fields(Tolerance)}
    known = (own | set(DETECTION_NAMES)) - {"origin", "where_classes", "detections"}
    for name in limits:
        if name not in known:
            raise VimDeployError("VIM-202", f"{name!r} is no limit", fix=nearest(name, known))
    if tolerance.detections is not None:
        return _adjusted_detections(tolerance, tolerance.detections, limits)
    if alien := [name for name in limits if name in DETECTION_NAMES]:
        raise VimDeployError(
            "VIM-203",
            f"a limit of {', '.join(alien)} has no effect: the model gives no detections",
            fix="leave it out",
        )
    origin = f"{', '.join(limits)} set by the user; else {tolerance.origin}"
    changes: dict[str, Any] = {**limits, "origin": origin}
    if "top1_agreement" in limits:
        # What the user asks for holds for every output, label maps included.
        changes |= {"where_classes": False, "label_agreement": None}
    return dataclasses.replace(tolerance, **changes)


def _adjusted_detections(
    tolerance: Tolerance, found: DetectionLimits, limits: Mapping[str, float]
) -> Tolerance:
    # The relative L2 distance is that of inner tensors then (--per-block).
    alien = [name for name in limits if name not in (*DETECTION_NAMES, "relative_l2")]
    if alien:
        raise VimDeployError(
            "VIM-203",
            f"a limit of {', '.join(alien)} has no effect on detections",
            why="they are matched, then boxes, scores and masks are compared",
            fix="--box-pixels, --score-difference or --mask-difference",
        )
    own = {name: limits[name] for name in DETECTION_NAMES if name in limits}
    return dataclasses.replace(tolerance, detections=adjusted_detections(found, own))


def compare(
    output: str,
    reference: Array,
    candidate: Array,
    tolerance: Tolerance,
    *,
    classes: bool = True,
) -> Comparison:
    """Compare two arrays of the same output; the first axis is the batch.

    ``classes`` False takes them for values of which none is a class, whatever they are called.
    """
    why = _other_form(reference, candidate)
    if why:
        return _incomparable(output, len(candidate) if candidate.ndim else 0, why)
    if is_label_map(reference):
        return _compare_labels(output, reference, candidate, tolerance)
    if np.issubdtype(reference.dtype, np.integer):
        return _compare_integers(output, reference, candidate, tolerance)
    if not (is_finite(candidate) and is_finite(reference)):
        return _not_numbers(output, reference, candidate)
    axis = class_axis(output, reference.shape) if classes else None
    found = Distances(axis, is_logits(output), tolerance.atol, tolerance.rtol)
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
