"""What a comparison of one output found, as it is stored and said."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from vim_deploy.codec import stored
from vim_deploy.parity.found import Found

#: Outputs of a detector that make its detections; masks are theirs where it has some.
_DETECTIONS = frozenset({"boxes", "scores", "classes", "count"})


def are_detections(outputs: Collection[str]) -> bool:
    """Whether outputs of these names are those of a detector, and compared as detections."""
    return _DETECTIONS.issubset(outputs)


@stored(also=("passed",), sparse=("found",))
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
    round. ``found``: what of detections was matched; the comparison is then about that.
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
    found: Found | None = None

    @property
    def passed(self) -> bool:
        """Whether every limit is met."""
        return not self.failures

    @property
    def in_words(self) -> str:
        """How far apart the sides are."""
        if self.found is not None:
            return self.found.in_words
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
