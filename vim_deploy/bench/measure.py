"""Measure several subjects in turns, so that whatever the machine does happens to all of them.

Every subject of a group has a process of its own, which is loaded and warm before the first turn.
In each round every subject gets one turn, and the order moves on by one from round to round, so
that none always runs behind the same neighbour. While one works, the others wait on a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np

from vim_deploy.bench.stats import Floats
from vim_deploy.bench.subject import Subject
from vim_deploy.errors import CATALOG, VimDeployError
from vim_deploy.folders import temporary_place
from vim_deploy.helpers import StallWatch, helper_command, kill_helper, start_helper

WORKER_MODULE = "vim_deploy.bench.worker"
_STDERR_LINES = 5
#: Seconds between two looks at a process that has not answered yet.
_POLL_SECONDS = 0.5


class SubjectFailedError(Exception):
    """The runtime failed on this subject, or its process died; the text says how."""


class WorkerProcess:
    """A process that runs one subject; a context manager that never leaves it behind.

    Args:
        command: the worker's command line; this interpreter's by default.
    """

    def __init__(self, command: Sequence[str] | None = None) -> None:
        # A file and not a pipe: nobody has to read it while the worker runs.
        self._stderr = tempfile.TemporaryFile(dir=temporary_place())  # noqa: SIM115 - see __exit__
        self._process = start_helper(command or helper_command(WORKER_MODULE), self._stderr)
        self._lines: queue.Queue[bytes] = queue.Queue()
        reader = threading.Thread(target=self._read, daemon=True)
        try:
            reader.start()
        except RuntimeError:
            kill_helper(self._process)
            raise

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in stdout:
                self._lines.put(line)
        self._lines.put(b"")

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # It has nothing to save, and it may be in the middle of a long call.
        kill_helper(self._process)
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Send one order and wait for its answer.

        Raises:
            VimDeployError: the worker's own coded error.
            SubjectFailedError: the runtime failed, or the process died.
        """
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()
        line = self._answer()
        if not line:
            raise SubjectFailedError(self._death())
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise SubjectFailedError(f"the process answered {line[:80]!r}") from error
        if answer["event"] == "failed":
            if answer["code"] in CATALOG:
                why, fix = answer["why"], answer["fix"]
                raise VimDeployError(answer["code"], answer["message"], why=why, fix=fix)
            raise SubjectFailedError(answer["message"])
        return answer

    def _answer(self) -> bytes:
        """The next line; nothing when the process has ended. VIM-310 when it has stalled."""
        watch = StallWatch(self._process)
        while True:
            try:
                return self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                watch.require_life(self._said())

    def _said(self) -> list[str]:
        # The worker writes at the place that this file is at: it is read without moving.
        handle = self._stderr.fileno()
        text = os.pread(handle, os.fstat(handle).st_size, 0).decode(errors="replace").strip()
        return text.splitlines()[-_STDERR_LINES:]

    def _death(self) -> str:
        status = self._process.wait()
        said = self._said()
        if status == -signal.SIGKILL:
            return "the process was killed, probably because memory ran out"
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return "; ".join([f"the process ended {how}", *said])


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
        cpu_turns: processor seconds of the same calls, all threads of the process together.
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
    cpu_turns: list[Floats] = field(default_factory=list)
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
        self.measurement.cpu_turns.append(np.asarray(answer["cpu"], np.float64))
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
