"""What every build process does: take a job, tell what happens, stop when told, report the end.

A compiler crash ends this process and not the tool. The job comes as one line of JSON on standard
input; the end of that input, or any further line, is the order to stop, so a worker never outlives
its parent. Events go to standard output, one JSON object per line::

    {"event": "log", "severity": "warning", "message": ...}
    {"event": "phase", "name": ..., "parent": ..., "steps": 30}
    {"event": "step", "name": ..., "step": 4}
    {"event": "phase_end", "name": ...}
    {"event": "done", "layers": ..., "inputs": [...], "outputs": [...], ...}
    {"event": "failed", "code": "VIM-601", "message": ..., "why": ..., "fix": ...}
    {"event": "failed", "errno": 28}                the output was not written
    {"event": "cancelled"}

``compiler.Compiler`` is what these processes share of the build itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.request import AnyJob, decoded

#: After the order to stop, how long a build may take to reach its next step. The compiler works
#: for many seconds without one, and there is nothing to save, so the process then just ends.
CANCEL_GRACE_SECONDS = 2.0
#: Exit status after an order to stop.
CANCELLED_STATUS = 3


class WriteError(OSError):
    """The engine was not written; the parent knows the output's real name."""


class CancelledError(Exception):
    """The build was stopped by order."""


class Events:
    """Writes events to the parent; safe to use from several threads."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: str, **facts: Any) -> None:  # noqa: ANN401
        """Write one event."""
        line = json.dumps({"event": event, **facts}).encode() + b"\n"
        # A parent that is gone reads nothing; the end of standard input ends this process.
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._stream.write(line)
            self._stream.flush()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase of ours, which counts no steps."""
        self.send("phase", name=name, parent=None, steps=0)
        yield
        self.send("phase_end", name=name)


def _watch(stdin: IO[bytes], stop: threading.Event, scratch: tuple[Path, ...]) -> None:
    """Wait for the order to stop, then for the build to notice, then end the process."""
    stdin.read(1)
    stop.set()
    threading.Event().wait(CANCEL_GRACE_SECONDS)
    # The parent removes its files; this is for a parent that was killed.
    for path in scratch:
        with contextlib.suppress(OSError):
            os.unlink(path)
    os._exit(CANCELLED_STATUS)


def serve(
    build: Callable[[AnyJob, Events, threading.Event], dict[str, Any]], kind: type[AnyJob]
) -> int:
    """Run one job of ``kind`` from standard input; the exit status."""
    # Unbuffered: a thread that waits in a buffered reader would hold its lock at exit.
    stdin = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - lives as long as the process
    job = decoded(stdin.readline(), kind)
    channel = os.fdopen(os.dup(1), "wb")
    # What the libraries print themselves must not get between the events.
    os.dup2(2, 1)
    events = Events(channel)
    stop = threading.Event()
    scratch = (job.output, *job.scratch)
    threading.Thread(target=_watch, args=(stdin, stop, scratch), daemon=True).start()
    try:
        facts = build(job, events, stop)
    except (CancelledError, VimDeployError, WriteError) as error:
        if stop.is_set() or isinstance(error, CancelledError):
            events.send("cancelled")
            return CANCELLED_STATUS
        told = {"errno": error.errno} if isinstance(error, WriteError) else error.as_dict()
        events.send("failed", **told)
        return 1
    events.send("done", **facts)
    return 0
