"""The process that runs one subject: ``python -m vim_deploy.bench.worker``.

Every subject has a fresh process, so that its memory is its own and no runtime's waiting threads
take time from another's. Orders come as lines of JSON on standard input, and each is answered by
one line on standard output; the end of the input ends the process::

    {"runner": ..., "source": {...}, "batch": 8, "threads": 2}
        -> {"event": "ready", "name": ..., "call_seconds": ..., "finite": true, ...}
    {"do": "turn", "seconds": 0.3, "settle": true}
        -> {"event": "turn", "host": [...], "cpu": [...], "device": null}
    {"do": "end"}
        -> {"event": "end", "memory": {...}, "cpu_seconds": ...}

The clock is the host's: what a caller waits. Beside it stands the processor time of the same
calls, of all threads of the process, and where a runtime can say how long its device worked, that;
they are never mixed. Memory is read from ``/proc`` and not by ``getrusage``: on Linux its peak
includes that of the process that *started* this one (kernel, ``exec_mmap`` and
``setmax_mm_hiwater_rss``), so a small process started by a large one would look large. ``VmHWM``
belongs to the program's own memory, and can be set back.

A failure is answered by ``{"event": "failed", ...}`` with the fields of a coded error, or with an
empty code for an exception of the runtime.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vim_deploy.bench.subject import input_for, load_runtime, open_runner
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import Array, Runner, unfit

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
#: proc(5), clear_refs: "5" sets the peak resident size to the present one.
_RESET_PEAK = "5"


def resident_bytes() -> int | None:
    """Resident memory now; None on systems without ``/proc``."""
    return _field("VmRSS")


def peak_bytes() -> int | None:
    """Largest resident memory since the program began, or since ``reset_peak`` worked."""
    return _field("VmHWM")


def reset_peak() -> bool:
    """Give freed memory back and begin a new peak; False where the system does not allow it."""
    gc.collect()
    _trim_heap()
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _trim_heap() -> None:
    """What the C library keeps of freed memory goes back to the system, where it can (glibc)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


def _field(name: str) -> int | None:
    try:
        text = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


@dataclass(frozen=True)
class Sample:
    """One timed call, in seconds; ``device`` is None where there is no device clock."""

    host: float
    cpu: float
    device: float | None = None


def timed_call(runner: Runner, image: Array) -> Sample:
    """Run one batch and time it as ``report.METHOD`` says."""
    worked = time.process_time_ns()
    started = time.perf_counter_ns()
    runner.run(image)
    host = (time.perf_counter_ns() - started) / 1e9
    cpu = (time.process_time_ns() - worked) / 1e9
    return Sample(host, cpu, runner.device_seconds())


def timed_turn(runner: Runner, image: Array, seconds: float) -> list[Sample]:
    """Calls back to back until ``seconds`` have passed, at least one."""
    samples: list[Sample] = []
    end = time.perf_counter() + seconds
    while not samples or time.perf_counter() < end:
        samples.append(timed_call(runner, image))
    return samples


class _Loaded:
    """A runner with its input, and what its process needed to get there."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        load_runtime(job["runner"])
        self.runtime_bytes = resident_bytes()
        started = time.perf_counter()
        self.runner = open_runner(job["runner"], job["source"], int(job["threads"]))
        self.load_seconds = time.perf_counter() - started
        self.image: Array = input_for(self.runner, int(job["batch"]))
        self.load_peak_bytes = peak_bytes()
        self.peak_was_reset = reset_peak()

    def memory(self) -> dict[str, Any]:
        """Bytes; ``run_peak`` is None where the load's peak could not be told from it.

        ``device`` is what the runner says it takes of a GPU's memory, None where it says nothing.
        """
        peak = peak_bytes()
        device = self.runner.memory()
        known = [value for value in (peak, self.load_peak_bytes) if value is not None]
        return {
            "runtime_bytes": self.runtime_bytes,
            "load_peak_bytes": self.load_peak_bytes,
            "run_peak_bytes": peak if self.peak_was_reset else None,
            "process_peak_bytes": max(known, default=None),
            "device": None if device is None else encode(device),
        }


def _ready(loaded: _Loaded) -> dict[str, Any]:
    """Two calls: the first may allocate and compile, the second says how long one takes."""
    outputs = loaded.runner.run(loaded.image)
    second = timed_turn(loaded.runner, loaded.image, 0.0)[0]
    return {
        "event": "ready",
        "name": loaded.runner.name,
        "finite": not unfit(outputs),
        "load_seconds": loaded.load_seconds,
        "call_seconds": second.host,
    }


def _turn(loaded: _Loaded, order: Mapping[str, Any]) -> dict[str, Any]:
    if order["settle"]:
        loaded.runner.run(loaded.image)
    samples: list[Sample] = timed_turn(loaded.runner, loaded.image, float(order["seconds"]))
    device = [sample.device for sample in samples if sample.device is not None]
    return {
        "event": "turn",
        "host": [sample.host for sample in samples],
        "cpu": [sample.cpu for sample in samples],
        "device": device if len(device) == len(samples) else None,
    }


def answers(orders: Iterator[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One answer for each order, the job first; stops after ``end`` or a failure."""
    try:
        loaded = _Loaded(next(orders))
        yield _ready(loaded)
        for order in orders:
            if order["do"] == "turn":
                yield _turn(loaded, order)
            else:
                cpu = time.process_time()
                yield {"event": "end", "memory": loaded.memory(), "cpu_seconds": cpu}
                loaded.runner.close()
                return
    except VimDeployError as error:
        yield {"event": "failed", **error.as_dict()}
    # A runtime's own failure, out of memory above all, is a result about this subject.
    except Exception as error:
        yield {"event": "failed", "code": "", "message": f"{type(error).__name__}: {error}"}


def _lines(stream: IO[bytes]) -> Iterator[Mapping[str, Any]]:
    for line in stream:
        yield json.loads(line)


def main() -> None:
    """Answer orders until the input ends."""
    # What a library prints must not get between the answers: it goes where the errors go.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as channel:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for answer in answers(_lines(sys.stdin.buffer)):
            channel.write(json.dumps(answer).encode() + b"\n")
            channel.flush()


if __name__ == "__main__":
    main()
