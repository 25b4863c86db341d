"""The one door through which an ONNX file of anybody's comes in.

protobuf takes nearly any bytes for a message, and onnx reads what it is told to beside the file.
Here it is made sure that what comes in is a graph that later code may walk: types are known, sizes
are sizes, weights have the bytes their shapes need, functions do not call themselves, external
data lie in the model's folder, nodes of our ops say what the contract asks for, and the graph
follows ONNX's rules. Whether it makes sense is for the runtimes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, defs, helper
from onnx.external_data_helper import uses_external_data

from vim_deploy.artifact import external_data, wire
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file
from vim_deploy.onnx_graph import DEFAULT_DOMAINS, without_weights
from vim_deploy.ops import own_nodes as own_ops
from vim_deploy.ranges import MOST_ELEMENTS, SIZE
from vim_deploy.text import storable
from vim_deploy.untrusted import read_bytes

#: Graphs within graphs; an exported scan body is one, and no runtime takes many.
_MAX_NESTING = 16
#: Vim-Base in its unrolled form has 30,000 nodes.
_MAX_NODES = 1_000_000
_MAX_OPSET = 1000
#: NumPy's limit; a product of very many sizes takes for ever.
_MAX_AXES = 64
#: protobuf's limit of one message.
MAX_FILE_BYTES = 2**31 - 1
#: Stands for the domain of operators that are ONNX's by name only.
_FOREIGN = "foreign"
#: What onnx and protobuf raise for damaged files and for external data that are not as described.
_UNREADABLE = (
    DecodeError, OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError,
    RecursionError, OverflowError, onnx.checker.ValidationError,
)  # fmt: skip
#: Field of a tensor that holds its numbers when they are not raw, and numbers for one element.
_FIELDS: dict[int, tuple[str, int]] = {
    TensorProto.FLOAT: ("float_data", 1),
    TensorProto.COMPLEX64: ("float_data", 2),
    TensorProto.DOUBLE: ("double_data", 1),
    TensorProto.COMPLEX128: ("double_data", 2),
    TensorProto.INT64: ("int64_data", 1),
    TensorProto.UINT32: ("uint64_data", 1),
    TensorProto.UINT64: ("uint64_data", 1),
    TensorProto.STRING: ("string_data", 1),
}
_ATTRIBUTE_FIELDS: dict[int, str] = {
    AttributeProto.FLOAT: "f", AttributeProto.INT: "i", AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t", AttributeProto.GRAPH: "g", AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints", AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors", AttributeProto.GRAPHS: "graphs",
}  # fmt: skip


def unreadable(path: Path, why: str) -> VimDeployError:
    """VIM-409 for ``path``."""
    return VimDeployError(
        "VIM-409",
        f"{path} is not a readable ONNX model",
        why=why,
        fix=f"export it again: vim-deploy export CHECKPOINT -o {path}",
    )


class OnnxFile(NamedTuple):
    """A model in memory, and the names of the files beside it that its weights came from."""

    model: onnx.ModelProto
    beside: tuple[str, ...]


def read_onnx(path: Path, *, outside: bool = True) -> OnnxFile:
    """Parse an ONNX file.

    Args:
        path: of the file.
        outside: read weights that lie beside it, too.

    Raises:
        VimDeployError: VIM-401 when missing, VIM-409 when empty, truncated, not ONNX, or not as
            this module's docstring says.
    """
    require_file(path, "ONNX model")
    data = read_bytes(path, lambda why: unreadable(path, why), max_bytes=MAX_FILE_BYTES)
    beside: tuple[str, ...] = ()
    try:
        wire.require_modest(data, onnx.ModelProto.DESCRIPTOR)
        model = onnx.ModelProto()
        model.ParseFromString(data)
        del data
        flaw = next(_flaws(model), None)
        # Once they are read, the model does not name the files any more.
        beside = () if flaw else tuple(external_data.names_of(tensors_of(model)))
        if beside and outside:
            flaw = _unsayable(path) or next(
                external_data.absent(tensors_of(model), path.parent, _raw_bytes), None
            )
            if flaw is None:
                onnx.load_external_data_for_model(model, str(path.parent))
        flaw = _broken_rule(model) if flaw is None and outside else flaw
    except _UNREADABLE as error:
        raise unreadable(path, f"{type(error).__name__}: {error}") from error
    if flaw is not None:
        raise unreadable(path, flaw)
    return OnnxFile(model, beside)


def read_model(path: Path, *, outside: bool = True) -> onnx.ModelProto:
    """The model of ``read_onnx``."""
    return read_onnx(path, outside=outside).model


def _unsayable(path: Path) -> str | None:
    """Why weights beside ``path`` cannot be found by runtimes; None when they can.

    A runtime gets the bytes of a model whose path is no text, and then looks for its weights in the
    folder the user works in.
    """
    if storable(str(path)) == str(path):
        return None
    return "its weights lie beside it, and runtimes find them only by a path in UTF-8: rename it"


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: weights, constants, and those of graphs and functions within."""
    for graph in _graphs(model):
        yield from graph.initializer
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _graphs(model: onnx.ModelProto) -> Iterator[GraphProto]:
    yield model.graph
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from _graphs_of(attribute)


