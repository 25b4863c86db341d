"""The CUDA adapter driven through a fake ONNX Runtime, under AddressSanitizer.

It runs over the GPU's kernels compiled for the CPU, which the tests beside this one share: what it
gives the kernels is all that a machine without a GPU shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support import ort_ops
from tests.unit.ort_ops.test_adapter_checks import run_checks

HOST = ort_ops.PLUGINS / "tests" / "host"
sys.path.insert(0, str(HOST))

import kernel_library  # noqa: E402 - lives beside the shim it compiles


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
