"""Two of a benchmark's subjects beside each other: time and memory by batch size, B over A."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vim_deploy.bench.measure import OK
from vim_deploy.bench.report import BenchReport, Result
from vim_deploy.bench.stats import Estimate, Latency
from vim_deploy.bench.subject import NATIVE_OPS, PYTORCH
from vim_deploy.bench.table import device_bytes
from vim_deploy.codec import Count, stored


@dataclass(frozen=True)
class Wanted:
    """Which subject is meant.

    Attributes:
        sha256: of the file; empty for its module in PyTorch.
        native: whether native ops run it.
    """

    sha256: str = ""
    native: bool = False

    def means(self, result: Result) -> bool:
        """Whether ``result`` is of it."""
        if not self.sha256:
            return result.runner == PYTORCH
        native = result.runner.endswith(f", {NATIVE_OPS}")
        return result.facts.get("sha256") == self.sha256 and native == self.native


@stored(sparse=("device_bytes", "reason"))
@dataclass(frozen=True)
class SideFigures:
    """One side at one batch size.

    Attributes:
        runtime: name and version.
        latency: milliseconds of a call; None where it was not measured, for this ``reason``.
        memory_bytes: as ``bench`` measures it (``bench.report.Memory``); None where not known.
        device_bytes: of the GPU's memory, of an engine.
    """

    runtime: str
    latency: Latency | None
    memory_bytes: Count | None
    device_bytes: Count | None = None
    reason: str = ""

    @classmethod
    def of(cls, result: Result) -> SideFigures:
        """Of a measurement."""
        if result.figures is None:
            return cls(result.runner, None, None, None, f"{result.status}: {result.reason}")
        memory = result.figures.memory
        sizes: dict[str, Any] = {"device": None, **memory.sizes}
        return cls(result.runtime, result.figures.latency, memory.model_bytes, device_bytes(sizes))


@dataclass(frozen=True)
class BatchFigures:
    """Both sides at one batch size; ``ratio`` is the median time of B over that of A."""

    batch: int
    a: SideFigures
    b: SideFigures
    ratio: Estimate | None


@dataclass(frozen=True)
class TimeFound:
    """Time and memory of both sides, measured in turns.

    Attributes:
        batches: smallest first.
        threads: inside one operator.
        warmup, duration: seconds of untimed and of timed calls for each measurement.
        clock: what is counted.
        notes: what a reader has to know.
    """

    batches: tuple[BatchFigures, ...]
    threads: int
    warmup: float
    duration: float
    clock: str
    notes: tuple[str, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """What could not be measured, in words."""
        return tuple(
            f"{name} at batch {found.batch}: {side.reason}"
            for found in self.batches
            for name, side in (("A", found.a), ("B", found.b))
            if side.reason
        )


def side_by_side(report: BenchReport, a: Wanted, b: Wanted) -> TimeFound:
    """What ``report`` says of two of its subjects, of each batch size that it has both at.

    Args:
        report: of a benchmark in which each group's first subject is A or B.
        a, b: of two files with the same bytes the first is A.
    """
    return TimeFound(
        tuple(sorted(_batches(report, a, b), key=lambda found: found.batch)),
        report.timing.threads,
        report.timing.warmup,
        report.timing.duration,
        str(report.method["clock"]),
        report.notes,
    )


def _batches(report: BenchReport, a: Wanted, b: Wanted) -> Iterator[BatchFigures]:
    groups: dict[int, list[Result]] = {}
    for result in report.results:
        groups.setdefault(result.group, []).append(result)
    ratios = {(id(ratio.base), id(ratio.other)): ratio.time for ratio in report.ratios}
    for found in groups.values():
        first = next((item for item in found if a.means(item)), None)
        second = next((item for item in reversed(found) if b.means(item)), None)
        if first is None or second is None:
            continue
        yield BatchFigures(
            first.batch,
            SideFigures.of(first),
            SideFigures.of(second),
            _ratio(ratios, first, second),
        )


def _ratio(
    ratios: Mapping[tuple[int, int], Estimate], first: Result, second: Result
) -> Estimate | None:
    """Of the second over the first, whichever of them the group's ratios refer to."""
    if first.status != OK or second.status != OK:
        return None
    if (id(first), id(second)) in ratios:
        return ratios[id(first), id(second)]
    turned = ratios.get((id(second), id(first)))
    if turned is None:
        return None
    return Estimate(1 / turned.value, 1 / turned.high, 1 / turned.low)
