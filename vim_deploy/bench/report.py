"""One benchmark run as a record: ``bench.json``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

import vim_deploy
from vim_deploy.bench import environment, stats
from vim_deploy.bench.measure import FAILED, OK, Measurement, Timing
from vim_deploy.codec import Count, encode, stored
from vim_deploy.errors import VimDeployError
from vim_deploy.files import write_json
from vim_deploy.paths import StrPath, as_path
from vim_deploy.runtimes.base import not_finite

#: Raised whenever figures of the old and the new method may not be compared.
SCHEMA = 1
#: Kinds of figure and how they come about; stands in every report.
METHOD = {
    "clock": "one call of the runtime: from a prepared NumPy batch in host memory to the outputs "
    "as NumPy arrays, the check of the input's shape included; loading the model, preparing "
    "pictures and the first calls (warm-up) are outside; cpu: processor time of the same calls, of "
    "all threads of the process, also of those that wait for work without sleeping",
    "turns": "one fresh process for each measurement; all of a group (same image and batch size) "
    "take turns, in an order that moves on each round; ratios are taken inside a group only",
    "percentiles": "of all timed calls, linear interpolation; null where there are too few calls "
    "to show one (100 for p99, 20 for p95, 10 for p90)",
    "intervals": "95 %, percentile bootstrap over turns, 1000 resamples, seeded",
    "throughput": "images of the timed calls over the time inside the clock, one call after "
    "another",
    "memory": "resident memory by the kernel's VmHWM; run_peak from before the first call to the "
    "end, model = run_peak less the runtime's own before the model was loaded; device: bytes of "
    "the GPU's memory that the runner says engine, each context and buffers take",
    "device_latency": "by CUDA events around the engine's work, copies not included; null where "
    "there is no device clock",
    "input": "seeded random values; time does not depend on them",
}
#: Fewer points than this do not show a curve.
_FEWEST_SIZES = 3


@stored(keys=("*sizes", "model_bytes"))
@dataclass(frozen=True)
class Memory:
    """Bytes that a measurement took.

    Attributes:
        model_bytes: peak while running less what the runtime had before the model; None when not
            known.
        sizes: of ``bench.worker``, stored beside it.
    """

    model_bytes: Count | None
    sizes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, sizes: Mapping[str, Any]) -> Memory:
        """From what the worker has read."""
        peak, runtime = sizes.get("run_peak_bytes"), sizes.get("runtime_bytes")
        return cls(None if peak is None or runtime is None else max(peak - runtime, 0), sizes)


@stored(sparse=("cpu_ms",))
@dataclass(frozen=True)
class Figures:
    """What was measured, where it could be; see ``METHOD``.

    ``cpu_ms`` is the median of the calls' processor time; None in reports of version 0.1.0.
    """

    calls: int
    turns: int
    outputs_finite: bool
    load_seconds: float | None
    latency: stats.Latency
    device_latency: stats.Latency | None
    images_per_second: stats.Estimate
    memory: Memory
    cpu_ms: stats.Estimate | None = None


@stored(without=("figures",), also=("*figures",))
@dataclass(frozen=True)
class Result:
    """One measurement as it is stored: what it is of, how it ended, and its figures.

    Attributes:
        group, label, runner, batch, image, tokens, facts, estimated_bytes: see ``bench.subject``.
        runtime: name and version of the runtime; empty where it was not measured.
        status, reason: see ``bench.measure.Measurement``.
        figures: where there are any.
    """

    group: int
    label: str
    runner: str
    runtime: str
    batch: int
    image: tuple[int, int]
    tokens: int | None
    facts: Mapping[str, Any]
    status: str
    reason: str
    estimated_bytes: int | None
    figures: Figures | None = None

    def __post_init__(self) -> None:
        """ValueError for a measurement that was made and says nothing."""
        if self.status == OK and self.figures is None:
            raise ValueError(f"{self.label!r} was measured and has no figures")

    @classmethod
    def of(cls, item: Measurement) -> Result:
        """With the intervals of its figures, which takes a moment."""
        subject, device = item.subject, item.device_turns
        figures = Figures(
            calls=sum(len(turn) for turn in item.turns),
            turns=len(item.turns),
            outputs_finite=item.finite,
            load_seconds=item.load_seconds,
            latency=stats.latency_summary(item.turns),
            device_latency=None if device is None else stats.latency_summary(device),
            images_per_second=stats.throughput(item.turns, subject.batch),
            memory=Memory.of(item.memory),
            cpu_ms=_median_ms(item.cpu_turns),
        ) if item.ok else None  # fmt: skip
        return cls(
            *(item.group, subject.label, subject.runtime, item.runtime, subject.batch),
            *(subject.image, subject.tokens, subject.facts, item.status, item.reason),
            *(subject.estimated_bytes, figures),
        )


@stored(
    keys=(
        "group=base.group", "batch=base.batch", "image=base.image", "of=other.label",
        "of_runner=other.runner", "to=base.label", "to_runner=base.runner", "time", "model_memory",
        "cpu_time",
    ),
    sparse=("cpu_time",),
)  # fmt: skip
@dataclass(frozen=True)
class Ratio:
    """Time and memory of ``other`` over those of ``base``, the first of its group.

    ``cpu_time`` is the same ratio of processor time. On one thread it hardly depends on what else
    runs; on several, waiting threads are in it.
    """

    base: Result
    other: Result
    time: stats.Estimate
    model_memory: float | None
    cpu_time: stats.Estimate | None = None


@stored(
    keys=(
        "label", "runner", "batch", "tokens", "exponent=fit.exponent",
        "exponent_standard_error=fit.standard_error", "r_squared=fit.r_squared", "method=METHOD",
    )
)  # fmt: skip
@dataclass(frozen=True)
class Scaling:
    """How the median time of one model grows with its tokens."""

    METHOD: ClassVar[str] = "least squares on log(median seconds) against log(tokens)"

    label: str
    runner: str
    batch: int
    tokens: tuple[int, ...]
    fit: stats.PowerLaw


@dataclass(frozen=True)
class ComparedFigure:
    """A figure of this run and of an earlier one, in words, and whether it is a regression."""

    what: str
    figure: str
    old: str
    new: str
    ratio: float
    verdict: str


@stored(sparse=("kernels",))
@dataclass(frozen=True)
class Comparison:
    """This run against an earlier one; see ``bench.compare``.

    ``kernels`` has a sentence for native ops that were others then than they are now.
    """

    baseline: str
    baseline_date: str | None
    max_regress: float
    entries: tuple[ComparedFigure, ...]
    only_in_baseline: tuple[str, ...]
    only_here: tuple[str, ...]
    kernels: tuple[str, ...] = ()


@stored(
    head={"tool": f"vim-deploy {vim_deploy.__version__}", "schema": SCHEMA},
    keys=(
        "command", "settings", "method", "machine", "state=state_and_disturbance", "results",
        "ratios", "scaling", "comparison", "notes",
    ),
)  # fmt: skip
@dataclass(frozen=True)
class BenchReport:
    """What was measured and on what.

    Attributes:
        measurements: group by group, the first of each group being what ratios refer to.
        timing: settings of the run.
        machine, state, disturbance: see ``bench.environment``.
        settings: what was asked for, JSON-able.
        notes: sentences a reader has to know.
        command: to repeat it.
        comparison: result of ``bench.compare``, when there was one.
    """

    measurements: tuple[Measurement, ...]
    timing: Timing
    machine: Mapping[str, Any]
    state: Mapping[str, Any]
    disturbance: Mapping[str, Any]
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    comparison: Comparison | None = None

    @property
    def method(self) -> dict[str, Any]:
        """How the figures come about."""
        return {
            **METHOD,
            "clock_resolution_seconds": time.get_clock_info("perf_counter").resolution,
        }

    @property
    def state_and_disturbance(self) -> dict[str, Any]:
        """The machine's state before the run, and what happened during it."""
        return {**self.state, "during": self.disturbance}

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """Every measurement; their intervals are computed once."""
        return tuple(map(Result.of, self.measurements))

    @cached_property
    def ratios(self) -> tuple[Ratio, ...]:
        """Of every measurement to the first of its group."""
        return tuple(self._ratios())

    def _ratios(self) -> Iterator[Ratio]:
        firsts: dict[int, tuple[Measurement, Result]] = {}
        for item, other in zip(self.measurements, self.results, strict=True):
            first, base = firsts.setdefault(item.group, (item, other))
            # Without the first there is nothing to refer to; another one would be another ratio.
            if other is base or base.figures is None or other.figures is None:
                continue
            time = stats.ratio_of_medians(item.turns, first.turns)
            mine, theirs = base.figures.memory.model_bytes, other.figures.memory.model_bytes
            memory = None if not mine or theirs is None else theirs / mine
            known = item.cpu_turns and first.cpu_turns
            cpu = stats.ratio_of_medians(item.cpu_turns, first.cpu_turns) if known else None
            yield Ratio(base, other, time, memory, cpu)

    @property
    def scaling(self) -> tuple[Scaling, ...]:
        """Of each model with three sizes or more."""
        curves: dict[tuple[str, str, int], dict[int, float]] = {}
        for item in self.measurements:
            subject = item.subject
            if item.ok and subject.tokens is not None:
                curve = curves.setdefault((subject.label, subject.runtime, subject.batch), {})
                curve[subject.tokens] = float(np.median(np.concatenate(item.turns)))
        return tuple(
            Scaling(
                *names, tuple(sorted(curve)), stats.fit_power_law(list(curve), [*curve.values()])
            )
            for names, curve in curves.items()
            if len(curve) >= _FEWEST_SIZES
        )

    def write(self, path: StrPath) -> None:
        """Write it to ``path``, atomically."""
        write_json(as_path(path, "path"), encode(self))

    def require_measured(self) -> None:
        """Raise what makes figures missing or worthless; what was skipped on purpose is not meant.

        Raises:
            VimDeployError: VIM-1002 naming what could not be measured, VIM-430 what gives NaN or
                Inf.
        """
        failed = [item for item in self.measurements if item.status == FAILED]
        if failed:
            raise VimDeployError(
                "VIM-1002",
                f"{len(failed)} of {len(self.measurements)} measurements failed",
                why="\n".join(f"{describe(item)}: {item.reason}" for item in failed),
                fix="smaller --batches or --image-sizes; the report holds what could be measured",
            )
        stray = [describe(item) for item in self.measurements if item.ok and not item.finite]
        if stray:
            raise not_finite(
                "random input, so its times are those of no useful run", "\n".join(stray)
            )


def _median_ms(turns: Sequence[stats.Floats]) -> stats.Estimate | None:
    """Of all calls, with its interval; None where nobody counted."""
    if not turns:
        return None
    return stats.bootstrap([turn * 1e3 for turn in turns], lambda some: float(np.median(some)))


def describe(item: Measurement) -> str:
    """One measurement in words."""
    subject = item.subject
    height, width = subject.image
    return f"{subject.label}, {subject.runtime}, {height}x{width}, batch {subject.batch}"


def busy_notes(
    before: Mapping[str, Any], cpus: int, disturbance: Mapping[str, Any]
) -> Iterator[str]:
    """What was wrong with the machine's state, as sentences."""
    load = before.get("load_average")
    if load and load[0] > cpus / 2:
        yield f"the machine was busy before the run: load {load[0]:.2f} on {cpus} processors"
    for key, who in (("other_share", "other processes"), ("stolen_share", "the host")):
        share = disturbance.get(key)
        if share is not None and share > environment.BUSY_SHARE:
            yield f"{who} took {100 * share:.0f} % of the processors' time during the run"
