"""The adapter driven through a fake ONNX Runtime, under sanitizers.

What is checked stands in ``plugins/onnxruntime/tests``: registration, the ops against float64,
every call of ONNX Runtime failing in turn, refusals, type and shape inference. The CPU adapter runs
under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer; the CUDA adapter,
over the GPU's kernels compiled for the CPU, under AddressSanitizer: what it gives the kernels is
all that a machine without a GPU shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ort_ops

HOST = ort_ops.PLUGINS / "tests" / "host"
sys.path.insert(0, str(HOST))

import kernel_library  # noqa: E402 - lives beside the shim it compiles

#: Headings that a run must have printed, so that a program that checks nothing fails.
CHECKS = (
    "registration",
    "session options",
    "registration at once",
    "answers",
    "runs at once",
    "failing calls",
    "failing registration",
    "refusals",
    "missing memory",
    "inference",
    "provider",
)
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def run_checks(program: Path, **variables: str) -> None:
    done = subprocess.run(
        [str(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **SANITIZERS, **variables},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert lines == [["ok", name] for name in CHECKS]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["address", "thread"])
def test_cpu_adapter(kind: str) -> None:
    run_checks(ort_ops.built_checks(kind))


@pytest.mark.slow
def test_cuda_adapter(tmp_path: Path) -> None:
    if reason := kernel_library.missing_host_tools():
        pytest.skip(reason)
    run_checks(cuda_checks(tmp_path))


def cuda_checks(folder: Path) -> Path:
    """The program: adapter and checks, linked to the kernels on the CPU."""
    kernels = Path(kernel_library.host_library().c._name)
    adapter = ort_ops.PLUGINS / "onnxruntime"
    names = ("cuda_device", "inference", "library_info", "native_op", "node", "registration")
    checks = ("checks", "checks_cuda", "fake_ort", "harness")
    units = {
        "adapter": [*(adapter / f"{name}.cpp" for name in (*names, "threads"))],
        "checks": [*(adapter / "tests" / f"{name}.cpp" for name in checks)],
    }
    units["adapter"].append(ort_ops.PLUGINS / "adapters" / "op_model.cpp")
    units["checks"].append(ort_ops.PLUGINS / "tests" / "common" / "problem.cpp")
    flags = ["-std=c++17", "-O0", "-g1", "-fsanitize=address", "-Wall", "-Wextra"]
    flags.append("-DVIM_ORT_PROVIDER_CUDA")
    for place in ("tests/host/shim", "", "include", "onnxruntime", "tests", "onnxruntime/tests"):
        flags.append(f"-I{ort_ops.PLUGINS / place}")
    for name, text in {"VERSION": "0", "KERNEL_HASH": "checks", "ARCHITECTURES": "80"}.items():
        flags.append(f'-DVIM_PLUGINS_{name}="{text}"')
    # What the adapter launches with is recorded (checks_cuda.cpp).
    flags_of = {"adapter": ["-Dlaunch=recorded_launch"], "checks": []}
    objects = []
    for unit, sources in units.items():
        # All that is compiled alike is one unit: most of the time goes into the same headers.
        text = "".join(f'#include "{source}"\n' for source in sources)
        (folder / f"{unit}.cpp").write_text(text, encoding="utf-8")
        objects.append(str(folder / f"{unit}.o"))
        source = str(folder / f"{unit}.cpp")
        ort_ops.output_of("g++", *flags, *flags_of[unit], "-c", source, "-o", objects[-1])
    program = folder / "checks_cuda"
    link = ["g++", "-fsanitize=address", *objects, str(kernels)]
    ort_ops.output_of(*link, f"-Wl,-rpath,{kernels.parent}", "-pthread", "-o", str(program))
    return program
