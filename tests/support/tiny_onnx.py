"""Small ONNX models made by hand: a perceptron, and blocks around a selective scan."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

#: The scan as a local function: standard operators only, and nothing but elementwise and reduce
#: operators inside the Scan body. Shapes: u, dt [B,L,D]; A [N,D]; bc [B,L,2N]; Dskip, bias [D].
_SCAN_FUNCTION = """
<opset_import: ["" : 18], domain: "vim_deploy">
VimSelectiveScan <reverse, delta_softplus, b_off, c_off, z_off, has_z>
    (u, dt, A, bc, Dskip, dt_bias) => (y) {
    axis_one = Constant <value_ints = [1]> ()
    axis_two = Constant <value_ints = [2]> ()
    axis_three = Constant <value_ints = [3]> ()
    biased = Add (dt, dt_bias)
    delta = Softplus (biased)
    delta_u = Mul (delta, u)
    B, C = Split <axis = 2, num_outputs = 2> (bc)
    delta_row = Unsqueeze (delta, axis_two)
    delta_u_row = Unsqueeze (delta_u, axis_two)
    B_column = Unsqueeze (B, axis_three)
    C_column = Unsqueeze (C, axis_three)
    batch = Shape <start = 0, end = 1> (u)
    sizes = Shape (A)
    state_shape = Concat <axis = 0> (batch, sizes)
    h_first = ConstantOfShape (state_shape)
    h_last, scanned = Scan <
        num_scan_inputs = 4,
        scan_input_axes = [1, 1, 1, 1],
        scan_output_axes = [1],
        body = step (h, d, du, b, c) => (h_next, out) {
            rate = Mul (d, A)
            decay = Exp (rate)
            kept = Mul (decay, h)
            added = Mul (du, b)
            h_next = Add (kept, added)
            weighted = Mul (h_next, c)
            out = ReduceSum <keepdims = 0> (weighted, axis_one)
        }
    > (h_first, delta_row, delta_u_row, B_column, C_column)
    skipped = Mul (u, Dskip)
    y = Add (scanned, skipped)
}
"""


def _model(
    graph: onnx.GraphProto, functions: tuple[onnx.FunctionProto, ...] = ()
) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("vim_deploy", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def _float_value(name: str, shape: tuple[int | str | None, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def perceptron(batch: int | str = "batch", width: int = 8) -> onnx.ModelProto:
    """``logits = relu(image @ w)`` with image and logits float32 [batch, width]."""
    weight = np.random.default_rng(0).standard_normal((width, width)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["image", "w"], ["hidden"], name="in_proj"),
            helper.make_node("Relu", ["hidden"], ["logits"], name="activation"),
        ],
        "perceptron",
        [_float_value("image", (batch, width))],
        [_float_value("logits", (batch, width))],
        [numpy_helper.from_array(weight, "w")],
    )
    return _model(graph)


def elementwise(
    inputs: dict[str, tuple[int | str | None, ...]],
    op: str = "Relu",
    *,
    element: int = TensorProto.FLOAT,
    domain: str = "",
) -> onnx.ModelProto:
    """One ``op`` for each input, named ``<input>_node``, with output ``<input>_out``."""
    graph = helper.make_graph(
        [
            helper.make_node(op, [name], [f"{name}_out"], name=f"{name}_node", domain=domain)
            for name in inputs
        ],
        "elementwise",
        [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs.items()],
        [
            helper.make_tensor_value_info(f"{name}_out", element, shape)
            for name, shape in inputs.items()
        ],
    )
    return _model(graph)


def scan_blocks(
    layers: int = 1,
    length: int = 6,
    width: int = 8,
    state: int = 4,
    batch: int | str = "batch",
) -> onnx.ModelProto:
    """Residual blocks ``x + scan(x)``; x and the output float32 [batch, length, width]."""
    generator = np.random.default_rng(1)
    constants: dict[str, np.ndarray] = {}
    nodes = []
    value = "tokens"
    for layer in range(layers):
        p = f"layers.{layer}."
        constants |= {
            f"{p}dt_w": generator.standard_normal((width, width)) / width**0.5,
            f"{p}bc_w": generator.standard_normal((width, 2 * state)) / width**0.5,
            f"{p}A": -np.exp(generator.standard_normal((state, width))),
            f"{p}D": np.ones(width),
            f"{p}dt_bias": np.zeros(width),
        }
        scan_inputs = [value, f"{p}dt", f"{p}A", f"{p}bc", f"{p}D", f"{p}dt_bias"]
        nodes += [
            helper.make_node("MatMul", [value, f"{p}dt_w"], [f"{p}dt"], name=f"{p}dt_proj"),
            helper.make_node("MatMul", [value, f"{p}bc_w"], [f"{p}bc"], name=f"{p}x_proj"),
            helper.make_node(
                "VimSelectiveScan",
                scan_inputs,
                [f"{p}y"],
                name=f"{p}scan",
                domain="vim_deploy",
                reverse=0,
                delta_softplus=1,
                b_off=0,
                c_off=state,
                z_off=0,
                has_z=0,
            ),
            helper.make_node("Add", [value, f"{p}y"], [f"{p}out"], name=f"{p}residual"),
        ]
        value = f"{p}out"
    nodes.append(helper.make_node("Identity", [value], ["features"], name="head"))
    shape = (batch, length, width)
    graph = helper.make_graph(
        nodes,
        "scan_blocks",
        [_float_value("tokens", shape)],
        [_float_value("features", shape)],
        [
            numpy_helper.from_array(array.astype(np.float32), name)
            for name, array in constants.items()
        ],
    )
    return _model(graph, (parser.parse_function(_SCAN_FUNCTION),))
