"""What came of matching the detections of two sides, as it is stored."""

from __future__ import annotations

from dataclasses import dataclass

from vim_deploy.codec import stored

#: Detections of one side that a report lists.
LISTED = 20


@stored(decimals={"score": 6})
@dataclass(frozen=True)
class Lone:
    """A detection that the other side does not have.

    Attributes:
        picture: its row in the case.
        label: its class's number.
        score: of it.
        box: left, top, right and bottom in pixels of the input.
        excuse: which decision was too near to tell, in words; empty where none was.
    """

    picture: int
    label: int
    score: float
    box: tuple[float, ...]
    excuse: str = ""

    @property
    def in_words(self) -> str:
        """What and where it is."""
        sides = ", ".join(f"{side:.1f}" for side in self.box)
        return f"class {self.label} with {self.score:.4f} at [{sides}] of image {self.picture + 1}"


@stored(
    keys=(
        "reference", "candidate", "matched", "missing", "unexcused", "only_reference",
        "only_candidate",
    ),
)  # fmt: skip
@dataclass(frozen=True)
class Found:
    """How many detections each side has over all pictures, and how many belong together.

    Attributes:
        reference, candidate: of each side.
        matched: pairs of both.
        unexcused: of those that only one side has, those without an excuse.
        only_reference, only_candidate: the first of those that only one side has, the best first.
    """

    reference: int
    candidate: int
    matched: int
    unexcused: int
    only_reference: tuple[Lone, ...] = ()
    only_candidate: tuple[Lone, ...] = ()

    @property
    def missing(self) -> int:
        """How many of the reference's have no partner."""
        return self.reference - self.matched

    @property
    def nothing(self) -> bool:
        """Whether neither side has any."""
        return not self.reference and not self.candidate

    @property
    def in_words(self) -> str:
        """How many were found."""
        if self.nothing:
            return "neither side has a detection"
        more = self.candidate - self.matched
        return f"{self.matched} of {self.reference} detections found" + (
            f", {more} more" if more else ""
        )
