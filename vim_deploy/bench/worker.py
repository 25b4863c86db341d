"""The process that runs one subject: ``python -m vim_deploy.bench.worker``.

Every subject has a fresh process, so that its memory is its own and no runtime's waiting threads
take time from another's. Orders come as lines of JSON on standard input, and each is answered by
one line on standard output; the end of the input ends the process::

    {"runner": ..., "source": {...}, "batch": 8, "threads": 2}
        -> {"event": "ready", "name": ..., "call_seconds": ..., "finite": true, ...}
    {"do": "turn", "seconds": 0.3, "settle": true}
        -> {"event": "turn", "host": [...], "device": null}
    {"do": "end"}
        -> {"event": "end", "memory": {...}, "cpu_seconds": ...}

A failure is answered by ``{"event": "failed", ...}`` with the fields of a coded error, or with an
empty code for an exception of the runtime.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

from vim_deploy.bench import memory
from vim_deploy.bench.clock import Sample, timed_turn
from vim_deploy.bench.subject import input_for, load_runtime, open_runner
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import Array, Runner
from vim_deploy.runtimes.finite import unfit


class _Loaded:
    """A runner with its input, and what its process needed to get there."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        load_runtime(job["runner"])
        self.runtime_bytes = memory.resident_bytes()
        started = time.perf_counter()
        self.runner: Runner = open_runner(job["runner"], job["source"], int(job["threads"]))
        self.load_seconds = time.perf_counter() - started
        self.image: Array = input_for(self.runner, int(job["batch"]))
        self.load_peak_bytes = memory.peak_bytes()
        self.peak_was_reset = memory.reset_peak()

    def memory(self) -> dict[str, Any]:
        """Bytes; ``run_peak`` is None where the load's peak could not be told from it.

        ``device`` is what the runner says it takes of a GPU's memory, None where it says nothing.
        """
        peak = memory.peak_bytes()
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
