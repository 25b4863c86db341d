"""What a graph must be before the passes touch it; anything else is refused as a whole.

The graphs that ``export`` traces are all of this kind. Graphs that were edited by hand or by other
tools need not be, and the passes rely on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx
from onnx import NodeProto
from onnx.external_data_helper import uses_external_data

from vim_deploy.errors import VimDeployError
from vim_deploy.graph.opset import OPSETS
from vim_deploy.onnx_graph import DEFAULT_DOMAINS, read_by_subgraphs, subgraphs_of
from vim_deploy.ops import contract


def require_fusable(model: onnx.ModelProto) -> None:
    """Refuse a graph that the passes could mistake for another.

    Raises:
        VimDeployError: VIM-504 with every reason: another opset; weights that were left in another
            file; our ops where the passes do not look; names that stand for two tensors, or a node
            that reads what is made after it or nowhere.
    """
    problems = [*_opset(model), *_weights(model), *_hidden_ops(model), *_names(model.graph)]
    if problems:
        raise VimDeployError(
            "VIM-504",
            "the graph cannot take the fusion passes",
            why="; ".join(problems[:4]),
            fix="give a graph made by vim-deploy export --graph base",
        )


def require_distinct_names(graph: onnx.GraphProto) -> None:
    """Check a rewritten graph's names.

    Raises:
        VimDeployError: VIM-504 when a name that a pass gave was taken.
    """
    problems = _names(graph)
    if problems:
        raise VimDeployError(
            "VIM-504",
            "the names of the fused graph clash with those that were there",
            why="; ".join(problems[:4]),
            fix="rename the tensors of the graph that look like those of vim-deploy",
        )


def _opset(model: onnx.ModelProto) -> list[str]:
    versions = [entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS]
    if len(versions) == 1 and versions[0] in OPSETS:
        return []
    known = f"{OPSETS[0]} to {OPSETS[-1]}"
    return [f"it is of opset {', '.join(map(str, versions)) or 'none'}; the passes know {known}"]


def _weights(model: onnx.ModelProto) -> list[str]:
    names = [tensor.name for tensor in model.graph.initializer if uses_external_data(tensor)]
    return [f"the values of {names[0]} and {len(names) - 1} more were not loaded"] if names else []


def _hidden_ops(model: onnx.ModelProto) -> list[str]:
    inner = [*_inner_nodes(model.graph.node)]
    for function in model.functions:
        inner += [*function.node, *_inner_nodes(function.node)]
    hidden = {node.op_type for node in inner if node.domain == contract.DOMAIN}
    return [f"{name} stands inside a subgraph or a function" for name in sorted(hidden)]


def _inner_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        for body in subgraphs_of(node):
            yield from body.node
            yield from _inner_nodes(body.node)


def _names(graph: onnx.GraphProto) -> list[str]:
    """Names made twice, or read before they are made."""
    given = [tensor.name for tensor in graph.initializer]
    given += [tensor.values.name for tensor in graph.sparse_initializer]
    problems = [f"two initialisers are named {name}" for name in _twice(given)]
    known = {*given, *(value.name for value in graph.input), ""}
    inner = {name for node in graph.node for name in _made_inside(node)}
    for node in graph.node:
        read = [*node.input, *(set(read_by_subgraphs(node)) - inner)]
        problems += [
            f"{node.name or node.op_type} reads {name}, which nothing before it makes"
            for name in read
            if name not in known
        ]
        problems += [f"{name} is made twice" for name in node.output if name and name in known]
        known.update(node.output)
    missing = [value.name for value in graph.output if value.name not in known]
    return problems + [f"nothing makes the output {name}" for name in missing]


def _made_inside(node: NodeProto) -> Iterator[str]:
    for body in subgraphs_of(node):
        yield from (value.name for value in body.input)
        yield from (tensor.name for tensor in body.initializer)
        for inner in body.node:
            yield from inner.output
            yield from _made_inside(inner)


def _twice(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
