"""Questions and edits on ONNX messages that several modules share.

``GraphIndex`` looks things up, ``Rewriter`` exchanges groups of nodes: a rewrite names the tensors
whose producers go and hands over nodes that give the same tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
    shape_inference,
)

from vim_deploy.errors import VimDeployError
from vim_deploy.precisions import NAMES, TABLE, TYPED, Precision, of_types

#: The names of ONNX's own operators' domain.
DEFAULT_DOMAINS = ("", "ai.onnx")
#: Bytes from which a tensor is a weight. Smaller ones (axes, shapes, slice bounds) stay in the
#: model: runtimes read them while they load the graph.
WEIGHT_BYTES = 1024
#: ONNX element type of each precision.
ELEMENT_TYPES: dict[str, int] = {
    name: TensorProto.DataType.Value(row.onnx) for name, row in TABLE.items()
}
#: Precision of each element type.
PRECISIONS: dict[int, Precision] = {ELEMENT_TYPES[name]: name for name in NAMES}
HALF_TYPES = frozenset(ELEMENT_TYPES[name] for name in TYPED)
#: How onnx says that it cannot go on with a graph that contradicts itself, depending on which
#: operator meets it first; the file may be anybody's.
_REFUSALS = (
    shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError,
    TypeError, IndexError, OverflowError,
)  # fmt: skip
#: Shape of each initialiser by name.
Shapes = dict[str, tuple[int, ...]]
Array = NDArray[np.generic]


def attribute_int(node: NodeProto, name: str, default: int | None = None) -> int:
    """An INT attribute of ``node``; ``default``, or else KeyError, when it is absent."""
    for attribute in node.attribute:
        if attribute.name == name:
            return int(attribute.i)
    if default is not None:
        return default
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


def constants_of(graph: GraphProto) -> dict[str, NDArray[np.int64]]:
    """Integer initialisers by name, flattened: axes, shapes and slice bounds."""
    return {
        tensor.name: numpy_helper.to_array(tensor).reshape(-1)
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.INT64
    }


def subgraphs_of(node: NodeProto) -> list[GraphProto]:
    """The graphs that ``node`` carries in its attributes: branches, bodies."""
    found: list[GraphProto] = []
    for attribute in node.attribute:
        one = attribute.type == AttributeProto.GRAPH
        found += [attribute.g] if one else attribute.graphs
    return found


def read_by_subgraphs(node: NodeProto) -> list[str]:
    """Tensors that the graphs inside ``node`` name, those of the outer graph among them."""
    names: list[str] = []
    for body in subgraphs_of(node):
        names += [value.name for value in body.output]
        for inner in body.node:
            names += [*inner.input, *read_by_subgraphs(inner)]
    return names


def named_in_subgraphs(nodes: Iterable[NodeProto]) -> set[str]:
    """Tensors that the graphs inside ``nodes`` define, which hide outer ones of their names."""
    names: set[str] = set()
    for graph in (body for node in nodes for body in subgraphs_of(node)):
        names |= {item.name for item in (*graph.input, *graph.initializer)}
        names |= {name for inner in graph.node for name in inner.output}
        names |= named_in_subgraphs(graph.node)
    return names


def rename_tensors(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    """Give tensors other names, in place; a subgraph keeps what it defines itself."""
    for node in nodes:
        for fields in (node.input, node.output):
            fields[:] = [names.get(name, name) for name in fields]
        for graph in subgraphs_of(node):
            own = {value.name for value in graph.input}
            own |= {tensor.name for tensor in graph.initializer}
            own |= {name for inner in graph.node for name in inner.output}
            rename_tensors(graph.node, {old: new for old, new in names.items() if old not in own})


def drop_unused_initializers(graph: GraphProto) -> None:
    """Remove initialisers that no node reads and that are no graph output."""
    used = {name for node in graph.node for name in [*node.input, *read_by_subgraphs(node)]}
    used |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def opset_version(model: ModelProto) -> int:
    """Version of the default domain."""
    return next(
        int(entry.version) for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS
    )


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes of a tensor by type and shape, in memory."""
    size = int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    for dim in tensor.dims:
        size *= int(dim)
    return size


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which weights are graph inputs of the same name, type and shape.

    For the checker and for shape inference, which serialise the model they are given and so take
    none above the limit.
    """
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.MergeFrom(model.opset_import)
    light.functions.MergeFrom(model.functions)
    graph = light.graph
    graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(graph, field).MergeFrom(getattr(model.graph, field))
    given = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor_bytes(tensor) < WEIGHT_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in given:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            graph.input.append(value)
    return light


def inferred(model: ModelProto, *, data_prop: bool = False, strict: bool = True) -> GraphProto:
    """The graph of ``model``, weights as inputs, with every type and shape that can be told.

    Args:
        model: it is not changed.
        data_prop: follow the values of shapes, too.
        strict: refuse contradictions; else what lies behind one is left untold, as it is behind
            operators without a local function.

    Raises:
        VimDeployError: VIM-409 when types or shapes contradict each other.
    """
    try:
        return shape_inference.infer_shapes(
            without_weights(model), strict_mode=strict, data_prop=data_prop
        ).graph
    except _REFUSALS as error:
        raise _contradicts(error) from error


def inlined(model: ModelProto, but: Iterable[tuple[str, str]] = ()) -> ModelProto:
    """A copy of ``model``, weights as inputs, with local functions in place of their calls.

    Args:
        model: with its functions.
        but: domain and name of functions that stay functions.

    Raises:
        VimDeployError: VIM-409 when a call does not fit its function.
    """
    try:
        return onnx.inliner.inline_selected_functions(
            without_weights(model), list(but), exclude=True
        )
    except _REFUSALS as error:
        raise _contradicts(error) from error


def _contradicts(error: Exception) -> VimDeployError:
    return VimDeployError(
        "VIM-409",
        "the types and shapes of the graph cannot be worked out",
        why=str(error).strip().partition("\n")[0] or type(error).__name__,
        fix="export the file again with this version of vim-deploy",
    )


class GraphIndex:
    """Producers, readers and constants of a graph at one moment."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
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

    def sliced(self, node: NodeProto) -> tuple[int, int, int] | None:
        """Start, end and axis of a Slice of one axis in steps of 1, where they are constants."""
        values = [*map(self.integers, node.input[1:]), [1]][:4]
        if len(values) < 4 or values[3] != [1] or not all(values):
            return None
        (start, *_), (end, *_), (axis, *more) = (value or [0] for value in values[:3])
        return None if more else (start, end, axis)


