"""Which instruction set the CPU kernels choose, and that the choice can be lowered."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[3] / "plugins"
sys.path.insert(0, str(PLUGINS / "cpu" / "tests"))

import cpu_kernels  # noqa: E402 - lives beside the sources it compiles

#: What Linux calls what each instruction set needs; it lists only what it has enabled.
NEEDS = {
    "avx2": "fma movbe avx f16c bmi1 avx2 bmi2 abm",
    "avx512": "avx512f avx512dq avx512cd avx512bw avx512vl",
}

IN_USE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.vim_cpu_instruction_set.restype = ctypes.c_char_p
print(library.vim_cpu_instruction_set().decode())
"""


@pytest.fixture(scope="module")
def library() -> cpu_kernels.CpuKernels:
    if reason := cpu_kernels.missing_tools():
        pytest.skip(reason)
    return cpu_kernels.library()


def in_use(library: cpu_kernels.CpuKernels, wanted: str | None) -> str:
    """What a new process chooses."""
    environment = {k: v for k, v in os.environ.items() if k != "VIM_DEPLOY_CPU_ISA"}
    if wanted is not None:
        environment["VIM_DEPLOY_CPU_ISA"] = wanted
    command = [sys.executable, "-c", IN_USE, library.c._name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip()


def test_baseline_always_runs(library: cpu_kernels.CpuKernels) -> None:
    names = {"x86_64": "sse2", "aarch64": "neon"}
    assert library.compiled()[-1] == names.get(platform.machine(), "scalar")
    assert library.compiled()[-1] in library.runnable()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the choice is of x86-64")
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux says what the CPU has")
def test_cpuid_agrees_with_the_kernel(library: cpu_kernels.CpuKernels) -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    assert library.compiled() == ["avx512", "avx2", "sse2"]
    runnable = ["sse2"]
    for name in ("avx2", "avx512"):
        if flags.issuperset(NEEDS[name].split()) and (name == "avx2" or "avx2" in runnable):
            runnable.insert(0, name)
    assert library.runnable() == runnable


def test_the_best_is_chosen_and_a_lesser_one_can_be(library: cpu_kernels.CpuKernels) -> None:
    best = library.runnable()[0]
    assert in_use(library, None) == best
    for name in library.runnable():
        assert in_use(library, name) == name
    for unknown in ("", "avx1024", "AVX2 "):
        assert in_use(library, unknown) == best
