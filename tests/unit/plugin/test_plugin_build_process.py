"""The compilers of a plugin build end with the command that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.source import REPOSITORY

PROGRAM = """
from vim_deploy import interrupts
from vim_deploy.plugin import compiling
interrupts.install()
compiling.run_tool(["sh", "-c", "sleep 600 & echo $! > new; mv new child; wait"], "failed", "")
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_what_a_build_has_started_ends_with_it(tmp_path: Path) -> None:
    """A supervisor's signal reaches the command alone, and not its compilers."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.DEVNULL,
    )
    ends = time.monotonic() + 30
    while not (tmp_path / "child").exists() and time.monotonic() < ends:
        time.sleep(0.05)
    child = int((tmp_path / "child").read_text())
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    stat = Path("/proc", str(child), "stat")
    # A killed process stays listed until whoever inherited it asks for its status.
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < ends, f"process {child} goes on"
        time.sleep(0.05)
