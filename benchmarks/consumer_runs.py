"""Environments of other runtimes, and ``consumer_worker.py`` in them; the standard library alone.

``consumers.py`` measures with it, and the tests of other runtimes run with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("consumer_worker.py")
LOCKS = Path(__file__).resolve().parents[1] / "requirements" / "consumers"
#: What pip says when it gets no wheel here: no such release for this Python, or no index.
_NO_WHEEL = ("No matching distribution", "Could not find a version", "Temporary failure", "Errno")
#: Nobody is told of a run, and what would have pip install something as it goes gets nothing.
_QUIET = {"ORT_DISABLE_TELEMETRY": "1", "PIP_NO_INDEX": "1", "PIP_REQUIRE_VIRTUALENV": "1"}


class NotToBeHadError(Exception):
    """No wheel of a consumer, or none for this Python."""


def locked(lock: Path) -> list[str]:
    """pip's arguments for what a lock pins, by its hashes."""
    return ["--no-deps", "--require-hashes", "-r", str(lock)]


def install(what: Sequence[str], place: Path) -> None:
    """Make ``place``, a folder for PYTHONPATH, with what pip is asked for.

    Raises:
        NotToBeHadError: there is no wheel for this Python, or no index.
        RuntimeError: with what pip says, when it fails otherwise.
    """
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    words += ["--only-binary=:all:", "--target", str(part), *what]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = done.stderr.strip()[-500:]
    if done.returncode and any(text in said for text in _NO_WHEEL):
        raise NotToBeHadError(said)
    if done.returncode:
        raise RuntimeError(said)
    part.rename(place)


def run_folder(
    consumer: str,
    folder: Path,
    environment: Path | None,
    names: Sequence[str] = (),
    seconds: int = 300,
) -> dict[str, Any]:
    """What a consumer makes of the files in ``folder``.

    Args:
        consumer: a name of ``consumer_worker.CONSUMERS``.
        folder: as the worker takes it.
        environment: folder for PYTHONPATH; None: what is installed.
        names: files to run; all where it is empty.
        seconds: for one file. One that takes longer, or ends the process, counts as refused.

    Returns:
        ``version``, and in ``results`` by name what the worker says of each file.

    Raises:
        RuntimeError: the consumer does not start.
    """
    left = list(names) or sorted(path.stem for path in folder.glob("*.onnx"))
    found: dict[str, Any] = {"results": {}}
    while left:
        words = [consumer, str(folder.absolute()), str(seconds), *left]
        done = _started(words, environment)
        for line in done.stdout.splitlines():
            said = json.loads(line)
            if "name" in said:
                found["results"][said.pop("name")] = said
            else:
                found |= said
        if "version" not in found:
            raise RuntimeError(f"{consumer} does not start: {done.stderr.strip()[-2000:]}")
        left = [name for name in left if name not in found["results"]]
        if left:
            found["results"][left.pop(0)] = {"refused": _ended(done.returncode, seconds)}
    return found


def variables(environment: Path | None) -> dict[str, str]:
    """Of a process that runs what others wrote.

    Args:
        environment: its folder for PYTHONPATH; None: what is installed.
    """
    return {**os.environ, **_QUIET, "PYTHONPATH": str(environment or "")}


def _started(words: Sequence[str], environment: Path | None) -> subprocess.CompletedProcess[str]:
    """The worker, in a folder of its own: converters leave files where they are started."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, "-W", "ignore", str(WORKER), *words],
            cwd=folder,
            env=variables(environment and environment.absolute()),
            capture_output=True,
            text=True,
            check=False,
        )


def _ended(code: int, seconds: int) -> str:
    """How a worker ended that had not answered for a file."""
    if code == -signal.SIGALRM:
        return f"no answer in {seconds} s"
    return f"the process ends by {signal.Signals(-code).name}" if code < 0 else f"it exits {code}"
