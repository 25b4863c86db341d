"""Small questions and edits on ONNX messages that several graph modules share."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto

from vim_deploy import contract

#: Shape of each initialiser by name.
Shapes = dict[str, tuple[int, ...]]


def attribute_int(node: NodeProto, name: str) -> int:
    """An INT attribute of ``node``; KeyError when it is absent."""
    for attribute in node.attribute:
        if attribute.name == name:
            return int(attribute.i)
    raise KeyError(f"{node.op_type} {node.name} has no attribute {name}")


def attribute_float(node: NodeProto, name: str) -> float:
    """A FLOAT attribute of ``node``; KeyError when it is absent."""
    for attribute in node.attribute:
        if attribute.name == name:
            return float(attribute.f)
    raise KeyError(f"{node.op_type} {node.name} has no attribute {name}")


def attribute_ints(node: NodeProto, name: str) -> list[int] | None:
    """An INTS attribute of ``node``; None when it is absent."""
    for attribute in node.attribute:
        if attribute.name == name:
            return [int(value) for value in attribute.ints]
    return None


def nodes_of(graph: GraphProto, op_type: str) -> list[NodeProto]:
    """The nodes of one of our own ops, in graph order."""
    return [
        node for node in graph.node if node.domain == contract.DOMAIN and node.op_type == op_type
    ]


def scan_nodes(graph: GraphProto) -> list[NodeProto]:
    """The one-direction scan nodes in graph order."""
    return nodes_of(graph, contract.SELECTIVE_SCAN)


def constants_of(graph: GraphProto) -> dict[str, NDArray[np.int64]]:
    """Integer initialisers by name, flattened: axes, shapes and slice bounds."""
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor).reshape(-1)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT64
    }


def drop_unused_initializers(graph: GraphProto) -> None:
    """Remove initialisers that no node reads and that are no graph output."""
    used = {name for node in graph.node for name in node.input}
    used |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def opset_version(model: ModelProto) -> int:
    """Version of the default domain."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain == "")
