"""Local functions whose activations may have any element type T.

Before: a body for float32 tensors. After: the same body between casts, T to float32 on the way in
and back on the way out, as the contract has it: activations T, parameters and state float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

from vim_deploy.ops import contract


def type_functions(model: onnx.ModelProto) -> None:
    """Put casts into the local functions of our ops, in place; each function has one output."""
    for function in model.functions:
        if function.domain == contract.DOMAIN:
            _type_function(function)


def _type_function(function: FunctionProto) -> None:
    fixed = contract.FP32_INPUTS[function.name]
    read = _names_read(function.node)
    activations = [name for name in function.input if name not in fixed and name in read]
    (output,) = function.output
    renamed = {name: f"{name}_fp32" for name in (*activations, output)}
    body = [_renamed(node, renamed) for node in function.node]
    before = [
        helper.make_node("Cast", [name], [renamed[name]], to=TensorProto.FLOAT)
        for name in activations
    ]
    # Like the first activation: nodes of one file may differ in T, where a policy says so.
    after = helper.make_node("CastLike", [renamed[output], activations[0]], [output])
    del function.node[:]
    function.node.extend([*before, *body, after])


def _names_read(nodes: Iterable[NodeProto]) -> set[str]:
    """Tensors that ``nodes`` read, those read inside of subgraphs included."""
    read: set[str] = set()
    for node in nodes:
        read.update(node.input)
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                read |= _names_read(attribute.g.node)
    return read


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """``node`` with other tensor names; a subgraph keeps what it defines itself."""
    copy = NodeProto()
    copy.CopyFrom(node)
    for fields in (copy.input, copy.output):
        for position, name in enumerate(fields):
            fields[position] = names.get(name, name)
    for attribute in copy.attribute:
        if attribute.type == AttributeProto.GRAPH:
            graph = attribute.g
            own = {value.name for value in graph.input}
            own |= {name for inner in graph.node for name in inner.output}
            outer = {old: new for old, new in names.items() if old not in own}
            nodes = [_renamed(inner, outer) for inner in graph.node]
            del graph.node[:]
            graph.node.extend(nodes)
    return copy
