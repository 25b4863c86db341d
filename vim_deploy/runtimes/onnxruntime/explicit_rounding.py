"""A half-precision graph in float32 operators, with every rounding to 16 bits spelled out.

ONNX Runtime's CPU provider has no bfloat16 arithmetic at all, and computes float16 graphs in
float32 without rounding between operators, so that it looks more exact than a GPU is. Here every
operator reads 16-bit values, computes in float32 and rounds its result to 16 bits: the arithmetic
of tensor cores with float32 accumulation. Values stored and passed on are exactly 16-bit ones.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import NodeProto, TensorProto, helper

from vim_deploy.onnx_graph import HALF_TYPES, element_types
from vim_deploy.ops import contract


def round_explicitly(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose 16-bit operators run in float32 between casts; float inputs and outputs, too.

    Our own ops are left alone: their functions compute in float32 between casts already.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    types = element_types(copy)
    nodes = _narrowed_inputs(graph, types)
    for node in graph.node:
        nodes += _widened(node, types)
    nodes += _widened_outputs(graph, types, nodes)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return copy


def _widened(node: NodeProto, types: dict[str, int]) -> list[NodeProto]:
    """The node between casts, where a 16-bit tensor goes in or comes out."""
    if node.domain == contract.DOMAIN or node.op_type in ("Cast", "CastLike"):
        return [node]
    before, after = [], []
    for position, name in enumerate(node.input):
        if types.get(name) in HALF_TYPES:
            wide = f"{node.name}/input_{position}_fp32"
            before.append(_cast(name, wide, TensorProto.FLOAT))
            node.input[position] = wide
    for position, name in enumerate(node.output):
        if types.get(name) in HALF_TYPES:
            wide = f"{node.name}/output_{position}_fp32"
            after.append(_cast(wide, name, types[name]))
            node.output[position] = wide
    return [*before, node, *after]


def _narrowed_inputs(graph: onnx.GraphProto, types: dict[str, int]) -> list[NodeProto]:
    """Graph inputs become float32; a cast behind them gives what the graph had."""
    nodes = []
    for value in graph.input:
        element = value.type.tensor_type.elem_type
        if element in HALF_TYPES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            inner = f"{value.name}_rounded"
            _rename(graph.node, value.name, inner)
            types[inner] = element
            nodes.append(_cast(value.name, inner, element))
    return nodes


def _widened_outputs(
    graph: onnx.GraphProto, types: dict[str, int], nodes: list[NodeProto]
) -> list[NodeProto]:
    """Graph outputs become float32 after their last rounding."""
    casts = []
    for value in graph.output:
        if types.get(value.name) in HALF_TYPES:
            inner = f"{value.name}_rounded"
            _rename(nodes, value.name, inner)
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            casts.append(_cast(inner, value.name, TensorProto.FLOAT))
    return casts


def _rename(nodes: Iterable[NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for fields in (node.input, node.output):
            for position, name in enumerate(fields):
                if name == old:
                    fields[position] = new


def _cast(source: str, target: str, element: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{source}/to/{target}", to=element)
