"""Measure several subjects in turns, so that whatever the machine does happens to all of them.

Every subject of a group has a process of its own, which is loaded and warm before the first turn.
In each round every subject gets one turn, and the order moves on by one from round to round, so
that none always runs behind the same neighbour. While one works, the others wait on a pipe.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vim_deploy.bench.process import SubjectFailedError, WorkerProcess
from vim_deploy.bench.stats import Floats
from vim_deploy.bench.subject import Subject

#: Rounds a group gets; fewer only where single calls are too long for that many.
MOST_ROUNDS = 10
FEWEST_ROUNDS = 3
#: A turn begins with one call that is not timed, which brings the subject's data back into the
#: caches, unless calls are so long (seconds) that this is lost in them.
SETTLE_BELOW_SECONDS = 0.5

OK = "ok"
FAILED = "failed"
SKIPPED = "skipped"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Timing:
    """How long to measure: seconds of warm-up and of timed calls for each subject; threads."""

    warmup: float
    duration: float
    threads: int


@dataclass
class Measurement:
    """What was found about one subject.

    Attributes:
        status: ``OK``, ``FAILED`` or ``SKIPPED``; ``reason`` says why it is not ok.
        group: number of the group; only members of one group were measured in turns.
        runtime: name and version of the runtime.
        turns: seconds of every timed call, one array for each turn.
        device_turns: the same by the device's clock, where there is one.
        memory: bytes, see ``bench.worker``.
        load_seconds: time to load the model; not part of the latency.
        cpu_seconds: processor time of the whole process.
        finite: whether all outputs were finite; arithmetic with NaN may take another time.
    """

    subject: Subject
    group: int
    status: str = OK
    reason: str = ""
    runtime: str = ""
    turns: list[Floats] = field(default_factory=list)
    device_turns: list[Floats] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    load_seconds: float | None = None
    cpu_seconds: float = 0.0
    finite: bool = True

    @property
    def ok(self) -> bool:
        """Whether there are figures."""
        return self.status == OK


class _Running:
    """A subject whose process is ready."""

    def __init__(self, measurement: Measurement, worker: WorkerProcess, call: float) -> None:
        self.measurement = measurement
        self.worker = worker
        self.call_seconds = call

    def take_turn(self, seconds: float) -> None:
        """One turn; its samples go to the measurement."""
        settle = self.call_seconds < SETTLE_BELOW_SECONDS
        answer = self.worker.ask({"do": "turn", "seconds": seconds, "settle": settle})
        self.measurement.turns.append(np.asarray(answer["host"], np.float64))
        if answer["device"] is not None:
            device = self.measurement.device_turns or []
            self.measurement.device_turns = [*device, np.asarray(answer["device"], np.float64)]

    def warm_up(self, seconds: float) -> None:
        """Untimed calls; afterwards the length of a call is known better."""
        answer = self.worker.ask({"do": "turn", "seconds": seconds, "settle": False})
        self.call_seconds = float(np.median(answer["host"]))

    def end(self) -> None:
        """Take the memory, and end the process."""
        answer = self.worker.ask({"do": "end"})
        self.measurement.memory = answer["memory"]
        self.measurement.cpu_seconds = answer["cpu_seconds"]


def measure_group(
    subjects: Sequence[Subject],
    timing: Timing,
    group: int,
    progress: Progress = lambda _: None,
    command: Sequence[str] | None = None,
) -> list[Measurement]:
    """Measure ``subjects`` in turns.

    A subject that its runtime cannot run (out of memory, above all) becomes a ``FAILED``
    measurement and the others go on.

    Args:
        progress: told what happens, in words.
        command: of the worker, for tests.

    Raises:
        VimDeployError: what cannot be opened: VIM-301, VIM-4xx.
    """
    measurements = [Measurement(subject, group) for subject in subjects]
    with contextlib.ExitStack() as stack:
        running = []
        for measurement in measurements:
            name = f"{measurement.subject.label} ({measurement.subject.runtime})"
            progress(f"loading {name}")
            worker = stack.enter_context(WorkerProcess(command))
            with _failing(measurement):
                running.append(_start(measurement, worker, timing))
        _rounds([one for one in running if one.measurement.ok], timing, progress)
        for one in running:
            if one.measurement.ok:
                with _failing(one.measurement):
                    one.end()
    return measurements


def _start(measurement: Measurement, worker: WorkerProcess, timing: Timing) -> _Running:
    subject = measurement.subject
    ready = worker.ask(
        {
            "runner": subject.runner,
            "source": subject.source,
            "batch": subject.batch,
            "threads": timing.threads,
        }
    )
    measurement.runtime = ready["name"]
    measurement.load_seconds = ready["load_seconds"]
    measurement.finite = ready["finite"]
    running = _Running(measurement, worker, float(ready["call_seconds"]))
    running.warm_up(timing.warmup)
    return running


def _rounds(running: list[_Running], timing: Timing, progress: Progress) -> None:
    if not running:
        return
    longest = max(one.call_seconds for one in running)
    fitting = int(timing.duration / longest) if longest > 0 else MOST_ROUNDS
    rounds = min(max(fitting, FEWEST_ROUNDS), MOST_ROUNDS)
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        first = number % len(running)
        for one in running[first:] + running[:first]:
            if one.measurement.ok:
                with _failing(one.measurement):
                    one.take_turn(timing.duration / rounds)


@contextlib.contextmanager
def _failing(measurement: Measurement) -> Iterator[None]:
    """Turn a failure of the subject into its status."""
    try:
        yield
    except SubjectFailedError as error:
        measurement.status, measurement.reason = FAILED, str(error)
