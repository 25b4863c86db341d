"""What the machine refuses before any stage has begun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.source import REPOSITORY
from vim_deploy.cli.main import of_the_machine


def test_a_library_that_finds_no_memory_to_be_loaded_to() -> None:
    """As glibc's loader says it under a small ulimit -v, through the import that needs the file."""
    error = of_the_machine(ImportError("libtorch_cpu.so: failed to map segment from shared object"))
    assert error is not None
    assert error.code == "VIM-311"
    assert of_the_machine(ImportError("cannot import name 'x' from 'y'")) is None


@pytest.mark.skipif(os.name != "posix", reason="a working folder cannot be removed elsewhere")
@pytest.mark.parametrize("command", ["export vim-digits -o {out}", "inspect {checkpoint}"])
def test_pytorch_in_a_working_folder_that_is_gone(tmp_path: Path, command: str) -> None:
    """oneMKL would end the process with its own words."""
    gone = tmp_path / "gone"
    gone.mkdir()
    # A file: with -c, where the first place to import from is that folder, Python 3.13 cannot say
    # that a module lacks a name, and NumPy is not imported.
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])\n"
        "from vim_deploy.cli.main import run; sys.exit(run(sys.argv[2:]))\n"
    )
    checkpoint = REPOSITORY / "tests" / "data" / "reference" / "vim_digits.pth"
    words = command.format(out=tmp_path / "out.onnx", checkpoint=checkpoint).split()
    done = subprocess.run(
        [sys.executable, str(program), str(gone), *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "error VIM-312: PyTorch does not start without a working folder" in done.stderr
    assert list(tmp_path.iterdir()) == [program]
