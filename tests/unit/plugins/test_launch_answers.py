"""What a launch makes of CUDA's answers: its own failure is told, another's error is left alone.

The checks stand in ``plugins/tests/host/launch_answers.cpp``.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support import plugins


def test_launches_and_errors_that_others_left(tmp_path: Path) -> None:
    compiler = plugins.need_tool("g++")
    headers = plugins.need_toolkit().root / "include"
    program = tmp_path / "launch_answers"
    # To g++, __device__ and its like are attributes of somebody else.
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-attributes"]
    command += ["-isystem", str(headers), f"-I{plugins.PLUGINS / 'kernels'}"]
    command += [str(plugins.HOST_TESTS / "launch_answers.cpp"), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n")
