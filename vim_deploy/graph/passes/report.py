"""What a pass was given, and what it says it did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vim_deploy.graph.passes.mixer_pattern import Mixer, Refusal


@dataclass(frozen=True)
class Plan:
    """What all passes of one run work on.

    Attributes:
        mixers: the mixers to fuse, as found in the traced graph.
        refused: scans that belong to no such mixer, and why.
        expected: how many mixers the model config promises, or None when nothing is known.
        low_rank: the scan op takes dt's low-rank weight instead of the projected dt.
    """

    mixers: tuple[Mixer, ...]
    refused: tuple[Refusal, ...]
    expected: int | None
    low_rank: bool = False


@dataclass(frozen=True)
class Outcome:
    """Places that a pass rewrote, and those it left as they are."""

    matched: int
    refused: tuple[Refusal, ...] = ()


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

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)
