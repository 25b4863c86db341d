"""The parent's side of a measuring process: start it, ask it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import vim_deploy
from vim_deploy.errors import CATALOG, VimDeployError

WORKER_MODULE = "vim_deploy.bench.worker"
_STDERR_LINES = 5


class SubjectFailedError(Exception):
    """The runtime failed on this subject, or its process died; the text says how."""


class WorkerProcess:
    """A process that runs one subject; a context manager that never leaves it behind.

    Args:
        command: the worker's command line; this interpreter's by default.
    """

    def __init__(self, command: Sequence[str] | None = None) -> None:
        # A file and not a pipe: nobody has to read it while the worker runs.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            list(command or (sys.executable, "-m", WORKER_MODULE)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            # -m looks into the working folder first: it must be ours, not the user's.
            cwd=Path(vim_deploy.__file__).resolve().parents[1],
            # Ctrl-C in a terminal reaches this process alone, which then ends the worker.
            start_new_session=True,
        )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # It has nothing to save, and it may be in the middle of a long call.
        with contextlib.suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:  # pragma: no cover - Linux is what is tested
                self._process.kill()
        self._process.wait()
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
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()
        line = stdout.readline()
        if not line:
            raise SubjectFailedError(self._death())
        answer: dict[str, Any] = json.loads(line)
        if answer["event"] == "failed":
            if answer["code"] in CATALOG:
                why, fix = answer["why"], answer["fix"]
                raise VimDeployError(answer["code"], answer["message"], why=why, fix=fix)
            raise SubjectFailedError(answer["message"])
        return answer

    def _death(self) -> str:
        status = self._process.wait()
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()
        if status == -signal.SIGKILL:
            return "the process was killed, probably because memory ran out"
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return "; ".join([f"the process ended {how}", *said[-_STDERR_LINES:]])
