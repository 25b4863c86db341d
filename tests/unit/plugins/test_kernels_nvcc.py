"""nvcc compiles the kernels without a warning, and they stay within the committed budget.

By default those of float16 for one architecture; ``VIM_TEST_ALL=1`` does so for every type and
architecture of the plugin library.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUDGET_FOLDER = Path(__file__).parents[3] / "plugins" / "tests" / "budget"
sys.path.insert(0, str(BUDGET_FOLDER))

import kernel_budget  # noqa: E402 - lives beside the budget it keeps
import sass  # noqa: E402

ALL = bool(os.environ.get("VIM_TEST_ALL"))
#: For 80, the library that other tests load is compiled, though a warning is no error there. The
#: types' sources are the same templates.
SHORT = ("90",)
CHOSEN = kernel_budget.ARCHITECTURES if ALL else SHORT
SOURCES = "*.cu" if ALL else "*_fp16.cu"
BUDGET = kernel_budget.load()

#: Kernels that every architecture and type has; where there are no clusters, their kernel is empty.
BUDGETED = ("serial_scan", "serial_bi_scan", "chunked_scan", "cluster_scan", "generic_scan")

Measured = dict[str, dict[str, kernel_budget.Counts]]


@pytest.fixture(scope="module")
def measured() -> Measured:
    """Every kernel compiled with warnings as errors; this alone is the compile test."""
    nvcc = kernel_budget.find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc is neither in CUDA_HOME nor on PATH")
    return kernel_budget.measure(nvcc, list(CHOSEN), sources=SOURCES)


def budgeted(arch: str) -> dict[str, kernel_budget.Counts]:
    """The budget of the kernels in the chosen sources; the convolutions are in one of their own."""
    kernels = BUDGET["kernels"][arch]
    return {k: v for k, v in kernels.items() if ALL or (" fp16" in k and not k.startswith("conv"))}


def require_budgeted_compiler() -> None:
    nvcc = kernel_budget.find_nvcc()
    assert nvcc is not None
    release = kernel_budget.release_of(nvcc)
    if release != BUDGET["nvcc"]:
        pytest.skip(f"the budget is for nvcc {BUDGET['nvcc']}, this is {release}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
class TestCompiled:
    def test_every_kernel_compiles_without_a_warning(self, measured: Measured) -> None:
        for arch in CHOSEN:
            assert measured[arch].keys() == budgeted(arch).keys()

    def test_budget(self, measured: Measured) -> None:
        require_budgeted_compiler()
        faults = [
            f"sm_{arch} {fault}"
            for arch in CHOSEN
            for fault in kernel_budget.growth(budgeted(arch), measured[arch])
        ]
        assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        "tests/gpu/gpu_check.cu",
        "bench/kernel_bench.cu",
        "tests/common/launches.cpp",
        "tests/common/problem.cpp",
        "../benchmarks/gpu/sm_clock.cu",
    ],
)
def test_gpu_programs_compile(program: str, tmp_path: Path) -> None:
    nvcc = kernel_budget.find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc is neither in CUDA_HOME nor on PATH")
    command = [str(nvcc), "-std=c++17", "-arch=sm_90", *kernel_budget.WARNINGS]
    command += [f"-I{kernel_budget.PLUGINS / 'include'}", "-c"]
    command += [str(kernel_budget.PLUGINS / program), "-o", str(tmp_path / "object.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arch", kernel_budget.ARCHITECTURES)
def test_budget_covers_every_architecture_and_type(arch: str) -> None:
    kernels = BUDGET["kernels"][arch]
    for name in (*BUDGETED, "conv_vector"):
        for data_type in ("fp32", "fp16", "bf16"):
            assert any(k.startswith(f"{name}_kernel {data_type}") for k in kernels), (name, arch)


@pytest.mark.parametrize("arch", kernel_budget.ARCHITECTURES)
def test_pairs_of_blocks_are_there_from_9_0_on(arch: str) -> None:
    pairs = {k: v for k, v in BUDGET["kernels"][arch].items() if k.startswith("cluster_scan")}
    assert len(pairs) == 6
    assert all((counts["loop_mufu"] > 0) == (int(arch) >= 90) for counts in pairs.values())


@pytest.mark.parametrize("data_type", ["fp32", "fp16", "bf16"])
def test_serial_scan_with_gate_needs_at_most_114_instructions(data_type: str) -> None:
    counts = BUDGET["kernels"]["90"][f"serial_scan_kernel {data_type} 16 1"]
    assert kernel_budget.serial_instructions_per_element(counts) < 114.5
    # 16 decays, softplus, and two for the gate.
    assert counts["loop_mufu"] == 19 * kernel_budget.SERIAL_ELEMENTS


@pytest.mark.parametrize("data_type", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(("low_rank", "limit"), [(0, 115), (1, 123.5)])
def test_both_directions_meet_in_few_instructions(
    data_type: str, low_rank: int, limit: float
) -> None:
    """The loop with sum and gate; dt of rank four, as the loop over the rank counts once."""
    counts = BUDGET["kernels"]["90"][f"serial_bi_scan_kernel {data_type} 16 {low_rank} 2"]
    assert kernel_budget.serial_instructions_per_element(counts) <= limit
    assert counts["loop_mufu"] == 19 * kernel_budget.SERIAL_ELEMENTS
    assert counts["spill"] <= 32


@pytest.mark.parametrize("arch", kernel_budget.ARCHITECTURES)
@pytest.mark.parametrize("data_type", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("low_rank", [0, 1])
def test_one_channel_a_thread_pays_for_its_grid(data_type: str, low_rank: int, arch: str) -> None:
    """What serial_choice.h counts with: eight blocks of two warps, and few more instructions."""
    name = f"serial_bi_scan_kernel {data_type} 16 {low_rank}"
    two, one = (BUDGET["kernels"][arch][f"{name} {channels}"] for channels in (2, 1))
    assert one["registers"] <= 128
    assert one["spill"] <= 16
    assert one["loop_mufu"] * 2 == two["loop_mufu"]
    per_element = [
        kernel_budget.serial_instructions_per_element(counts, channels)
        for counts, channels in ((one, 1), (two, 2))
    ]
    assert per_element[0] <= 1.16 * per_element[1]


@pytest.mark.parametrize("data_type", ["fp32", "fp16", "bf16"])
def test_serial_scan_of_8_states_needs_at_most_65_instructions(data_type: str) -> None:
    """No gate, as MambaVision's mixers have none: 8 decays and softplus."""
    counts = BUDGET["kernels"]["90"][f"serial_scan_kernel {data_type} 8 0"]
    assert kernel_budget.serial_instructions_per_element(counts) <= 65
    assert counts["loop_mufu"] == 9 * kernel_budget.SERIAL_ELEMENTS
    assert counts["spill"] == 0


