"""ONNX Runtime sends nothing home: neither from a command nor from a package's model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.source import REPOSITORY
from tests.support.tiny_onnx import perceptron
from vim_deploy.runtimes.onnxruntime.capability import NO_TELEMETRY

SERVED = REPOSITORY / "vim_deploy" / "packaging" / "served"


def without_the_switch(home: Path) -> dict[str, str]:
    """The environment of a user whose machine is no CI, where it would be off anyway."""
    names = (NO_TELEMETRY[0], "CI", "TF_BUILD", "GITHUB_ACTIONS", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(REPOSITORY)}


def test_a_run_leaves_no_identity_of_the_machine_in_the_home_folder(tmp_path: Path) -> None:
    """What it sends it collects in ~/.cache/Microsoft first, beside a number of the machine."""
    home = tmp_path / "home"
    home.mkdir()
    model = tmp_path / "m.onnx"
    model.write_bytes(perceptron().SerializeToString())
    program = (
        "import sys, pathlib; from vim_deploy.runtimes.onnxruntime.runner import OrtRunner\n"
        "print(OrtRunner(pathlib.Path(sys.argv[1])).name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(model)],
        env=without_the_switch(home), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CPU" in done.stdout
    assert not list(home.rglob("*"))
    assert not done.stderr


@pytest.mark.parametrize("name", ["model.py", "server.py"])
def test_what_a_package_runs_sets_the_switch_before_the_import(name: str) -> None:
    text = (SERVED / name).read_text()
    switch = text.index('os.environ.setdefault("{}", "{}")'.format(*NO_TELEMETRY))
    found = re.search(r"^ *import onnxruntime", text, re.MULTILINE)
    assert found is not None
    assert switch < found.start()
