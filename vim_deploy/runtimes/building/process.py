"""The parent's side of an engine build: start the worker, follow it, stop it.

The worker has its own session, so that Ctrl-C in a terminal reaches only this process, which then
closes the worker's standard input (the order to stop), waits, and at last kills it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

from vim_deploy.errors import VimDeployError
from vim_deploy.helpers import StallWatch, helper_command, kill_helper, start_helper
from vim_deploy.runtimes.building.request import Job
from vim_deploy.runtimes.building.worker import CANCEL_GRACE_SECONDS

#: Seconds between calls of the progress callback while the worker says nothing.
HEARTBEAT_SECONDS = 0.25
#: The worker ends itself after its own grace; this is for one that no longer can.
_KILL_AFTER_SECONDS = CANCEL_GRACE_SECONDS + 1.0
_STDERR_LINES = 40
_STDERR_SHOWN = 8
#: Said once for every node of every further call of a local function; harmless.
_HARMLESS = ("A node named", "already exists")

#: Measured with 1.7.1: this phase is where the compiler works, nine tenths of a build's time.
_TITLES = {"Determining refit engines": "Compiling"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildProgress:
    """Where a build is.

    Attributes:
        phase: what the builder does, in its own words.
        step, steps: steps done and expected in this phase; 0 expected means not known.
        depth: how many phases enclose this one.
        elapsed: seconds since the build began.
    """

    phase: str
    step: int
    steps: int
    depth: int
    elapsed: float

    @property
    def title(self) -> str:
        """The phase for people: the builder's own name where that says what is happening."""
        return _TITLES.get(self.phase, self.phase)


ProgressCallback = Callable[[BuildProgress], None]


class _Phases:
    """The open phases, innermost last."""

    def __init__(self, title: str) -> None:
        self._began = time.monotonic()
        self._open = [BuildProgress(f"Starting {title}", 0, 0, 0, 0.0)]

    def now(self) -> BuildProgress:
        """The innermost open phase, with the time."""
        return replace(self._open[-1], elapsed=time.monotonic() - self._began)

    def take(self, event: Mapping[str, Any]) -> None:
        """Follow one event of the worker."""
        kind, name = event["event"], event.get("name", "")
        if kind == "phase":
            depth = len(self._open) - 1
            self._open.append(BuildProgress(name, 0, int(event["steps"]), depth, 0.0))
        elif kind == "step":
            self._open = [
                replace(phase, step=int(event["step"])) if phase.phase == name else phase
                for phase in self._open
            ]
        elif kind == "phase_end":
            names = [phase.phase for phase in self._open]
            if name in names[1:]:
                # Whatever is still open inside it ends with it.
                del self._open[len(names) - 1 - names[::-1].index(name)]


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    try:
        return start_helper(command, subprocess.PIPE)
    except OSError as error:
        raise VimDeployError(
            "VIM-604",
            f"cannot start the build process {command[0]}",
            why=str(error),
            fix="check that this Python interpreter can be run, and that memory is free",
        ) from error


