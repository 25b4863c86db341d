"""Nodes that several local functions are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper


def constant(name: str, values: Sequence[int]) -> NodeProto:
    """A Constant of int64, one-dimensional."""
    array = np.array(values, dtype=np.int64)
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def scalar(name: str, value: int | float) -> NodeProto:
    """A Constant without dimensions: int64 for an int, float32 for a float."""
    dtype = np.int64 if isinstance(value, int) else np.float32
    tensor = numpy_helper.from_array(np.array(value, dtype))
    return helper.make_node("Constant", [], [name], value=tensor)


def columns(source: str, start: int, count: int, name: str, axis: int) -> list[NodeProto]:
    """``name`` = ``source`` at [start, start + count) of ``axis``."""
    return [
        constant(f"{name}_start", [start]),
        constant(f"{name}_end", [start + count]),
        constant(f"{name}_axis", [axis]),
        helper.make_node("Slice", [source, f"{name}_start", f"{name}_end", f"{name}_axis"], [name]),
    ]


def silu(source: str, name: str) -> list[NodeProto]:
    """``name`` = source * sigmoid(source)."""
    return [
        helper.make_node("Sigmoid", [source], [f"{name}_sigmoid"]),
        helper.make_node("Mul", [source, f"{name}_sigmoid"], [name]),
    ]


def one_token(suffixes: Sequence[str]) -> GraphProto:
    """Body of an ONNX Scan over tokens: h = exp(delta A) h + delta u B; y = sum_n C h.

    One recurrence for each suffix, side by side. Elementwise and reduce ops only: TensorRT-RTX's
    compiler fails on Unsqueeze, Squeeze or MatMul in here next to casts. Shapes of a token: state
    [B,N,D]; delta, delta_u [B,1,D]; b, c [B,N,1]; A [N,D], read from outside; y [B,D].
    """
    nodes, states, slices, read = [constant("state_axis", [1])], [], [], []
    for s in suffixes:
        nodes += [
            helper.make_node("Mul", [f"delta_t{s}", f"A{s}"], [f"delta_a_t{s}"]),
            helper.make_node("Exp", [f"delta_a_t{s}"], [f"decay_t{s}"]),
            helper.make_node("Mul", [f"decay_t{s}", f"state_in{s}"], [f"decayed_t{s}"]),
            helper.make_node("Mul", [f"delta_u_t{s}", f"b_t{s}"], [f"input_t{s}"]),
            helper.make_node("Add", [f"decayed_t{s}", f"input_t{s}"], [f"state_out{s}"]),
            helper.make_node("Mul", [f"state_out{s}", f"c_t{s}"], [f"read_t{s}"]),
            helper.make_node("ReduceSum", [f"read_t{s}", "state_axis"], [f"y_t{s}"], keepdims=0),
        ]
        states.append(f"state_in{s}")
        slices += [f"{name}{s}" for name in ("delta_t", "delta_u_t", "b_t", "c_t")]
        read.append(s)
    outputs = [f"state_out{s}" for s in read] + [f"y_t{s}" for s in read]
    return helper.make_graph(
        nodes, "one_token", [_float(name) for name in states + slices], [_float(n) for n in outputs]
    )


def _float(name: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
