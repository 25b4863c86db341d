"""An interrupt that a library swallowed still keeps an output from being put in place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import os, signal, sys
from pathlib import Path
from vim_deploy import interrupts
from vim_deploy.files import write_bytes
interrupts.install()
if sys.argv[1] != "none":
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    except KeyboardInterrupt:
        pass  # as a library would
try:
    write_bytes(Path("out"), b"x")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    ("signal", "said"), [("SIGINT", "interrupted"), ("SIGTERM", "interrupted"), ("none", "")]
)
def test_swallowed_interrupt(tmp_path: Path, signal: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, signal],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == said
    assert [path.name for path in tmp_path.iterdir()] == ([] if said else ["out"])
