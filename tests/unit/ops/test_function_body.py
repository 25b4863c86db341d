"""The scan's local function against the PyTorch specification, in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from vim_deploy.errors import VimDeployError
from vim_deploy.model.scan import selective_scan
from vim_deploy.ops import SELECTIVE_SCAN, contract
from vim_deploy.ops.functions import attach_functions, direction_attributes

#: Two float32 evaluations of sums of at most 16 terms over 33 steps; measured 3e-7.
RELATIVE_L2 = 2e-6
STATE, CHANNELS, RANK = 5, 6, 3


def scan_model(reverse: bool, *, softplus: bool = True, gate: bool = True) -> onnx.ModelProto:
    """A model of one scan node; A, Dskip and dt_bias are its initialisers."""
    generator = np.random.default_rng(7)
    constants = {
        "A": -np.exp(generator.standard_normal((STATE, CHANNELS))),
        "Dskip": generator.standard_normal(CHANNELS),
        "dt_bias": generator.standard_normal(CHANNELS),
    }
    node = helper.make_node(
        SELECTIVE_SCAN.name,
        list(SELECTIVE_SCAN.inputs),
        ["y"],
        domain=contract.DOMAIN,
        reverse=int(reverse),
        delta_softplus=int(softplus),
        b_off=RANK,
        c_off=RANK + STATE,
        z_off=CHANNELS,
        has_z=int(gate),
        **direction_attributes(reverse),
    )
    widths = {"u": CHANNELS, "dt": CHANNELS, "bc": RANK + 2 * STATE, "z": 2 * CHANNELS}
    graph = helper.make_graph(
        [node],
        "scan",
        [_value(name, width) for name, width in widths.items()],
        [_value("y", CHANNELS)],
        [
            onnx.numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in constants.items()
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(contract.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    attach_functions(model)
    return model


def _value(name: str, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["B", "L", width])


def feeds(batch: int, length: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(batch * 100 + length)
    widths = {"u": CHANNELS, "dt": CHANNELS, "bc": RANK + 2 * STATE, "z": 2 * CHANNELS}
    return {
        name: generator.standard_normal((batch, length, width)).astype(np.float32)
        for name, width in widths.items()
    }


def specification(
    model: onnx.ModelProto, inputs: dict[str, np.ndarray], reverse: bool, softplus: bool, gate: bool
) -> np.ndarray:
    constants = {
        tensor.name: torch.tensor(onnx.numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
    }
    values = {name: torch.tensor(value) for name, value in inputs.items()}
    return selective_scan(
        values["u"],
        values["dt"],
        constants["A"],
        values["bc"],
        constants["Dskip"],
        constants["dt_bias"],
        values["z"] if gate else None,
        reverse=reverse,
        delta_softplus=softplus,
        b_off=RANK,
        c_off=RANK + STATE,
        z_off=CHANNELS,
    ).numpy()


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = {value.name for value in session.get_inputs()}
    return session.run(None, {key: value for key, value in inputs.items() if key in names})[0]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("gate", [False, True])
def test_agrees_with_the_specification(reverse: bool, softplus: bool, gate: bool) -> None:
    model = scan_model(reverse, softplus=softplus, gate=gate)
    onnx.checker.check_model(model, full_check=True)
    # Lengths and batches the function was not written for one by one.
    for batch, length in ((1, 1), (2, 7), (3, 33)):
        inputs = feeds(batch, length)
        if not softplus:
            # Without softplus a negative step would make the state grow.
            inputs["dt"] = np.abs(inputs["dt"]) + 3
        expected = specification(model, inputs, reverse, softplus, gate)
        found = run(model, inputs)
        assert np.linalg.norm(found - expected) <= RELATIVE_L2 * np.linalg.norm(expected)


def test_large_steps_do_not_overflow() -> None:
    inputs = feeds(1, 4)
    inputs["dt"][:] = 500
    assert np.isfinite(run(scan_model(reverse=False), inputs)).all()


def test_scan_body_is_elementwise_and_reduce_only() -> None:
    # TensorRT-RTX's compiler fails on anything else in there.
    (function,) = scan_model(reverse=False).functions
    scan = next(node for node in function.node if node.op_type == "Scan")
    body = next(item.g for item in scan.attribute if item.name == "body")
    assert {node.op_type for node in body.node} == {"Mul", "Exp", "Add", "ReduceSum", "Constant"}


def test_nodes_of_different_forms_are_refused() -> None:
    model = scan_model(reverse=False)
    other = onnx.NodeProto()
    other.CopyFrom(model.graph.node[0])
    other.output[0] = "y2"
    next(item for item in other.attribute if item.name == "delta_softplus").i = 0
    model.graph.node.append(other)
    with pytest.raises(VimDeployError) as caught:
        attach_functions(model)
    assert caught.value.code == "VIM-502"


def test_attaching_twice_keeps_one_function() -> None:
    model = scan_model(reverse=True)
    attach_functions(model)
    assert [item.name for item in model.functions] == [SELECTIVE_SCAN.name]
