"""An op from outside the package: one record says all that the exporter and the checks ask."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from vim_deploy.graph.trace import schema
from vim_deploy.ops import OPS, Op, contract
from vim_deploy.ops.functions import attach_functions, op_flaws, type_functions
from vim_deploy.ops.op import Kind, Part, columns

Array = NDArray[np.float64]


def leaky_columns(x: Array, gain: Array, *, x_off: int, squared: int, slope: float) -> Array:
    """max(x, slope x) * gain of the columns [x_off, x_off + D), squared or not."""
    taken = x[..., x_off : x_off + gain.shape[0]]
    y = np.maximum(taken, slope * taken) * gain
    return y * y if squared else y


TOY = Op(
    name="VimToyLeakyColumns",
    inputs=("x", "gain"),
    outputs=("y",),
    attributes={"x_off": Kind.COLUMN, "squared": Kind.FLAG, "slope": Kind.NUMBER},
    body=(
        Part(columns("x", "x", "taken", axis=2)),
        Part("leaky = LeakyRelu <alpha = $slope> (taken)"),
        Part("y = Mul (leaky, gain)", when={"squared": 0}),
        Part("scaled = Mul (leaky, gain) y = Mul (scaled, scaled)", when={"squared": 1}),
    ),
    reference=leaky_columns,
    fp32=("gain",),
    sizes={"gain": ("width",)},
    blocks={"x_off": "width"},
)
WITH_TOY = {**OPS, TOY.name: TOY}
GAIN = np.linspace(-1, 2, 4)


def toy_model(element: int, **attributes: float) -> onnx.ModelProto:
    node = helper.make_node(
        TOY.name, ["x", "gain"], ["y"], name="toy", domain=contract.DOMAIN, **attributes
    )
    graph = helper.make_graph(
        [node],
        "toy",
        [helper.make_tensor_value_info("x", element, ["B", "L", 9])],
        [helper.make_tensor_value_info("y", element, ["B", "L", 4])],
        [numpy_helper.from_array(GAIN.astype(np.float32), "gain")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(contract.DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("squared", [0, 1])
@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-6), (np.float16, 1e-3)])
def test_it_runs_and_equals_its_reference(squared: int, dtype: type, bound: float) -> None:
    attributes = {"x_off": 3, "squared": squared, "slope": 0.25}
    model = toy_model(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), **attributes)
    attach_functions(model, ops=WITH_TOY)
    if dtype is np.float16:
        type_functions(model, ops=WITH_TOY)
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).standard_normal((2, 5, 9)).astype(dtype)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"x": x})
    expected = TOY.reference(x.astype(np.float64), GAIN, **attributes)
    assert found.dtype == dtype
    assert np.linalg.norm(found - expected) <= bound * np.linalg.norm(expected)


def test_the_checks_know_it() -> None:
    right = toy_model(onnx.TensorProto.FLOAT, x_off=3, squared=1, slope=0.25).graph.node[0]
    assert not list(op_flaws(right, WITH_TOY))
    wrong = toy_model(onnx.TensorProto.FLOAT, x_off=-1, squared=2).graph.node[0]
    said = list(op_flaws(wrong, WITH_TOY))
    assert [flaw.rpartition(" says ")[2] for flaw in said[:2]] == ["x_off = -1", "squared = 2"]
    assert said[2].endswith("does not say slope")
    assert schema(TOY).name == TOY.name


def test_the_package_is_left_as_it_was() -> None:
    assert TOY.name not in OPS
    model = toy_model(onnx.TensorProto.FLOAT, x_off=0, squared=0, slope=0.5)
    attach_functions(model)
    assert not model.functions