class _Worker:
    """A running worker process and the threads that read from it."""

    def __init__(self, command: Sequence[str], job: Job) -> None:
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self.process = _start(command)
        stdin, stdout, stderr = self.process.stdin, self.process.stdout, self.process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        self._stdin: IO[bytes] = stdin
        self._streams = (stdin, stdout, stderr)
        self._threads = [
            threading.Thread(target=self._read_events, args=(stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(stderr,), daemon=True),
        ]
        self.watch = StallWatch(self.process)
        # A job may be larger than a pipe holds, and the worker may never read it.
        order = job.encoded()
        self._threads.append(threading.Thread(target=self._write, args=(order,), daemon=True))
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:
            kill_helper(self.process)
            raise

    def _write(self, order: bytes) -> None:
        # A worker that died at once is reported by its exit status, not by this pipe.
        with contextlib.suppress(OSError, ValueError):
            self._stdin.write(order)
            self._stdin.flush()

    def _read_events(self, stream: IO[bytes]) -> None:
        for line in stream:
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                self.events.put(event)
            else:
                self.stderr.append(line.decode(errors="replace").rstrip())
        self.events.put(None)

    def _read_stderr(self, stream: IO[bytes]) -> None:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            self.stderr.append(text)
            _log.debug("build process: %s", text)

    def stop(self) -> None:
        """Order the worker to stop; kill it when it does not. Safe on one that has ended."""
        try:
            with contextlib.suppress(BrokenPipeError):
                self._stdin.close()
            self.process.wait(_KILL_AFTER_SECONDS)
        except subprocess.TimeoutExpired:
            kill_helper(self.process)
        except KeyboardInterrupt:
            kill_helper(self.process)
            raise
        finally:
            self._finish()

    def wait(self) -> int:
        """The exit status of a worker that has said its last word."""
        while True:
            try:
                return self.process.wait(HEARTBEAT_SECONDS)
            except subprocess.TimeoutExpired:
                self.watch.require_life(list(self.stderr))

    def _finish(self) -> None:
        for thread in self._threads:
            thread.join(timeout=1.0)
        for stream in self._streams:
            with contextlib.suppress(OSError, ValueError):
                stream.close()


def worker_command(module: str) -> list[str]:
    """The command that runs a worker's module with this interpreter."""
    return helper_command(module)


def run_worker(
    job: Job, progress: ProgressCallback | None = None, command: Sequence[str] | None = None
) -> dict[str, Any]:
    """Run one build in a process of its own; the facts of its ``done`` event.

    Args:
        job: what to do.
        progress: called in this thread on every event and a few times a second in between. What
            it raises, KeyboardInterrupt included, stops the build.
        command: the worker's command line.

    Raises:
        VimDeployError: what the worker reports; VIM-310 (stalled), VIM-604 (died).
        OSError: the worker could not write its output.
    """
    worker = _Worker(command or worker_command(job.worker), job)
    try:
        last = _follow(worker, progress, job.title)
        status = worker.wait()
    finally:
        worker.stop()
    if last is None or last["event"] == "cancelled":
        raise error_from_death(status, list(worker.stderr), job.model_name)
    if "errno" in last:
        raise OSError(last["errno"], os.strerror(last["errno"]))
    if last["event"] == "failed":
        raise VimDeployError(last["code"], last["message"], why=last["why"], fix=last["fix"])
    if status != 0:
        _log.warning("the build process finished its work and ended with status %d", status)
    return last


def error_from_death(status: int, stderr: Sequence[str], model: str) -> VimDeployError:
    """VIM-604 for a worker that ended without a closing event."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        how = f"it was ended by {name}"
        if name == "SIGKILL":
            how += ", often sent by the system when memory runs out"
    else:
        how = f"it ended with status {status}"
    said = "\n".join(list(stderr)[-_STDERR_SHOWN:])
    return VimDeployError(
        "VIM-604",
        f"the process building an engine from {model} died",
        why=f"{how}\n{said}".rstrip(),
        fix="try a smaller --max-batch or a machine with more memory; nothing was written",
    )


def _follow(
    worker: _Worker, progress: ProgressCallback | None, title: str
) -> dict[str, Any] | None:
    """Read events until the worker's output ends; its closing event, if there was one."""
    phases = _Phases(title)
    said: set[str] = set()
    last = None
    while True:
        try:
            event = worker.events.get(timeout=HEARTBEAT_SECONDS)
            worker.watch.spoke()
        except queue.Empty:
            event = {"event": "heartbeat"}
            worker.watch.require_life(list(worker.stderr))
        if event is None:
            return last
        if event["event"] in ("done", "failed", "cancelled"):
            last = event
        elif event["event"] == "log":
            _forward(event, said, title)
            continue
        else:
            phases.take(event)
        if progress is not None:
            progress(phases.now())


def _forward(event: Mapping[str, Any], said: set[str], title: str) -> None:
    """Pass on the runtime's log; each warning once, errors as detail of the coded error."""
    message = str(event["message"])
    harmless = all(part in message for part in _HARMLESS)
    if event["severity"] == "warning" and not harmless and message not in said:
        said.add(message)
        _log.warning("%s: %s", title, message)
    else:
        _log.debug("%s %s: %s", title, event["severity"], message)
