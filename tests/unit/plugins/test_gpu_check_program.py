"""gpu_check without a GPU: the program for one, over a CUDA that is as late as it may be.

What it launches are the kernels on the CPU shim; see ``plugins/tests/host/late_cuda``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import plugins

sys.path.insert(0, str(plugins.HOST_TESTS))

import kernel_library

LATE = plugins.HOST_TESTS / "late_cuda"
RENAMED = ("-O2", f"-I{LATE}", "-Dlaunch=late_launch")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not os.environ.get("VIM_TEST_ALL"):
        pytest.skip("VIM_TEST_ALL=1 runs these")
    if reason := kernel_library.missing_host_tools():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("gpu_check")
    common = plugins.PLUGINS / "tests" / "common"
    check = plugins.PLUGINS / "tests" / "gpu" / "gpu_check.cu"
    sources = [common / "launches.cpp", common / "problem.cpp", check]
    objects = kernel_library.compile_host(sources, folder, RENAMED)
    objects += kernel_library.compile_host([LATE / "late_cuda.cpp"], folder, RENAMED[:2])
    library = Path(kernel_library.host_library().c._name)
    linked = folder / "gpu_check"
    command = ["g++", *map(str, objects), str(library), f"-Wl,-rpath,{library.parent}"]
    subprocess.run([*command, "-o", str(linked)], check=True)
    return linked


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("layout", [(), ("--bare",)])
def test_every_tactic_passes(program: Path, layout: tuple[str, ...], tmp_path: Path) -> None:
    written = tmp_path / "result.json"
    command = [program, "--small", *layout, "--output", written]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(written.read_text(encoding="utf-8"))
    assert result["failures"] == result["cases_left_out"] == 0
    ran = {name.split()[0] for name in result["kernels"]}
    assert ran == {"scan", "bi_scan", "conv"}
    # What runs under compute-sanitizer has every fast tactic in it.
    tactics = {name.split()[2] for name in result["kernels"]}
    assert tactics == set(kernel_library.TACTICS)
    for name, kernel in result["kernels"].items():
        assert kernel["runs"] % 5 == 0, name
        rounding = {"fp32": 0.0, "fp16": 2.0**-11, "bf16": 2.0**-8}[name.split()[1]]
        # On a CPU powers are correctly rounded, and 1e-6 is enough.
        assert kernel["worst_relative_l2"] <= 1e-6 + rounding, name


def test_says_what_it_had_no_time_for(program: Path) -> None:
    command = [program, "--small", "--seconds", "0.001"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert result["cases_left_out"] > 100
    assert f"{result['cases_left_out']} of " in done.stderr
    assert result["kernels"]


@pytest.mark.parametrize("arguments", [["--large"], ["--seconds"], ["--seconds", "soon"]])
def test_refuses_what_it_does_not_know(program: Path, arguments: list[str]) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr
