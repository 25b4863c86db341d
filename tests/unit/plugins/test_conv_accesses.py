"""What nvcc makes of the convolution's loads and stores: their width, and that none waits."""

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

Code = list[sass.Instruction]

#: A thread's window of 8 tokens and 3 on either side; 4 taps and a bias of two directions; 8 tokens
#: of two directions.
WINDOW, TAPS, OUTPUTS = 14, 10, 16


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Code]:
    """Code of the convolutions for sm_90, by readable name."""
    if not os.environ.get("VIM_TEST_ALL"):
        pytest.skip("VIM_TEST_ALL=1 runs these")
    nvcc = kernel_budget.find_nvcc()
    cuobjdump = kernel_budget.find_cuobjdump(nvcc)
    if nvcc is None or cuobjdump is None:
        pytest.skip("nvcc or cuobjdump is not here")
    if kernel_budget.release_of(nvcc) != kernel_budget.load()["nvcc"]:
        pytest.skip("another nvcc than the budget's may order instructions otherwise")
    cubin = tmp_path_factory.mktemp("conv") / "conv.cubin"
    source = kernel_budget.PLUGINS / "kernels" / "conv.cu"
    kernel_budget.compile_one(nvcc, source, "90", cubin)
    listing = subprocess.run(
        [cuobjdump, "-sass", cubin], check=True, capture_output=True, text=True
    ).stdout
    return {
        kernel_budget.readable(mangled): code for mangled, code in sass.functions(listing).items()
    }


def widths(code: Code, kind: str) -> list[str]:
    """Bits of every access of a kind, as the opcode has them; empty for 32."""
    return [
        next((part for part in i.opcode.split(".") if part in ("64", "128", "U16")), "")
        for i in code
        if i.opcode.startswith(kind)
    ]


@pytest.mark.parametrize(("data_type", "bits"), [("fp32", "128"), ("fp16", "64"), ("bf16", "64")])
def test_four_channels_are_one_access(kernels: dict[str, Code], data_type: str, bits: str) -> None:
    code = kernels[f"conv_vector_kernel {data_type}"]
    assert sorted(widths(code, "LDG")) == sorted([bits] * WINDOW + ["128"] * TAPS)
    assert widths(code, "STG") == [bits] * OUTPUTS


@pytest.mark.parametrize("data_type", ["fp32", "fp16", "bf16"])
def test_the_whole_window_is_under_way_before_any_of_it_is_used(
    kernels: dict[str, Code], data_type: str
) -> None:
    code = kernels[f"conv_vector_kernel {data_type}"]
    loads = [i for i, one in enumerate(code) if one.opcode.startswith("LDG")]
    # The window's and the first direction's taps; the second direction's come when they are needed.
    first, last = loads[0], loads[WINDOW + TAPS // 2 - 1]
    assert not [one for one in code[first:last] if one.opcode.startswith(("BRA", "BSSY", "MUFU"))]
