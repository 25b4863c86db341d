"""Ctrl-C and a polite kill at any moment of any long command: 130 soon, and nothing half-made.

By default of ``deploy``, which goes through the stages of the others, and of ``package``, two
moments each. VIM_TEST_ALL=1 tries 200 of all commands, in about half an hour.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds import RTX_IS_INSTALLED
from tests.support.models import save_tiny, tiny_config
from tests.support.source import REPOSITORY
from vim_deploy.codec import encode
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export as export_here

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="POSIX signals"),
]
ALL = os.environ.get("VIM_TEST_ALL") == "1"
#: Moments of all commands together.
MOMENTS = 200 if ALL else 2
#: Seconds from the signal to the end. On a quiet machine it is below 5; this is for loaded ones.
LIMIT = 5.0 if ALL else 30.0
#: The interpreter's own start: before it, Python's own handlers are in place.
FIRST_MOMENT = 0.15

TINY = ["tiny.pth", "--config", "tiny.json"]
COMMANDS = {
    "export": ["export", *TINY, "-o", "new.onnx"],
    "package": ["package", "d.onnx", "--runtime", "python", "-o", "new"],
    "verify": ["verify", "d.onnx", "--against", "tiny.pth", "--report", "new"],
    "build-engine": ["build-engine", "d.onnx", "-o", "new.plan", "--runtime", "tensorrt-rtx"],
    "deploy": ["deploy", *TINY, "--work", "new", "--runtime", "tensorrt-rtx"],
}


def started(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "vim_deploy", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read: an exported toy and its checkpoint."""
    folder = tmp_path_factory.mktemp("given")
    checkpoint, _ = save_tiny(folder)
    request = ModelRequest(str(checkpoint), config=encode(tiny_config()))
    export_here(request, folder / "d.onnx", ExportOptions(check=False))
    return folder


@pytest.fixture(scope="module")
def seconds(given: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """How long each command takes when nobody interrupts it."""
    found = {}
    chosen = set(COMMANDS)
    if not RTX_IS_INSTALLED:
        chosen -= {"build-engine", "deploy"}
    if not ALL:
        chosen &= {"deploy" if RTX_IS_INSTALLED else "export", "package"}
    for name in sorted(chosen):
        arguments = COMMANDS[name]
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(given, folder, dirs_exist_ok=True)
        began = time.monotonic()
        process = started(arguments, folder)
        said = process.communicate()[1]
        assert process.returncode == 0, said
        found[name] = time.monotonic() - began
    return found


def moments(seconds: dict[str, float]) -> Iterator[tuple[str, float, signal.Signals]]:
    choose = random.Random(14)
    names = sorted(seconds)
    for number in range(MOMENTS):
        name = names[number % len(names)]
        yield (
            name,
            choose.uniform(FIRST_MOMENT, seconds[name]),
            choose.choice((signal.SIGINT, signal.SIGTERM)),
        )


@pytest.mark.timeout(7200)
def test_interrupted_at_any_moment(given: Path, seconds: dict[str, float], tmp_path: Path) -> None:
    before = {path.name for path in given.iterdir()}
    interrupted = 0
    for number, (name, moment, which) in enumerate(moments(seconds)):
        folder = tmp_path / str(number)
        shutil.copytree(given, folder)
        process = started(COMMANDS[name], folder)
        time.sleep(moment)
        process.send_signal(which)
        began = time.monotonic()
        said = process.communicate()[1].decode(errors="replace")
        took = time.monotonic() - began
        what = f"{name}, {which.name} after {moment:.2f} s: {said[-2000:]}"
        assert process.returncode in (0, 130), f"{process.returncode}: {what}"
        assert took < LIMIT, f"ended {took:.1f} s later: {what}"
        assert "Traceback" not in said, what
        left = {path.name for path in folder.iterdir()} - before
        hidden = [path for path in left if path.startswith(".")]
        assert not hidden, f"{hidden}: {what}"
        if process.returncode == 130:
            interrupted += 1
            # deploy keeps what earlier stages have finished, and verify the folder of its report.
            assert left <= {"deploy": {"new"}, "verify": {"new"}}.get(name, set()), (
                f"{left}: {what}"
            )
            parts = [path for path in folder.rglob("*") if path.suffix in (".part", ".lock")]
            assert not parts, f"{parts}: {what}"
        shutil.rmtree(folder)
    assert interrupted >= MOMENTS // 2
