"""The parent's side of a measuring process: start it, ask it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

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