class Rewriter(GraphIndex):
    """Collects exchanges in ``graph`` and makes them at once in ``finish``.

    New nodes stand where the first old one stood, so the order stays topological, and whatever
    nothing reads any more is removed. What is looked up is the graph before.
    """

    def __init__(self, graph: GraphProto) -> None:
        super().__init__(graph)
        self._position = {
            name: index for index, node in enumerate(graph.node) for name in node.output
        }
        self._removed: set[int] = set()
        self._inserted: dict[int, list[NodeProto]] = {}
        self._tensors = {item.name for item in [*graph.initializer, *graph.input]}
        self._tensors |= {item.values.name for item in graph.sparse_initializer}
        self._tensors |= set(self._position) | named_in_subgraphs(graph.node)
        self._node_names = {node.name for node in graph.node}

    def replace(self, tensors: Iterable[str], nodes: Sequence[NodeProto]) -> None:
        """Take out the producers of ``tensors``, put ``nodes`` in the first one's place."""
        positions = {self._position[name] for name in tensors}
        self._removed |= positions
        self._inserted.setdefault(min(positions), []).extend(nodes)

    def add_constant(self, wanted: str, value: Array) -> str:
        """Add an initialiser; its name is ``wanted`` unless that is taken."""
        name = free_name(wanted, self._tensors)
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def node_name(self, wanted: str) -> str:
        """A node name that is not taken."""
        return free_name(wanted, self._node_names)

    def finish(self) -> None:
        """Make the exchanges, then remove what nothing reads."""
        nodes: list[NodeProto] = []
        for index, node in enumerate(self.graph.node):
            nodes += self._inserted.get(index, [])
            if index not in self._removed:
                nodes.append(node)
        needed = {value.name for value in self.graph.output}
        kept: list[NodeProto] = []
        for node in reversed(nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update([*node.input, *read_by_subgraphs(node)])
        # Deleting from a repeated field frees its elements.
        copies = [copy.deepcopy(node) for node in reversed(kept)]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        drop_unused_initializers(self.graph)


def free_name(wanted: str, taken: set[str]) -> str:
    """``wanted``, or that with a number when it is taken; it is taken then."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


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


def element_types(model: ModelProto) -> dict[str, int]:
    """ONNX element type of every tensor of the main graph whose type can be inferred.

    Raises:
        VimDeployError: VIM-409 when types or shapes contradict each other.
    """
    graph = inferred(model)
    values = [*graph.input, *graph.value_info, *graph.output]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    found.update({tensor.name: tensor.data_type for tensor in model.graph.initializer})
    return found


def half_types(model: ModelProto) -> set[int]:
    """The 16-bit float types that the graph casts to or computes with weights in.

    Weights that nothing but Casts read are only stored so.
    """
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    read = {name for node in model.graph.node if node.op_type != "Cast" for name in node.input}
    stored = {name for node in casts for name in node.input} - read
    found = {item.data_type for item in model.graph.initializer if item.name not in stored}
    for node in casts:
        found |= {int(item.i) for item in node.attribute if item.name == "to"}
    return found & HALF_TYPES


def computed_precision(model: ModelProto) -> Precision:
    """What weights and casts say that the graph computes in, whatever it says of itself."""
    return of_types(TABLE[PRECISIONS[element]].onnx for element in half_types(model))


def half_tensors(model: ModelProto) -> set[str]:
    """Tensors of the main graph with a 16-bit float type."""
    if not half_types(model):
        return set()
    return {name for name, element in element_types(model).items() if element in HALF_TYPES}
