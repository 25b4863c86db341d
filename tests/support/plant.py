"""Exported files with one fault planted in them, as a wrong exporter or a changed file would be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import FunctionProto, NodeProto, helper, numpy_helper

from vim_deploy.ops import SELECTIVE_SCAN
from vim_deploy.ops.op import Kind

Values = NDArray[np.float32]


def change_weight(model: onnx.ModelProto, name: str, change: Callable[[Values], Values]) -> None:
    """Replace the values of the initialiser ``name``; shape and type stay."""
    (tensor,) = [item for item in model.graph.initializer if item.name == name]
    old = numpy_helper.to_array(tensor)
    new = change(old.astype(np.float32).copy()).astype(old.dtype)
    assert new.shape == old.shape
    assert not np.array_equal(new, old), "the fault changes nothing"
    tensor.CopyFrom(numpy_helper.from_array(new, name))


def node_of(model: onnx.ModelProto, name: str) -> NodeProto:
    """The node called ``name``."""
    (node,) = [item for item in model.graph.node if item.name == name]
    return node


def reverse_scan(model: onnx.ModelProto, name: str) -> None:
    """The scan node ``name`` runs the other way."""
    node = node_of(model, name)
    for attribute in node.attribute:
        if attribute.name == "reverse":
            attribute.i = 1 - attribute.i
        elif SELECTIVE_SCAN.attributes[attribute.name] == Kind.DIRECTIONS:
            attribute.ints[:] = [1 - value for value in attribute.ints]


def lay_out_wrongly(values: Values) -> Values:
    """A as stored officially, [.., D, N], read as if it were [.., N, D]."""
    wrong: Values = np.swapaxes(values, -1, -2).reshape(values.shape)
    return wrong


def function_of(model: onnx.ModelProto, op_type: str) -> FunctionProto:
    """The function that all nodes of ``op_type`` share."""
    (function,) = [item for item in model.functions if item.name == op_type]
    return function


def own_function(model: onnx.ModelProto, name: str) -> FunctionProto:
    """A copy of its function that only the node ``name`` calls: the other nodes stay right."""
    node = node_of(model, name)
    copy = FunctionProto()
    copy.CopyFrom(function_of(model, node.op_type))
    copy.name = node.op_type = f"{node.op_type}Wrong"
    model.functions.append(copy)
    return model.functions[-1]


def early_softplus(function: FunctionProto, threshold: float) -> None:
    """softplus(x) is x from ``threshold`` on."""
    position, softplus = next(
        (number, item) for number, item in enumerate(function.node) if item.op_type == "Softplus"
    )
    source, target = softplus.input[0], softplus.output[0]
    softplus.output[0] = "softplus_right"
    added = [
        helper.make_node("Constant", [], ["threshold"], value_float=threshold),
        helper.make_node("Greater", [source, "threshold"], ["is_large"]),
        helper.make_node("Where", ["is_large", source, "softplus_right"], [target]),
    ]
    nodes = [*function.node[: position + 1], *added, *function.node[position + 1 :]]
    del function.node[:]
    function.node.extend(nodes)


def scan_forward_twice(function: FunctionProto) -> None:
    """Both directions of a fused scan run forward."""
    (scan,) = [item for item in function.node if item.op_type == "Scan"]
    for attribute in scan.attribute:
        if attribute.name in ("scan_input_directions", "scan_output_directions"):
            attribute.ints[:] = [0] * len(attribute.ints)


def take_next_token(model: onnx.ModelProto) -> None:
    """The head gets the token behind the class token."""
    (gather,) = [
        node for node in model.graph.node if node.op_type == "Gather" and "norm_f" in node.input[0]
    ]
    (tensor,) = [item for item in model.graph.initializer if item.name == gather.input[1]]
    index = numpy_helper.to_array(tensor) + 1
    # A constant of its own: another node may read the same one.
    gather.input[1] = f"{gather.name}_index"
    model.graph.initializer.append(numpy_helper.from_array(index, gather.input[1]))
