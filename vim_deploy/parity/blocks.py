"""Compare two runs of a model part by part: where the difference begins, and how it grows.

A part is an inner tensor with a place (``places.Place``), from PyTorch or from a graph that gives
its inner tensors out. Every part is measured as the relative L2 distance of the whole tensor, so
that parts of other sizes can be compared with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vim_deploy.codec import stored
from vim_deploy.parity.metrics import Array
from vim_deploy.places import Place
from vim_deploy.precisions import TABLE
from vim_deploy.runtimes.base import is_finite

#: Largest number that JSON holds for an infinite distance.
_LARGEST = float(np.finfo(np.float64).max)
#: What a part is, where its name alone does not say it.
_MEANINGS = {
    "tokens": "class tokens and position embedding",
    "residual": "the sum that the norm reads",
    "mixed": "the sum of the scans",
    "norm_f": "the last norm",
    "features": "the class token's place, or pooling",
    "head": "the classifier",
}
#: Of parts that a model has several of, by their role.
_ROLE_MEANINGS = {"neck": "a feature map behind the neck"}


def part_limit(precision: str) -> float:
    """Largest relative L2 distance of an inner tensor for a graph of this precision."""
    return TABLE[precision].relative_l2


@stored(
    keys=(
        "place=where", "block=place.block", "part=place.part", "role=place.role",
        "direction=place.direction", "relative_l2", "max_abs",
    ),
    infinite=_LARGEST,
)  # fmt: skip
@dataclass(frozen=True)
class PartError:
    """One part: its relative L2 distance and largest difference; infinite with NaN or Inf."""

    place: Place
    relative_l2: float
    max_abs: float

    @property
    def name(self) -> str:
        """Block, part and direction in words."""
        meaning = _MEANINGS.get(self.place.part, _ROLE_MEANINGS.get(self.place.role))
        return f"{self.place} ({meaning})" if meaning else str(self.place)

    @property
    def where(self) -> str:
        """The place's name."""
        return str(self.place)


@stored(
    keys=(
        "passed",
        "verdict",
        "candidate",
        "images",
        "limit",
        "first",
        "rise",
        "missing",
        "growth=grown",
        "parts",
    ),
    sparse=("candidate",),
)
@dataclass(frozen=True)
class BlockReport:
    """The parts in order of computation, and what they may differ by.

    Attributes:
        parts: what both sides have.
        limit: largest relative L2 distance of a part.
        outputs_passed: whether the outputs of the same images were within their tolerance.
        missing: places that only one side has.
        images: which images, in words.
        candidate: name of the runner whose parts they are, held to the reference's.
    """

    parts: tuple[PartError, ...]
    limit: float
    outputs_passed: bool
    missing: tuple[str, ...] = ()
    images: str = ""
    candidate: str = ""

    @property
    def first(self) -> PartError | None:
        """The first part beyond the limit."""
        return next((part for part in self.parts if not part.relative_l2 <= self.limit), None)

    @property
    def rise(self) -> PartError | None:
        """The part at which the largest error so far rises most; None without parts."""
        best, height, largest = None, 0.0, -1.0
        for part in self.parts:
            if part.relative_l2 - height > largest:
                best, largest = part, part.relative_l2 - height
            height = max(height, part.relative_l2)
        return best

    @property
    def verdict(self) -> str:
        """Where the difference begins, in a sentence."""
        if self.first is not None:
            return (
                f"the first part beyond the limit is {self.first.name}: relative L2 "
                f"{self.first.relative_l2:.2e}, allowed {self.limit:g}"
            )
        within = f"all {len(self.parts)} parts are within {self.limit:g}"
        if self.outputs_passed or self.rise is None:
            return within
        return (
            f"{within}, and the outputs are not within their tolerance: the error of the parts "
            f"rises most at {self.rise.name}, to {self.rise.relative_l2:.2e}"
        )

    @property
    def passed(self) -> bool:
        """Whether parts and outputs are within their limits."""
        return bool(self.parts) and self.first is None and self.outputs_passed

    def growth(self, part: str) -> list[tuple[int, float]]:
        """Block number and relative L2 of the parts called ``part``, such as ``out_proj``."""
        return [(e.place.block, e.relative_l2) for e in self.parts if e.place.part == part]

    @property
    def grown(self) -> dict[str, list[dict[str, float]]]:
        """``growth`` of the parts that stand in every block's stream, as stored."""
        return {
            name: [
                {"block": block, "relative_l2": min(value, _LARGEST)}
                for block, value in self.growth(name)
            ]
            for name in ("residual", "out_proj")
        }

    def by_block(self) -> dict[int, list[PartError]]:
        """Parts by ``Place.block``, in order of computation."""
        groups: dict[int, list[PartError]] = {}
        for part in self.parts:
            groups.setdefault(part.place.block, []).append(part)
        return groups


def compare_parts(
    reference: Mapping[Place, Array],
    candidate: Mapping[Place, Array],
    limit: float,
    outputs_passed: bool,
    images: str = "",
    name: str = "",
) -> BlockReport:
    """Measure every part that both sides have; ``name`` is the candidate's."""
    parts = tuple(
        _measure(where, reference[where], candidate[where])
        for where in sorted(reference.keys() & candidate.keys())
    )
    missing = tuple(str(where) for where in sorted(reference.keys() ^ candidate.keys()))
    return BlockReport(parts, limit, outputs_passed, missing, images, name)


def _measure(where: Place, reference: Array, candidate: Array) -> PartError:
    if reference.shape != candidate.shape:
        return PartError(where, float("inf"), float("inf"))
    # As in ``metrics``: NaN and Inf agree with nothing, and nothing is not compared.
    if not reference.size or not (is_finite(reference) and is_finite(candidate)):
        return PartError(where, float("inf"), float("inf"))
    ref, cand = reference.astype(np.float64), candidate.astype(np.float64)
    difference = cand - ref
    norm = float(np.linalg.norm(ref))
    distance = float(np.linalg.norm(difference))
    largest = float(np.abs(difference).max(initial=0.0))
    return PartError(where, distance / norm if norm else distance, largest)
