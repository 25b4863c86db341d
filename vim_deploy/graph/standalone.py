"""The same model in ONNX's own operators alone, for runtimes that know no local functions.

Before: nodes of our ops, and functions that say what they mean. After: in each node's place the
body of its function, its nodes and tensors named after the node (``places.inlined_name``); what
can be known of a body before any picture comes is a stored value, and forms that some runtime does
not take are exchanged (``common_forms``). Weights, numbers and order of the computation are the
same; there is no node left for a plugin or a native kernel to take.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from vim_deploy.errors import VimDeployError
from vim_deploy.graph.common_forms import take_common_forms
from vim_deploy.graph.precision import TRANSPARENT
from vim_deploy.onnx_graph import (
    DEFAULT_DOMAINS,
    WEIGHT_BYTES,
    GraphIndex,
    Rewriter,
    free_name,
    inferred,
    named_in_subgraphs,
    opset_version,
    read_by_subgraphs,
    rename_tensors,
    subgraphs_of,
    tensor_bytes,
)
from vim_deploy.places import inlined_name

#: What is worked out beforehand: operators that move values, and arithmetic on whole numbers. Both
#: give what any runtime gives, to the bit; arithmetic on floats is left to the runtime.
_MOVES = TRANSPARENT | {"Constant", "ConstantOfShape", "Shape"}
_ARITHMETIC = frozenset({"Add", "Max", "Mul", "Sub"})
#: Element types that NumPy has, so that moving them cannot go wrong.
_PLAIN = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.INT32,
     TensorProto.BOOL}
)  # fmt: skip
_WHOLE = frozenset({TensorProto.INT64, TensorProto.INT32})
#: A constant of so many whole numbers is named after them, and one serves all that read it.
_MOST_IN_NAME = 8
#: Far above any model: a function of calls of functions of calls grows without bound.
_MOST_NODES = 1_000_000

Key = tuple[str, str]


def standalone(
    model: onnx.ModelProto, bodies: Mapping[str, FunctionProto] | None = None
) -> onnx.ModelProto:
    """A copy of ``model`` in standard operators: functions inlined, constants worked out.

    Args:
        model: with the local functions of its ops; it is not changed. A dynamic batch stays one.
        bodies: of calls that have one for themselves, in place of the function's, by the first
            output of the call (``bodies_of_calls``).

    Returns:
        A model without functions, in which every node has a name of its own; metadata, inputs and
        outputs are those of ``model``, and so are its opset and IR version.

    Raises:
        VimDeployError: VIM-409 when a node has neither a standard operator nor a function, a call
            does not fit its function, or types or shapes contradict each other.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inliner = _Inliner(copy, bodies or {})
    nodes = list(inliner.expand(copy.graph.node))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    del copy.functions[:]
    kept = [entry for entry in copy.opset_import if entry.domain in DEFAULT_DOMAINS]
    del copy.opset_import[:]
    copy.opset_import.extend(kept)
    del copy.graph.value_info[:]
    _widen(copy.graph)
    told = _told(copy)
    _fold(copy, told)
    rewriter = Rewriter(copy.graph)
    take_common_forms(rewriter, {name: item.sizes for name, item in told.items()})
    rewriter.finish()
    return copy


def _widen(graph: GraphProto) -> None:
    """Store in float32 what is stored in 16 bits and read, behind a Cast, inside a subgraph.

    OpenVINO takes stored values there, and what nodes of constants give, but no Cast's.
    """
    index = GraphIndex(graph)
    found: dict[str, NodeProto] = {}
    for name in (name for node in graph.node for name in read_by_subgraphs(node)):
        node = index.producers.get(name)
        while node is not None and node.op_type in TRANSPARENT:
            node = index.producers.get(node.input[0])
        if node is not None and node.op_type == "Cast" and node.input[0] in index.initializers:
            found[node.output[0]] = node
    for name, node in found.items():
        if any(item.i == TensorProto.FLOAT for item in node.attribute):
            wide = index.value(node.input[0]).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(wide, name))
            graph.node.remove(node)


def is_standalone(model: onnx.ModelProto) -> bool:
    """Whether ``model`` holds standard operators alone, in its subgraphs, too."""
    return not model.functions and not any(_foreign(model.graph.node))


