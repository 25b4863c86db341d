"""Nodes of our own ops in a file of anybody's, held against the contract."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, NodeProto

from vim_deploy.ops import contract

_INT, _FLOAT = AttributeProto.INT, AttributeProto.FLOAT
#: Op -> its attributes with their ONNX types.
ATTRIBUTES: dict[str, dict[str, int]] = {
    contract.SELECTIVE_SCAN: dict.fromkeys(contract.SELECTIVE_SCAN_ATTRIBUTES, _INT),
    contract.BI_CAUSAL_CONV: dict.fromkeys(contract.BI_CAUSAL_CONV_ATTRIBUTES, _INT),
    contract.BI_SELECTIVE_SCAN: {
        **dict.fromkeys(contract.BI_SELECTIVE_SCAN_ATTRIBUTES, _INT),
        **dict.fromkeys(contract.BI_SELECTIVE_SCAN_FLOAT_ATTRIBUTES, _FLOAT),
    },
}
#: Attributes that are one of a few numbers; the others are columns of a row.
_FLAGS = frozenset({"reverse", "delta_softplus", "has_z", "low_rank"})
#: Columns of a row: far above any model, far below what overflows a 32-bit number.
_MOST_COLUMNS = 1 << 24
#: Read by ``VimSelectiveScan`` when ``has_z`` = 1 alone.
_OPTIONAL = frozenset({"z"})


def nodes_of(graph: GraphProto, op_type: str) -> list[NodeProto]:
    """The nodes of one of our own ops, in graph order."""
    return [
        node for node in graph.node if node.domain == contract.DOMAIN and node.op_type == op_type
    ]


def scan_nodes(graph: GraphProto) -> list[NodeProto]:
    """The one-direction scan nodes in graph order."""
    return nodes_of(graph, contract.SELECTIVE_SCAN)


def flaws(node: NodeProto) -> Iterator[str]:
    """What keeps ``node`` from being what the contract says; nothing for nodes of other ops."""
    if node.domain != contract.DOMAIN or node.op_type not in contract.INPUTS:
        return
    what = f"its node {node.name!r} of our op {node.op_type}"
    names = contract.INPUTS[node.op_type]
    needed = [name for name in names if name not in _OPTIONAL]
    if not len(needed) <= len(node.input) <= len(names) or len(node.output) != 1:
        yield f"{what} has {len(node.input)} inputs and {len(node.output)} outputs"
    given = {attribute.name: attribute for attribute in node.attribute}
    for name, kind in ATTRIBUTES[node.op_type].items():
        if name not in given or given[name].type != kind:
            yield f"{what} does not say {name}"
        elif kind == _INT and not 0 <= given[name].i <= (1 if name in _FLAGS else _MOST_COLUMNS):
            yield f"{what} says {name} = {given[name].i}"
