"""The deploying side works where torch is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import reference
from tests.support.builds import needs_rtx
from vim_deploy.installation import extra_command
from vim_deploy.stages.exporting import export

REPOSITORY = Path(__file__).resolve().parents[2]
#: Makes torch and what comes with it unimportable and unfindable, as if never installed.
BLOCKED = ("torch", "onnxscript", "onnx_ir", "safetensors", "sklearn")
START = f"""
import sys, importlib.util
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.split(".")[0] in {BLOCKED!r} else find(name, package))
from vim_deploy.cli.main import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the exported toy."""
    place = tmp_path_factory.mktemp("deploying")
    export("vim-digits", place / "digits.onnx")
    return place


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "digits.onnx", "--json"),
        ("recipes", "list", "--json"),
        ("recipes", "show", "vim-tiny", "--json"),
        ("doctor", "--json"),
    ],
    ids=" ".join,
)
def test_describing_commands(folder: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_verify_against_stored_outputs(folder: Path) -> None:
    # As the stored file itself, of which test_export_reference runs every picture.
    case = reference.load_case(reference.DIGITS)
    np.savez(folder / "stored.npz", image=case.image[:20], output=case.output[:20])
    done = run("verify", "digits.onnx", "--against", "stored.npz", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True


@pytest.mark.rtx
@needs_rtx
def test_build_engine(folder: Path) -> None:
    done = run("build-engine", "digits.onnx", "--max-batch", "2", "--opt-batch", "1", folder=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "digits.plan").is_file()
    assert run("inspect", "digits.plan", folder=folder).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "vim-digits", "-o", "x.onnx"),
        ("verify", "digits.onnx", "--against", "digits.pth"),
        ("deploy", "vim-digits", "--no-engine"),
    ],
    ids=" ".join,
)
def test_commands_that_need_torch_say_so(folder: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, folder=folder)
    assert done.returncode == 3
    assert "error VIM-301" in done.stderr
    assert extra_command("torch") in done.stderr
    assert not (folder / "x.onnx").exists()
    assert not (folder / "vim-deploy-work").exists()
