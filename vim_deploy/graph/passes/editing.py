"""Looking things up in a graph, and exchanging groups of its nodes.

A pass names the tensors whose producers go and hands over nodes that give the same tensors. The
new nodes stand where the first old one stood, so the order stays topological, and whatever nothing
reads any more is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import (
    GraphProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from vim_deploy.onnx_graph import DEFAULT_DOMAINS, drop_unused_initializers, read_by_subgraphs

Array = NDArray[np.generic]


class GraphIndex:
    """Producers, readers and constants of a graph at one moment."""

    def __init__(self, graph: GraphProto) -> None:
        self.outputs = frozenset(value.name for value in graph.output)
        self.initializers: dict[str, TensorProto] = {item.name: item for item in graph.initializer}
        # An initialiser that is a graph input as well is a default, not a constant.
        for value in graph.input:
            self.initializers.pop(value.name, None)
        self.producers: dict[str, NodeProto] = {}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.output:
                self.producers[name] = node
            # A subgraph reads outer tensors by name, too.
            for name in [*node.input, *read_by_subgraphs(node)]:
                self._readers.setdefault(name, []).append(node)

    def producer(self, tensor: str, op_type: str) -> NodeProto | None:
        """The node that makes ``tensor``, if it is a standard ``op_type``."""
        node = self.producers.get(tensor)
        fits = node is not None and node.op_type == op_type and node.domain in DEFAULT_DOMAINS
        return node if fits else None

    def readers(self, tensor: str) -> list[NodeProto]:
        """Nodes that read ``tensor``, one entry for each input that does."""
        return self._readers.get(tensor, [])

    def constant(self, tensor: str) -> Array | None:
        """Value of an initialiser, or None."""
        item = self.initializers.get(tensor)
        return None if item is None else numpy_helper.to_array(item)

    def value(self, tensor: str) -> Array:
        """Value of an initialiser that a pattern has found to be one."""
        return numpy_helper.to_array(self.initializers[tensor])

    def integers(self, tensor: str) -> list[int] | None:
        """Value of an int64 initialiser, flattened, or None."""
        item = self.initializers.get(tensor)
        if item is None or item.data_type != TensorProto.INT64:
            return None
        return [int(value) for value in numpy_helper.to_array(item).reshape(-1)]


class Rewriter:
    """Collects exchanges in ``graph`` and makes them at once in ``finish``."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._position: dict[str, int] = {}
        for index, node in enumerate(graph.node):
            for name in node.output:
                self._position[name] = index
        self._removed: set[int] = set()
        self._inserted: dict[int, list[NodeProto]] = {}
        taken = [*graph.initializer, *graph.sparse_initializer, *graph.input]
        self._tensors = {_name_of(item) for item in taken} | set(self._position)
        self._node_names = {node.name for node in graph.node}

    def replace(self, tensors: Iterable[str], nodes: Sequence[NodeProto]) -> None:
        """Take out the producers of ``tensors``, put ``nodes`` in the first one's place."""
        positions = sorted(self._position[name] for name in tensors)
        self._removed.update(positions)
        self._inserted.setdefault(positions[0], []).extend(nodes)

    def constant(self, wanted: str, value: Array) -> str:
        """Add an initialiser; its name is ``wanted`` unless that is taken."""
        name = _free(wanted, self._tensors)
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def node_name(self, wanted: str) -> str:
        """A node name that is not taken."""
        return _free(wanted, self._node_names)

    def finish(self) -> None:
        """Make the exchanges, then remove what nothing reads."""
        nodes: list[NodeProto] = []
        for index, node in enumerate(self._graph.node):
            nodes += self._inserted.get(index, [])
            if index not in self._removed:
                nodes.append(node)
        needed = {value.name for value in self._graph.output}
        kept: list[NodeProto] = []
        for node in reversed(nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update([*node.input, *read_by_subgraphs(node)])
        copies = [_copy(node) for node in reversed(kept)]
        del self._graph.node[:]
        self._graph.node.extend(copies)
        drop_unused_initializers(self._graph)


def _name_of(item: TensorProto | SparseTensorProto | ValueInfoProto) -> str:
    return item.values.name if isinstance(item, SparseTensorProto) else item.name


def _free(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def _copy(node: NodeProto) -> NodeProto:
    # Deleting from a repeated field frees its elements.
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def node_of(
    op_type: str,
    name: str,
    inputs: Sequence[str],
    output: str = "",
    domain: str = "",
    **attributes: int | float | Sequence[int],
) -> NodeProto:
    """A node of one output, by default ``<name>_output_0``, its attributes in sorted order."""
    outputs = [output or f"{name}_output_0"]
    node = helper.make_node(op_type, list(inputs), outputs, name=name, domain=domain)
    node.attribute.extend(helper.make_attribute(key, attributes[key]) for key in sorted(attributes))
    return node


def pick_directions(
    rewriter: Rewriter, place: str, stacked: str, outputs: Sequence[str]
) -> list[NodeProto]:
    """Nodes that give index 0, 1, ... of the leading axis of ``stacked`` as ``outputs``."""
    nodes = []
    for number, output in enumerate(outputs):
        which = rewriter.constant(f"{place}/direction_{number}", np.array(number, np.int64))
        name = rewriter.node_name(f"{place}/Direction")
        nodes.append(node_of("Gather", name, [stacked, which], output, axis=0))
    return nodes