def _foreign(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes that are not of ONNX's own operators."""
    for node in nodes:
        if node.domain not in DEFAULT_DOMAINS:
            yield node
        for graph in subgraphs_of(node):
            yield from _foreign(graph.node)


class _Inliner:
    """Puts the bodies of the functions of ``model`` in the places of their calls."""

    def __init__(self, model: onnx.ModelProto, bodies: Mapping[str, FunctionProto]) -> None:
        self._bodies = bodies
        self._opset = opset_version(model)
        self._functions = {_key(item.domain, item.name): item for item in model.functions}
        graph = model.graph
        self._tensors = {item.name for item in (*graph.initializer, *graph.input)}
        self._tensors |= {name for node in graph.node for name in node.output}
        self._names: set[str] = set()
        self._made = 0

    def expand(self, nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
        """``nodes`` without calls, each under a name that no other node has."""
        for node in nodes:
            function = self._functions.get(_key(node.domain, node.op_type))
            wanted = node.name or next((name for name in node.output if name), node.op_type)
            if function is not None:
                function = self._bodies.get(next(iter(node.output), ""), function)
                yield from self.expand(self._body(node, function, wanted))
                continue
            if node.domain not in DEFAULT_DOMAINS:
                raise _refused(
                    f"{node.domain}::{node.op_type} is no operator of ONNX's, and the file has no "
                    "function of that name"
                )
            self._count()
            for graph in subgraphs_of(node):
                inner = list(self.expand(graph.node))
                del graph.node[:]
                graph.node.extend(inner)
            node.name = free_name(wanted, self._names)
            yield node

    def _body(self, call: NodeProto, function: FunctionProto, at: str) -> Iterator[NodeProto]:
        """The nodes of one call, with its tensors and attributes filled in."""
        if len(call.input) > len(function.input) or len(call.output) > len(function.output):
            raise _refused(f"node {call.name!r} gives {function.name} more than it takes")
        for entry in function.opset_import:
            if entry.domain in DEFAULT_DOMAINS and entry.version != self._opset:
                raise _refused(
                    f"function {function.name} means opset {entry.version}, the graph {self._opset}"
                )
        names = dict(zip_longest(function.input, call.input, fillvalue=""))
        given = {item.name: item for item in (*function.attribute_proto, *call.attribute)}
        copies = [NodeProto() for _ in function.node]
        for copy, node in zip(copies, function.node, strict=True):
            copy.CopyFrom(node)
        again = []
        for inner, outer in zip(function.output, call.output, strict=False):
            if inner in names:
                # An input that comes out, or one output twice: a tensor has one name only.
                again.append((names[inner], outer))
            elif outer:
                names[inner] = outer
        self._place(copies, names, given, at)
        yield from copies
        for inner, outer in again:
            if outer:
                yield onnx.helper.make_node("Identity", [inner], [outer], name=at)

    def _place(
        self,
        nodes: Iterable[NodeProto],
        names: dict[str, str],
        given: Mapping[str, AttributeProto],
        at: str,
    ) -> None:
        """Name what nodes of a body make after their call, and give them its attributes."""
        for node in nodes:
            own = [name for name in node.output if name and name not in names]
            node.name = inlined_name(at, node.name or next(iter(node.output), node.op_type))
            for name in own:
                names[name] = free_name(inlined_name(at, name), self._tensors)
            for fields in (node.input, node.output):
                fields[:] = [names[name] if name else "" for name in fields]
            _fill(node, given)
            for graph in subgraphs_of(node):
                inner = dict(names)
                for held in (*graph.input, *graph.initializer):
                    inner[held.name] = inlined_name(at, held.name)
                    held.name = inner[held.name]
                self._place(graph.node, inner, given, at)
                for value in graph.output:
                    value.name = inner.get(value.name, value.name)

    def _count(self) -> None:
        self._made += 1
        if self._made > _MOST_NODES:
            raise _refused(f"its functions call each other into more than {_MOST_NODES} nodes")


def _key(domain: str, name: str) -> Key:
    return ("" if domain in DEFAULT_DOMAINS else domain, name)


def _fill(node: NodeProto, given: Mapping[str, AttributeProto]) -> None:
    """Put the call's attributes where the body refers to them; one that it lacks is left out."""
    for attribute in [item for item in node.attribute if item.ref_attr_name]:
        node.attribute.remove(attribute)
        source = given.get(attribute.ref_attr_name)
        if source is not None:
            filled = node.attribute.add()
            filled.CopyFrom(source)
            filled.name = attribute.name


def _fold(model: onnx.ModelProto, told: Mapping[str, _Told]) -> None:
    """Make initialisers of what is known before any picture comes, in place.

    Nothing is stored that takes more bytes than what it was made of, small tensors apart: weights
    that a body widens to float32 stay in 16 bits, and no small file asks for much memory.
    """
    graph = model.graph
    inputs = {value.name for value in graph.input}
    stored = {item.name: item for item in graph.initializer if item.name not in inputs}
    outputs = {value.name for value in graph.output}
    taken = {*stored, *inputs, *(name for node in graph.node for name in node.output)}
    taken |= named_in_subgraphs(graph.node)
    shared: dict[str, str] = {}
    renamed: dict[str, str] = {}
    kept: list[NodeProto] = []
    for node in graph.node:
        rename_tensors([node], renamed)
        value = None if outputs.intersection(node.output) else _value(node, model, stored, told)
        if value is None:
            kept.append(node)
            continue
        (output,) = node.output
        wanted = _shared_name(value)
        name = shared.get(wanted) or (free_name(wanted, taken) if wanted else output)
        if name not in stored:
            value.name = name
            stored[name] = value
            graph.initializer.append(value)
        if wanted:
            shared[wanted] = renamed[output] = name
    copies = [_copy(node) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


class _Told(NamedTuple):
    """What is known of a tensor: sizes, None for those that only a picture tells, and bytes."""

    sizes: tuple[int | None, ...]
    bytes: int | None


def _told(model: onnx.ModelProto) -> dict[str, _Told]:
    """Every tensor whose rank can be told."""
    found = {}
    graph = inferred(model, strict=False)
    for value in (*graph.input, *graph.value_info):
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            continue
        sizes = tuple(
            int(dim.dim_value) if dim.HasField("dim_value") else None for dim in kind.shape.dim
        )
        known = [size for size in sizes if size is not None]
        whole = len(known) == len(sizes) and kind.elem_type in _PLAIN
        width = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize if whole else 0
        found[value.name] = _Told(sizes, width * math.prod(known) if whole else None)
    return found


def _value(
    node: NodeProto,
    model: onnx.ModelProto,
    stored: Mapping[str, TensorProto],
    told: Mapping[str, _Told],
) -> TensorProto | None:
    """What ``node`` makes of stored tensors; None where that is not known, or to be left alone."""
    if len(node.output) != 1 or node.domain not in DEFAULT_DOMAINS or subgraphs_of(node):
        return None
    if node.op_type == "Shape":
        return _shape(node, stored, told)
    if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
        value = TensorProto()
        value.CopyFrom(node.attribute[0].t)
        return value
    given = [stored[name] for name in node.input if name in stored]
    if len(given) < sum(map(bool, node.input)):
        return None
    types = {item.data_type for item in given}
    whole = node.op_type in _ARITHMETIC and types <= _WHOLE
    if not (whole or node.op_type in _MOVES) or not types <= _PLAIN:
        return None
    expected = told.get(node.output[0], _Told((), None))
    most = max([WEIGHT_BYTES, *map(tensor_bytes, given)])
    if expected.bytes is None or expected.bytes > most:
        return None
    value = _evaluate(node, model, given)
    # The reference clamps the bounds of a Slice as Python does, which is not always ONNX's way.
    return value if tuple(value.dims) == expected.sizes else None


def _shape(
    node: NodeProto, stored: Mapping[str, TensorProto], told: Mapping[str, _Told]
) -> TensorProto | None:
    source = node.input[0]
    sizes: tuple[int | None, ...]
    if source in stored:
        sizes = tuple(stored[source].dims)
    elif source in told:
        sizes = told[source].sizes
    else:
        return None
    ends = {item.name: int(item.i) for item in node.attribute}
    asked = sizes[ends.get("start", 0) : ends.get("end")]
    known = [size for size in asked if size is not None]
    return numpy_helper.from_array(np.array(known, np.int64)) if len(known) == len(asked) else None


def _evaluate(node: NodeProto, model: onnx.ModelProto, given: list[TensorProto]) -> TensorProto:
    """The output of one node of constants, by ONNX's own reference."""
    value = onnx.ValueInfoProto(name=node.output[0])
    graph = GraphProto(name=node.op_type, node=[node], output=[value], initializer=given)
    alone = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, graph=graph
    )
    try:
        (made,) = ReferenceEvaluator(alone).run(None, {})
    except Exception as error:
        # The reference raises what NumPy and its own code do; which, no page says.
        raise _refused(f"node {node.name!r} cannot be worked out: {error}") from error
    return numpy_helper.from_array(np.asarray(made))


def _shared_name(value: TensorProto) -> str:
    """A name for a short list of whole numbers, such as ``int64_0_2``; empty for other tensors."""
    count = math.prod(value.dims)
    if (
        value.data_type != TensorProto.INT64
        or len(value.dims) > 1
        or not 0 < count <= _MOST_IN_NAME
    ):
        return ""
    numbers = numpy_helper.to_array(value).reshape(-1)
    shown = "_".join(str(number).replace("-", "minus") for number in numbers)
    return f"{'int64' if value.dims else 'scalar'}_{shown}"


def _refused(why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-409",
        "the file cannot be written in standard operators alone",
        why=why,
        fix="export it again with this version of vim-deploy: vim-deploy export CHECKPOINT "
        "--standalone",
    )
