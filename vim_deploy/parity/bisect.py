"""The smallest set of parts to keep as they are: search and record.

Of a precision that types they stay in float32, of one that quantizes they are not quantized.

The search is delta debugging (ddmin; Zeller and Hildebrandt, IEEE Transactions on Software
Engineering 28(2), 2002) turned round: instead of the smallest input that still fails, the smallest
set of kept parts that still passes. It tries to drop halves, then quarters and so on down to single
parts, first over whole roles, then over the blocks of those that are left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vim_deploy.codec import encode, stored
from vim_deploy.parity.comparison import Comparison
from vim_deploy.parity.metrics import Tolerance
from vim_deploy.precisions import TABLE
from vim_deploy.recipe.precision_policy import ROLES, PrecisionPolicy, Rule, ranges_text

#: Evaluations after which a search stops with the best set so far.
MOST_EVALUATIONS = 200


@dataclass(frozen=True)
class Unit:
    """One role in one block; None for roles that exist once in a model."""

    role: str
    block: int | None = None

    def __str__(self) -> str:
        return self.role if self.block is None else f"{self.role} of block {self.block}"


@stored(infinite=None)
@dataclass(frozen=True)
class Evaluation:
    """How a model came out that keeps certain units as they are.

    Attributes:
        passed: whether every output was within tolerance.
        relative_l2: of the worst output; infinite where it cannot be measured.
        why: what was not met; empty when everything was.
    """

    passed: bool
    relative_l2: float
    why: str = ""

    @classmethod
    def of(cls, worst: Comparison) -> Evaluation:
        """From the worst comparison of a run."""
        # The largest number stands for what cannot be measured (``metrics``).
        measured = worst.relative_l2 < np.finfo(np.float64).max
        distance = worst.relative_l2 if measured else float("inf")
        return cls(worst.passed, distance, "; ".join(worst.failures))


Evaluate = Callable[[frozenset[Unit]], Evaluation]
#: Called after every evaluation: how many, how many units were kept, and how it came out.
Progress = Callable[[int, int, Evaluation], None]


@stored(
    keys=(
        "units", "minimal", "evaluations", "parts", "nothing_kept=nothing", "kept=found",
        "without=each_left_out", "policy",
    )
)  # fmt: skip
@dataclass(frozen=True)
class Bisection:
    """What a search found.

    Attributes:
        units: to keep in float32, or not to quantize, in order of computation.
        minimal: whether leaving out any single one of them was tried and failed.
        evaluations: models that were run.
        without: for each unit the evaluation with all others kept; not for all where the search
            was cut short.
        nothing: evaluation with nothing kept.
        found: evaluation with ``units`` kept.
        universe: every unit of the model.
        rest: of a precision that quantizes: what stays in float32 of the rest where that is typed.
            None for one that types.
    """

    units: tuple[Unit, ...]
    minimal: bool
    evaluations: int
    without: tuple[tuple[Unit, Evaluation], ...]
    nothing: Evaluation
    found: Evaluation
    universe: tuple[Unit, ...]
    rest: PrecisionPolicy | None = None

    def _blocks(self) -> dict[str, set[int | None]]:
        """Kept blocks by role, in the order of ``ROLES``."""
        blocks: dict[str, set[int | None]] = {}
        for unit in sorted(self.units, key=lambda unit: ROLES.index(unit.role)):
            blocks.setdefault(unit.role, set()).add(unit.block)
        return blocks

    def blocks_by_role(self) -> dict[str, str]:
        """What is kept of each role: block numbers and ranges, empty for roles in no block."""
        return {role: ranges_text(_ranges(blocks)) for role, blocks in self._blocks().items()}

    @property
    def policy(self) -> PrecisionPolicy:
        """The units as rules: one for each set of blocks, with what happens without them."""
        blocks = self._blocks()
        groups: dict[str | None, list[str]] = {}
        for role in blocks:
            everywhere = {unit.block for unit in self.universe if unit.role == role}
            kept = None if blocks[role] == everywhere else ranges_text(_ranges(blocks[role]))
            groups.setdefault(kept, []).append(role)
        rules = [Rule(tuple(roles), kept, self._reason(roles)) for kept, roles in groups.items()]
        if self.rest is None:
            return PrecisionPolicy(tuple(rules))
        return replace(self.rest, not_quantized=tuple(rules))

    def _reason(self, roles: Sequence[str]) -> str:
        worst = [item for unit, item in self.without if unit.role in roles]
        if not worst:
            return "found by bisection; the search was cut short"
        largest = max(item.relative_l2 for item in worst)
        size = f"{largest:.2e}" if largest < float("inf") else "not finite"
        return f"without any one of these the relative L2 is up to {size}"

    @property
    def parts(self) -> int:
        """How many units the model has."""
        return len(self.universe)

    @property
    def each_left_out(self) -> list[dict[str, Any]]:
        """``without`` as stored: the unit and how it came out in one table."""
        return [{**encode(unit), **encode(item)} for unit, item in self.without]


@stored(
    keys=("subject", "precision", "reference", "candidate", "tolerance", "*bisection", "command")
)
@dataclass(frozen=True)
class BisectReport:
    """A bisection and what it was about."""

    subject: str
    precision: str
    reference: str
    candidate: str
    tolerance: Tolerance
    bisection: Bisection
    command: tuple[str, ...] = ()

    @property
    def kept_how(self) -> str:
        """What is done with the parts that are kept, for a sentence."""
        return kept_how(self.precision)


def kept_how(precision: str) -> str:
    """What a policy for ``precision`` does with the parts that it names."""
    return "not quantized" if TABLE[precision].quantized else "in float32"


def bisect(
    units: Sequence[Unit],
    evaluate: Evaluate,
    most: int = MOST_EVALUATIONS,
    progress: Progress | None = None,
) -> Bisection | None:
    """The smallest set of ``units`` that passes when it is kept; None when keeping all fails.

    The set is 1-minimal: it fails without any one of its units. It need not be the only one.

    Args:
        units: of the model, in order of computation.
        evaluate: runs a model.
        most: evaluations to spend; afterwards the best set so far is given, not minimal.
        progress: told of every evaluation.
    """
    search = _Search(units, evaluate, most, progress)
    everything = frozenset(units)
    nothing = search.look(frozenset())
    if not nothing.passed and not search.look(everything).passed:
        return None
    kept = frozenset[Unit]() if nothing.passed else everything
    minimal = True
    try:
        if not nothing.passed:
            roles = dict.fromkeys(unit.role for unit in units)
            groups = [frozenset(unit for unit in units if unit.role == role) for role in roles]
            kept = search.smallest(groups)
            # Role by role: neighbouring blocks of one role are dropped together.
            left = [unit for role in roles for unit in units if unit.role == role and unit in kept]
            kept = search.smallest([frozenset({unit}) for unit in left])
    except _SpentError:
        kept, minimal = search.best, False
    ordered = tuple(unit for unit in units if unit in kept)
    without = [
        (unit, search.seen[kept - {unit}]) for unit in ordered if kept - {unit} in search.seen
    ]
    return Bisection(
        ordered, minimal, len(search.seen), tuple(without), nothing, search.seen[kept], tuple(units)
    )


class _SpentError(Exception):
    """No evaluations are left."""


class _Search:
    """Evaluations made so far, and ddmin over them."""

    def __init__(
        self, units: Sequence[Unit], evaluate: Evaluate, most: int, progress: Progress | None
    ) -> None:
        self.evaluate, self.most, self.progress = evaluate, most, progress
        self.seen: dict[frozenset[Unit], Evaluation] = {}
        self.best = frozenset(units)

    def look(self, kept: frozenset[Unit]) -> Evaluation:
        """Evaluate ``kept``, at most once."""
        if kept in self.seen:
            return self.seen[kept]
        # The two ends are always evaluated: without them nothing can be said.
        if len(self.seen) >= max(self.most, 2):
            raise _SpentError
        found = self.seen[kept] = self.evaluate(kept)
        if found.passed and len(kept) < len(self.best):
            self.best = kept
        if self.progress is not None:
            self.progress(len(self.seen), len(kept), found)
        return found

    def smallest(self, groups: list[frozenset[Unit]]) -> frozenset[Unit]:
        """A set of ``groups`` that passes, and fails without any one of them.

        Only complements are tried: at two parts they are the halves themselves, and what makes the
        result minimal is that the last round leaves out every single group.
        """
        parts = 2
        while len(groups) > 1:
            for chunk in _split(groups, parts):
                rest = [group for group in groups if group not in chunk]
                if self.look(_union(rest)).passed:
                    groups, parts = rest, max(parts - 1, 2)
                    break
            else:
                if parts >= len(groups):
                    break
                parts = min(2 * parts, len(groups))
        return _union(groups)


def _split(groups: list[frozenset[Unit]], parts: int) -> list[list[frozenset[Unit]]]:
    """``groups`` in ``parts`` runs of neighbours, sizes differing by one at most."""
    parts = min(parts, len(groups))
    edges = [len(groups) * number // parts for number in range(parts + 1)]
    return [groups[low:high] for low, high in itertools.pairwise(edges)]


def _union(groups: Iterable[frozenset[Unit]]) -> frozenset[Unit]:
    return frozenset().union(*groups)


def _ranges(blocks: Iterable[int | None]) -> tuple[tuple[int, int], ...]:
    """Block numbers as runs of neighbours."""
    runs: list[tuple[int, int]] = []
    for block in sorted(block for block in blocks if block is not None):
        if runs and runs[-1][1] == block - 1:
            runs[-1] = (runs[-1][0], block)
        else:
            runs.append((block, block))
    return tuple(runs)