def _graphs_of(attribute: AttributeProto) -> list[GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _nodes(model: onnx.ModelProto) -> Iterator[NodeProto]:
    """Every node, those within graphs of attributes and functions included."""
    yield from _within(model.graph.node)
    for function in model.functions:
        yield from _within(function.node)


def _within(first: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes and those of the graphs in their attributes, at any depth up to the limit."""
    waiting: list[tuple[Iterable[NodeProto], int]] = [(first, 0)]
    while waiting:
        nodes, depth = waiting.pop()
        if depth > _MAX_NESTING:
            raise ValueError(f"graphs lie more than {_MAX_NESTING} deep within each other")
        for node in nodes:
            yield node
            for attribute in node.attribute:
                waiting += [(graph.node, depth + 1) for graph in _graphs_of(attribute)]


def _flaws(model: onnx.ModelProto) -> Iterator[str]:
    """What is wrong with a model, a sentence each; the weights beside it not yet read."""
    # protobuf parses an empty file, and many text files, as a message without content.
    if not model.graph.node or not model.graph.output:
        yield "it parses, but holds no nodes or no outputs"
    versions = [entry for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS]
    if len(versions) != 1 or not 1 <= versions[0].version <= _MAX_OPSET:
        yield "it does not say which version of ONNX's operators it means"
    for place, values in (("input", model.graph.input), ("output", model.graph.output)):
        if not _are_own([value.name for value in values]):
            yield f"its {place}s have no names of their own"
        for value in values:
            yield from _value_flaws(place, value)
    initializers = [tensor.name for tensor in model.graph.initializer]
    if not _are_own(initializers):
        yield "its weights have no names of their own"
    weights = set(initializers)
    for value in model.graph.input:
        if value.name not in weights and not value.type.tensor_type.shape.dim:
            yield f"its input {value.name!r} has no sizes, not even a batch"
    yield from _node_flaws(model)
    for tensor in tensors_of(model):
        yield from _tensor_flaws(tensor)
    yield from external_data.misplaced(tensors_of(model))
    yield from _function_flaws(model)


def _value_flaws(place: str, value: onnx.ValueInfoProto) -> Iterator[str]:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not _is_known(kind.elem_type):
        yield f"its {place} {value.name!r} is not a tensor of a known type"
        return
    if len(kind.shape.dim) > _MAX_AXES:
        yield f"its {place} {value.name!r} has {len(kind.shape.dim)} axes"
        return
    sizes = [dim.dim_value for dim in kind.shape.dim if dim.HasField("dim_value")]
    if any(not 1 <= size <= SIZE.high for size in sizes) or math.prod(sizes) > MOST_ELEMENTS:
        yield f"its {place} {value.name!r} has the sizes {sizes[:8]}"


def _node_flaws(model: onnx.ModelProto) -> Iterator[str]:
    for count, node in enumerate(_nodes(model)):
        if count == _MAX_NODES:
            yield f"it has more than {_MAX_NODES} nodes"
            return
        if not node.op_type:
            yield f"its node {node.name!r} has no operator"
        if not _are_own([attribute.name for attribute in node.attribute]):
            yield f"its node {node.name!r} has an attribute twice"
        for attribute in node.attribute:
            field = _ATTRIBUTE_FIELDS.get(attribute.type)
            refers = bool(attribute.ref_attr_name)
            if not refers and (field is None or not _is_set(attribute, field)):
                yield f"attribute {attribute.name!r} of its node {node.name!r} has no such value"
        if not node.output:
            yield f"its node {node.name!r} writes nothing"
        yield from own_ops.flaws(node)


def _are_own(names: list[str]) -> bool:
    """Whether names are not empty, and each there once."""
    return len(set(names)) == len(names) and all(names)


def _is_set(attribute: AttributeProto, field: str) -> bool:
    """Whether the field that the attribute's type names is there; lists may be empty."""
    # A number of zero and an empty text may be left out by writers, too.
    return field not in ("t", "g") or attribute.HasField(field)


def _is_known(element: int) -> bool:
    try:
        helper.tensor_dtype_to_np_dtype(element)
    except (KeyError, ValueError, TypeError):
        return False
    return True


def _tensor_flaws(tensor: TensorProto) -> Iterator[str]:
    what = f"its tensor {tensor.name!r}"
    if tensor.HasField("segment"):
        yield f"{what} is a part of another"
    if not _is_known(tensor.data_type):
        yield f"{what} is of no known type"
        return
    if len(tensor.dims) > _MAX_AXES:
        yield f"{what} has {len(tensor.dims)} axes"
        return
    if any(not 0 <= dim <= SIZE.high for dim in tensor.dims):
        yield f"{what} has the sizes {list(tensor.dims)[:8]}"
        return
    if math.prod(tensor.dims) > MOST_ELEMENTS:
        yield f"{what} has the sizes {list(tensor.dims)[:8]}"
    elif not uses_external_data(tensor) and _held(tensor) != _needed(tensor):
        yield f"{what} holds {_held(tensor)} bytes or numbers, its shape needs {_needed(tensor)}"


def _needed(tensor: TensorProto) -> int:
    """Bytes of raw data, or numbers in the field of its type, for the tensor's shape."""
    elements = math.prod(map(int, tensor.dims))
    if tensor.HasField("raw_data"):
        return _raw_bytes(tensor)
    field, count = _field(tensor)
    if field == "int32_data" and _bits(tensor.data_type) < 8:
        # Two of four bits, or four of two bits, share a number.
        return math.ceil(elements * _bits(tensor.data_type) / 8)
    return elements * count


def _held(tensor: TensorProto) -> int:
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    return len(getattr(tensor, _field(tensor)[0]))


def _field(tensor: TensorProto) -> tuple[str, int]:
    return _FIELDS.get(int(tensor.data_type), ("int32_data", 1))


def _bits(element: int) -> int:
    name = TensorProto.DataType.Name(element)
    if name in ("INT4", "UINT4", "FLOAT4E2M1"):
        return 4
    if name in ("INT2", "UINT2"):
        return 2
    return 8 * int(helper.tensor_dtype_to_np_dtype(element).itemsize)


def _raw_bytes(tensor: TensorProto) -> int:
    """Bytes of the tensor's elements, one behind the other."""
    return math.ceil(math.prod(map(int, tensor.dims)) * _bits(tensor.data_type) / 8)


def _broken_rule(model: onnx.ModelProto) -> str | None:
    """The first of ONNX's rules that a model breaks, found by onnx's own checker."""
    checked = without_weights(model)
    checked.graph.name = checked.graph.name or "graph"
    # A later version of the format is for the runtimes to take or to refuse.
    checked.ir_version = min(checked.ir_version, onnx.IR_VERSION)
    for value in (*checked.graph.input, *checked.graph.output):
        # Runtimes work out shapes that are not declared.
        value.type.tensor_type.shape.SetInParent()
    # TensorRT's plugins are found by operators of ONNX's own domain that ONNX does not know.
    foreign = [
        node for node in _nodes(checked)
        if node.domain in DEFAULT_DOMAINS and not defs.has(node.op_type)
    ]  # fmt: skip
    for node in foreign:
        node.domain = _FOREIGN
    if foreign:
        for holder in (checked, *checked.functions):
            holder.opset_import.append(helper.make_opsetid(_FOREIGN, 1))
    try:
        onnx.checker.check_model(checked)
    except onnx.checker.ValidationError as error:
        return str(error).strip().partition("\n")[0]
    return None


def _function_flaws(model: onnx.ModelProto) -> Iterator[str]:
    """Functions that call themselves, over others as well, and what all calls together stand for.

    Runtimes put the bodies in the places of the calls.
    """
    bodies = {(item.domain, item.name): item for item in model.functions}
    if len(bodies) != len(model.functions):
        yield "two of its functions have one name"
        return
    # Of each function: the nodes it stands for, once all it calls are known.
    stands: dict[tuple[str, str], int] = {}
    waiting = {key: _calls(item.node) for key, item in bodies.items()}
    callers: dict[tuple[str, str], list[tuple[str, str]]] = {}
    missing = {}
    for key, called in waiting.items():
        inner = [name for name in called if name in bodies]
        missing[key] = len(inner)
        for name in inner:
            callers.setdefault(name, []).append(key)
    ready = [key for key, count in missing.items() if count == 0]
    while ready:
        key = ready.pop()
        stands[key] = sum(stands.get(name, 1) * count for name, count in waiting[key].items())
        if stands[key] > _MAX_NODES:
            yield f"its function {key[1]!r} stands for more than {_MAX_NODES} nodes"
            return
        for caller in callers.get(key, ()):
            missing[caller] -= 1
            if missing[caller] == 0:
                ready.append(caller)
    if len(stands) < len(bodies):
        yield f"its function {min(set(bodies) - set(stands))[1]!r} calls itself"
        return
    total = sum(stands.get(name, 1) * count for name, count in _calls(model.graph.node).items())
    if total > _MAX_NODES:
        yield f"with its functions it stands for more than {_MAX_NODES} nodes"


def _calls(nodes: Iterable[NodeProto]) -> Counter[tuple[str, str]]:
    """How often nodes, and those within them, ask for each operator."""
    return Counter((node.domain, node.op_type) for node in _within(nodes))
