"""ONNX files in the C++ runtime: what ``cpp/tests/onnx_checks.cpp`` answers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support import cpp_builds
from tests.support.ort_c_api import shared_library
from tests.support.reference import Array
from vim_deploy.artifact import Artifact
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin.ort_library import LIBRARY_VARIABLE

#: What names ONNX Runtime's library for the C++ runtime (``cpp/src/ort_library.h``).
RUNTIME_VARIABLE = "VIM_DEPLOY_ONNXRUNTIME"


def checks(
    *arguments: str | Path, ops: Path | str = "", runtime: Path | str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``onnx_checks``.

    Args:
        arguments: of the program.
        ops: library of native ops; none by default, whatever is installed.
        runtime: ONNX Runtime's library; None for the one of the wheel.
    """
    variables = {LIBRARY_VARIABLE: str(ops), RUNTIME_VARIABLE: str(runtime or shared_library())}
    # ONNX Runtime keeps what it has until the process ends.
    variables["ASAN_OPTIONS"] = "detect_leaks=0"
    return cpp_builds.run(cpp_builds.need_program("onnx_checks"), *arguments, **variables)


def outputs(
    model: Path, folder: Path, pictures: list[Path], *, batch: int = 0, ops: Path | str = ""
) -> tuple[str, dict[str, Array]]:
    """What runs ``model``, and its outputs for pictures that the C++ library has prepared."""
    place = folder / "outputs"
    done = checks("run", model, place, str(batch or len(pictures)), *pictures, ops=ops)
    assert done.returncode == 0, done.stderr
    title, *lines = done.stdout.splitlines()
    data = place.read_bytes()
    found: dict[str, list[Array]] = {}
    for line in lines:
        name, dtype, shape = line.split(maxsplit=2)
        sizes = [int(text) for text in re.findall(r"\d+", shape)]
        count = int(np.prod(sizes)) * np.dtype(dtype).itemsize
        found.setdefault(name, []).append(np.frombuffer(data[:count], dtype).reshape(sizes))
        data = data[count:]
    assert not data
    return title, {name: np.concatenate(parts) for name, parts in found.items()}


def verdict_of_python(path: Path) -> str:
    """``ok`` or the code, for a file that is opened to be run on pictures."""
    try:
        artifact = Artifact.open(path)
        artifact.require_info()
        _ = artifact.inputs
    except VimDeployError as error:
        return error.code
    return "ok"


def need_runtime() -> Path:
    """The folder of the installed ONNX Runtime; skips where its wheel has no library for C++."""
    pytest.importorskip("onnxruntime")
    return shared_library().parent.parent
