"""Our declaration of ONNX Runtime's C API against its own header, where one is found.

The header is in no wheel. ``VIM_ORT_INCLUDE`` names its folder; without it the folders are tried
that distributions put it into (Debian: libonnxruntime-dev).
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import ort_ops

ADAPTER = ort_ops.PLUGINS / "onnxruntime"
HEADER = "onnxruntime_c_api.h"
SYSTEM = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/usr/local/include")


def include_folder() -> Path:
    """The folder of the real header; skips the test where there is none."""
    named = os.environ.get("VIM_ORT_INCLUDE")
    for folder in (named,) if named else ("/usr/include", *SYSTEM):
        found = sorted(Path(folder).glob(HEADER)) or sorted(Path(folder).glob(f"core/*/{HEADER}"))
        if found:
            return found[0].parent
    pytest.skip(f"no {HEADER} here: set VIM_ORT_INCLUDE to its folder")


def compile_check(tmp_path: Path, declaration: Path) -> subprocess.CompletedProcess[str]:
    compiler = ort_ops.compiler()
    if compiler is None:
        pytest.skip(str(ort_ops.missing_tools()))
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{declaration}"]
    command += ["-isystem", str(include_folder()), str(ADAPTER / "tests" / "header_check.cpp")]
    command += ["-o", str(tmp_path / "header_check")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_entry_is_where_the_header_has_it(tmp_path: Path) -> None:
    done = compile_check(tmp_path, ADAPTER)
    assert done.returncode == 0, done.stderr
    said = ort_ops.output_of(str(tmp_path / "header_check"))
    entries, callbacks, version = map(int, re.findall(r"\d+", said))
    assert entries == len(re.findall(r"^    X\(\d+,", declaration_text(), re.M))
    assert callbacks == 21
    assert version >= 18


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("X(253, ", "X(254, ", "KernelContext_GetAllocator stands elsewhere"),
        (
            "KernelInfo const*, char const* name, float* out",
            "KernelInfo const*, float* out",
            "_float has another signature",
        ),
        ("kElementBFloat16 = 16", "kElementBFloat16 = 17", "static assertion failed"),
        ("    int (*GetEndVersion)(OrtCustomOp const*);\n", "", "GetEndVersion"),
    ],
)
def test_a_wrong_declaration_is_seen(tmp_path: Path, right: str, wrong: str, words: str) -> None:
    text = declaration_text()
    assert right in text
    (tmp_path / "ort_api.h").write_text(text.replace(right, wrong), encoding="utf-8")
    done = compile_check(tmp_path, tmp_path)
    assert done.returncode != 0
    assert words in done.stderr


def declaration_text() -> str:
    return (ADAPTER / "ort_api.h").read_text(encoding="utf-8")
