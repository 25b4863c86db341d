"""Messages made from what TensorRT-RTX 1.7.1 really said."""

from __future__ import annotations

import pytest

from tests.support.builds import job_for
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.compiler import build_error, check_interface, parse_error
from vim_deploy.runtimes.building.process import error_from_death

DRIVER_NOISE = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient "
    "for CUDA runtime version))"
)


def parser_error(**facts):
    base = {"code": "INVALID_NODE", "text": "", "check": "f", "node": "", "op": "", "functions": []}
    return base | facts


def why_of(*errors) -> str:
    error = parse_error(errors, "m.onnx", "TensorRT-RTX")
    assert error.code == "VIM-601"
    return error.why


def test_unsupported_operator():
    facts = parser_error(
        code="UNSUPPORTED_NODE", text="false", check="checkBernoulli", node="bern", op="Bernoulli"
    )
    assert why_of(facts).startswith("node 'bern' (Bernoulli): operator not supported")


def test_custom_operator_without_function():
    text = 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
    assert "no local function" in why_of(
        parser_error(text=text, node="layers.0.scan", op="VimSelectiveScan")
    )


def test_the_missing_gpu_is_not_blamed():
    text = "Invalid Node - mix\nElementWiseOperation SUM must have same input types.\n"
    found = why_of(parser_error(text=text + DRIVER_NOISE, node="mix", op="Add"))
    assert "same input types" in found
    assert "driver" not in found


def test_error_inside_a_function_names_the_call():
    found = why_of(parser_error(text="bad", node="n", op="Add", functions=["scan (VimScan)"]))
    assert "in the function of scan (VimScan)" in found


def test_many_errors_are_counted():
    found = why_of(*[parser_error(text="bad", node=f"n{i}", op="Add") for i in range(20)])
    assert found.splitlines()[-1] == "and 12 more"


def test_file_level_error_has_no_node():
    assert why_of(parser_error(text="Failed to open file: ext.bin")) == (
        "Failed to open file: ext.bin"
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (
            "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337] Cannot compile "
            "operation 'mm' for Turing (SM75): FP32 GEMM is not supported. In compileGraph)",
            "--precision fp16",
        ),
        ("Mismatched number of elements in reshape op: [197,2,16]", "Scan body"),
        ("Error Code 2: OutOfMemory (Requested size was 9 bytes.)", "--max-batch"),
        ("something never seen", "-v"),
    ],
)
def test_build_failures_have_a_remedy(text, word):
    error = build_error([text, DRIVER_NOISE], "m.onnx", "TensorRT-RTX")
    assert error.code == ("VIM-608" if "OutOfMemory" in text else "VIM-603")
    assert text in error.why
    assert word in error.fix


def test_interface_change_is_spelt_out():
    class Tensor:
        name, shape, dtype = "x", (1,), type("DataType", (), {"name": "FLOAT"})

    class Network:
        num_inputs, num_outputs = 1, 0

        def get_input(self, index):
            return Tensor

    with pytest.raises(VimDeployError) as caught:
        check_interface(Network(), job_for(inputs={"x": "float64"}))
    assert caught.value.code == "VIM-601"
    assert "x (float64)" in caught.value.why
    assert "x (float32)" in caught.value.why


def test_unknown_signal_number():
    assert "signal 200" in error_from_death(-200, [], "m.onnx").why
