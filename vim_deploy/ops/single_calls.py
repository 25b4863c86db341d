"""What holds for single nodes of our ops: the tokens that each sees, and bodies for one alone.

A file's function holds for all nodes of its op, and so takes sizes from each where they differ, and
steps as many as the longest needs. Where a body stands in the place of its call, each call can have
one for itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import FunctionProto, NodeProto

from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import inferred, opset_version, without_weights
from vim_deploy.ops import OPS, Op, contract
from vim_deploy.ops.functions import (
    Lengths,
    attach_functions,
    body_of,
    differ,
    known_shapes,
    loops,
    nodes_of,
    shared_facts,
    type_function,
    type_functions,
)


def scan_lengths(model: onnx.ModelProto) -> Lengths:
    """Numbers of tokens that the scans of ``model`` see, each once, ascending.

    Args:
        model: with nodes of our ops; functions are not needed, and it is not changed.

    Raises:
        VimDeployError: VIM-409 when shapes contradict each other, VIM-502 when a scan's number of
            tokens is not fixed, or the nodes of an op cannot share a function.
    """
    return tuple(sorted(set(_tokens_of_nodes(model, OPS).values())))


def bodies_of_calls(model: onnx.ModelProto) -> dict[str, FunctionProto]:
    """A body for each node whose op's function is written for nodes that differ, by its output.

    Args:
        model: with nodes of our ops and their functions, which say whether bodies have a loop and
            whether they are typed; it is not changed.

    Returns:
        Nothing for the nodes of an op that agree in sizes, columns and tokens: the function in the
        file is what each of them needs.

    Raises:
        VimDeployError: as ``scan_lengths``, the number of tokens for bodies without a loop alone.
    """
    shapes = known_shapes(model.graph)
    opset = opset_version(model)
    held = {item.name: item for item in model.functions if item.domain == contract.DOMAIN}
    made: dict[str, FunctionProto] = {}
    for op in (op for op in OPS.values() if loops(op) and op.name in held):
        nodes = nodes_of(model.graph, op)
        if not nodes:
            continue
        if not differ([held[op.name]]):
            continue
        unrolled = all(node.op_type != "Scan" for node in held[op.name].node)
        typed = any(node.op_type == "CastLike" for node in held[op.name].node)
        tokens = _tokens_of_nodes(model, {op.name: op}) if unrolled else {}
        known: dict[tuple[object, ...], FunctionProto] = {}
        for node in nodes:
            facts = shared_facts(op, [node], shapes)
            lengths = (tokens[node.output[0]],) if unrolled else ()
            form = (lengths, *facts.items())
            if form not in known:
                known[form] = body_of(op, facts, lengths, opset, any_length=unrolled)
                if typed:
                    type_function(known[form], op.fixed)
            made[node.output[0]] = known[form]
    return made


def with_own_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` where each call that has a body of its own calls a function of its own.

    For inference: ONNX does not follow columns that a body works out. Weights are inputs in the
    copy; where no call has one, ``model`` itself comes back.

    Raises:
        VimDeployError: as ``bodies_of_calls``.
    """
    bodies = bodies_of_calls(model)
    if not bodies:
        return model
    copy = without_weights(model)
    names: dict[int, str] = {}
    for node in nodes_of(copy.graph):
        body = bodies.get(node.output[0])
        if body is None:
            continue
        if id(body) not in names:
            names[id(body)] = f"{node.op_type}_{len(names)}"
            function = copy.functions.add()
            function.CopyFrom(body)
            function.name = names[id(body)]
        node.op_type = names[id(body)]
    return copy


def _tokens_of_nodes(model: onnx.ModelProto, ops: Mapping[str, Op]) -> dict[str, int]:
    """How many tokens each node of an op with a loop sees, by its output."""
    nodes = [(op, node) for op in ops.values() if loops(op) for node in nodes_of(model.graph, op)]
    if not nodes:
        return {}
    light = without_weights(model)
    attach_functions(light, ops=ops)
    # The graph may be typed already; these fit any element type.
    type_functions(light, ops)
    graph = inferred(light, data_prop=True)
    types = {value.name: value.type for value in (*graph.input, *graph.value_info)}
    return {node.output[0]: _tokens(op, node, types) for op, node in nodes}


def _tokens(op: Op, node: NodeProto, types: Mapping[str, onnx.TypeProto]) -> int:
    assert op.tokens_of is not None
    name, axis = op.tokens_of
    source = node.input[op.inputs.index(name)]
    dims = types[source].tensor_type.shape.dim if source in types else ()
    if len(dims) <= axis or not dims[axis].HasField("dim_value"):
        raise VimDeployError(
            "VIM-502",
            "a scan without a loop needs a fixed number of tokens",
            why=f"the graph does not tell how many tokens {source} has, which {node.name!r} reads",
            fix="export with --scan-body scan",
        )
    return int(dims[axis].dim_value)
