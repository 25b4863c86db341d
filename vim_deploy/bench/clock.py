"""The clock of every measurement: what lies between its start and its stop.

Host time is what a caller waits. Where a runtime can say how long its device worked, that is kept
beside it and never mixed with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from vim_deploy.runtimes.base import Array, Runner

#: Stands in every report.
SCOPE = (
    "one call of the runtime: from a prepared NumPy batch in host memory to the outputs as NumPy "
    "arrays, the check of the input's shape included; loading the model, preparing pictures and "
    "the first calls (warm-up) are outside"
)


@dataclass(frozen=True)
class Sample:
    """One timed call, in seconds; ``device`` is None where there is no device clock."""

    host: float
    device: float | None = None


def timed_call(runner: Runner, image: Array) -> Sample:
    """Run one batch and time it as ``SCOPE`` says."""
    started = time.perf_counter_ns()
    runner.run(image)
    host = (time.perf_counter_ns() - started) / 1e9
    return Sample(host, runner.device_seconds())


def timed_turn(runner: Runner, image: Array, seconds: float) -> list[Sample]:
    """Calls back to back until ``seconds`` have passed, at least one."""
    samples: list[Sample] = []
    end = time.perf_counter() + seconds
    while not samples or time.perf_counter() < end:
        samples.append(timed_call(runner, image))
    return samples


def resolution() -> float:
    """Smallest step of the clock, in seconds, as the system states it."""
    return time.get_clock_info("perf_counter").resolution