def test_growth_is_seen() -> None:
    budget = {"k": {"registers": 100, "spill": 0, "instructions": 1000}}
    assert kernel_budget.growth(budget, {"k": dict(budget["k"])}) == []
    for what, value in (("registers", 101), ("spill", 4), ("instructions", 1031)):
        assert kernel_budget.growth(budget, {"k": {**budget["k"], what: value}})
    assert kernel_budget.growth(budget, {})
    assert kernel_budget.growth({}, budget)


def test_hot_loop_is_the_innermost_with_exponentials() -> None:
    listing = "\n".join(
        [
            "\t\tFunction : kernel",
            "        /*0000*/                   MOV R1, c[0x0][0x28] ;   /* 0x0 */",
            "        /*0010*/                   IADD3 R0, R0, 0x1, RZ ;  /* 0x0 */",
            "        /*0020*/                   MUFU.EX2 R2, R3 ;        /* 0x0 */",
            "        /*0030*/                   FFMA R4, R2, R4, R5 ;    /* 0x0 */",
            "        /*0040*/              @!P0 BRA 0x20 ;               /* 0x0 */",
            "        /*0050*/               @P1 BRA 0x10 ;               /* 0x0 */",
            "        /*0060*/                   EXIT ;                   /* 0x0 */",
            "        /*0070*/                   BRA 0x70;                /* 0x0 */",
        ]
    )
    code = sass.functions(listing)["kernel"]
    assert len(code) == 8
    loop = sass.hot_loop(code)
    assert [i.opcode for i in loop] == ["MUFU.EX2", "FFMA", "BRA"]
    assert sass.mufu(loop) == 1
    assert sass.by_group(loop) == {"MUFU": 1, "FFMA": 1, "BRA": 1}


@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        (
            "_ZN11vim_plugins18serial_scan_kernelI6__halfLi8ELb1EEEvNS_8ScanArgsE",
            "serial_scan_kernel fp16 8 1",
        ),
        (
            "_ZN11vim_plugins19chunked_scan_kernelI13__nv_bfloat16NS_12ChunkedShapeILi16ELi4ELi1E"
            "Li5ELi5ELi4ELi3EEEEEvNS_8ScanArgsE",
            "chunked_scan_kernel bf16 16 4 1 5 5 4 3",
        ),
        ("_ZN11vim_plugins18conv_vector_kernelIfEEvNS_8ConvArgsE", "conv_vector_kernel fp32"),
    ],
)
def test_readable_names(mangled: str, name: str) -> None:
    assert kernel_budget.readable(mangled) == name
