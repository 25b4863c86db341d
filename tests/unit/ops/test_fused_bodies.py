"""The fused ops' local functions against the float64 reference of the ops, in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from vim_deploy.errors import VimDeployError
from vim_deploy.ops import BI_CAUSAL_CONV, BI_SELECTIVE_SCAN, contract
from vim_deploy.ops.functions import attach_functions

#: float32 against float64 over sums of at most 16 terms and 33 steps; measured up to 4e-7.
RELATIVE_L2 = 2e-6

Arrays = dict[str, np.ndarray]


def model_of(
    op_type: str,
    inputs: tuple[str, ...],
    output: str,
    constants: Arrays,
    **attributes: object,
) -> onnx.ModelProto:
    node = helper.make_node(op_type, list(inputs), [output], domain=contract.DOMAIN, **attributes)
    fed = [name for name in inputs if name not in constants]
    graph = helper.make_graph(
        [node],
        op_type,
        [_value(name) for name in fed],
        [_value(output)],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(contract.DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _value(name: str) -> onnx.ValueInfoProto:
    rank = 3 if name in ("xz", "y") else 4
    shape = [f"{name}_{axis}" for axis in range(rank)]
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def run(model: onnx.ModelProto, feeds: Arrays) -> np.ndarray:
    attach_functions(model)
    onnx.checker.check_model(model)
    runtime = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return runtime.run(None, {name: value.astype(np.float32) for name, value in feeds.items()})[0]


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= RELATIVE_L2 * np.linalg.norm(expected)


@pytest.mark.parametrize("width", [1, 2, 4, 7])
@pytest.mark.parametrize("length", [1, 3, 33])
@pytest.mark.parametrize("x_off", [0, 6])
def test_convolution(width: int, length: int, x_off: int) -> None:
    generator = np.random.default_rng(width * 100 + length)
    constants = {"w": generator.standard_normal((2, width, 6)), "b": generator.random((2, 6))}
    xz = generator.standard_normal((3, length, 12))
    model = model_of(BI_CAUSAL_CONV.name, BI_CAUSAL_CONV.inputs, "u2", constants, x_off=x_off)
    expected = BI_CAUSAL_CONV.reference(xz, constants["w"], constants["b"], x_off=x_off)
    assert_close(run(model, {"xz": xz}), expected)


STATES, CHANNELS, RANK = 5, 6, 3
#: B behind C, dt in front, one column of padding at the end, which holds NaN: nobody may read it.
OFFSETS = {"b_off": RANK + STATES, "c_off": RANK, "dt_off": 0, "z_off": 4}
COLUMNS = RANK + 2 * STATES + 1


def scan_inputs(length: int, low_rank: bool) -> tuple[Arrays, Arrays]:
    """Constants and fed tensors."""
    generator = np.random.default_rng(length)
    constants = {
        "A": -np.exp(generator.standard_normal((2, STATES, CHANNELS))),
        "Dskip": generator.standard_normal((2, CHANNELS)),
        "dt_bias": generator.standard_normal((2, CHANNELS)),
    }
    fed = {
        "u2": generator.standard_normal((2, 3, length, CHANNELS)),
        "xdbl": generator.standard_normal((2, 3, length, COLUMNS)),
        "xz": generator.standard_normal((3, length, 4 + CHANNELS)),
    }
    fed["xdbl"][..., -1] = np.nan
    if low_rank:
        constants["dt"] = generator.standard_normal((2, CHANNELS, RANK))
    else:
        fed["dt"] = generator.standard_normal((2, 3, length, CHANNELS))
    return constants, fed


def scan_model(
    constants: Arrays, low_rank: bool, softplus: bool = True, scale: float = 0.5, **changes: int
) -> onnx.ModelProto:
    return model_of(
        BI_SELECTIVE_SCAN.name,
        BI_SELECTIVE_SCAN.inputs,
        "y",
        constants,
        **{**OFFSETS, "delta_softplus": int(softplus), "low_rank": int(low_rank), **changes},
        scale=scale,
    )


@pytest.mark.parametrize("length", [1, 2, 33])
@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize(("softplus", "scale"), [(True, 0.5), (False, 1.0)])
def test_scan(length: int, low_rank: bool, softplus: bool, scale: float) -> None:
    constants, fed = scan_inputs(length, low_rank)
    if not softplus:
        # Steps must be positive for the state to decay.
        (constants if low_rank else fed)["dt"] = np.abs((constants | fed)["dt"]) * 0.1
        constants["dt_bias"] = np.abs(constants["dt_bias"])
        fed["xdbl"][..., :RANK] = np.abs(fed["xdbl"][..., :RANK])
    values = {
        name: v.astype(np.float32).astype(np.float64) for name, v in (constants | fed).items()
    }
    expected = BI_SELECTIVE_SCAN.reference(
        *(values[name] for name in BI_SELECTIVE_SCAN.inputs),
        **OFFSETS,
        scale=scale,
        delta_softplus=softplus,
        low_rank=low_rank,
    )
    assert_close(run(scan_model(constants, low_rank, softplus, scale), fed), expected)


def test_nodes_of_two_forms_are_refused() -> None:
    constants, _ = scan_inputs(2, True)
    model = scan_model(constants, True)
    other = onnx.NodeProto()
    other.CopyFrom(model.graph.node[0])
    other.output[0] = "y1"
    next(item for item in other.attribute if item.name == "scale").f = 1.0
    model.graph.node.append(other)
    with pytest.raises(VimDeployError, match="do not share one form"):
        attach_functions(model)


def test_nothing_but_elementwise_and_reduce_inside_the_scan() -> None:
    # TensorRT-RTX's compiler fails on Unsqueeze, Squeeze and MatMul in a Scan's body.
    constants, _ = scan_inputs(2, True)
    model = scan_model(constants, True)
    attach_functions(model)
    (scan,) = (node for node in model.functions[0].node if node.op_type == "Scan")
    (body,) = (item.g for item in scan.attribute if item.name == "body")
    assert {node.op_type for node in body.node} == {"Mul", "Exp", "Add", "ReduceSum", "Constant"}
