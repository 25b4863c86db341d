"""What a pass over a graph did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """A place that stays as it is, and why."""

    place: str
    reason: str


@dataclass(frozen=True)
class PassReport:
    """The outcome of one pass.

    Attributes:
        name: of the pass.
        matched: places that were rewritten.
        expected: places there had to be, or None when any number is right.
        refused: places that were left as they are, and why.
        nodes_before, nodes_after: of the main graph.
    """

    name: str
    matched: int
    expected: int | None
    refused: tuple[Refusal, ...]
    nodes_before: int
    nodes_after: int

    @property
    def as_expected(self) -> bool:
        """Whether the count is the promised one."""
        return self.expected is None or self.matched == self.expected
