"""What a parsed ONNX model has to be, so that later code may walk it.

Types are known, sizes are sizes, weights have the bytes their shapes need, functions do not call
themselves, nodes of our ops say what the contract asks for, and the graph follows ONNX's rules.
Weights may lie in files beside the model: onnx opens what the model names, so it is made sure
before that each name is a regular file of the model's own folder, reached through no link, and that
it holds what the tensors' shapes need; nothing is read that is somebody else's, and no small file
asks for much memory.
"""

from __future__ import annotations

import graphlib
import math
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, defs, helper
from onnx.external_data_helper import uses_external_data

from vim_deploy.onnx_graph import DEFAULT_DOMAINS, without_weights
from vim_deploy.ops.functions import op_flaws
from vim_deploy.ranges import MOST_ELEMENTS, SIZE

#: Graphs within graphs; an exported scan body is one, and no runtime takes many.
_MAX_NESTING = 16
#: Vim-Base in its unrolled form has 30,000 nodes.
_MAX_NODES = 1_000_000
_MAX_OPSET = 1000
#: NumPy's limit; a product of very many sizes takes for ever.
_MAX_AXES = 64
#: Stands for the domain of operators that are ONNX's by name only.
_FOREIGN = "foreign"
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
#: Keys of ONNX's IR specification, and ``basepath``, which onnx adds itself.
_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})
#: More digits than any file has bytes; Python takes no more than 4300.
_MOST_DIGITS = 18
#: Tensors may share a piece of a file, as tied weights do; a file that is read often is a bomb.
_MOST_SHARED = 4


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


def flaws(model: onnx.ModelProto) -> Iterator[str]:
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
    yield from _misplaced(tensors_of(model))
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
        yield from op_flaws(node)


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


def broken_rule(model: onnx.ModelProto) -> str | None:
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
    calls = {key: _calls(item.node) for key, item in bodies.items()}
    order = graphlib.TopologicalSorter(
        {key: [name for name in called if name in bodies] for key, called in calls.items()}
    )
    # Of each function: the nodes it stands for, once all it calls are known.
    stands: dict[tuple[str, str], int] = {}
    try:
        for key in order.static_order():
            stands[key] = sum(stands.get(name, 1) * count for name, count in calls[key].items())
            if stands[key] > _MAX_NODES:
                yield f"its function {key[1]!r} stands for more than {_MAX_NODES} nodes"
                return
    except graphlib.CycleError as error:
        yield f"its function {error.args[1][0][1]!r} calls itself"
        return
    total = sum(stands.get(name, 1) * count for name, count in _calls(model.graph.node).items())
    if total > _MAX_NODES:
        yield f"with its functions it stands for more than {_MAX_NODES} nodes"


def _calls(nodes: Iterable[NodeProto]) -> Counter[tuple[str, str]]:
    """How often nodes, and those within them, ask for each operator."""
    return Counter((node.domain, node.op_type) for node in _within(nodes))


def names_of(tensors: Iterable[TensorProto]) -> list[str]:
    """The files that hold weights, as the model names them: relative to its folder."""
    outside = [tensor for tensor in tensors if uses_external_data(tensor)]
    return sorted({_entries(tensor).get("location", "") for tensor in outside})


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _misplaced(tensors: Iterable[TensorProto]) -> Iterator[str]:
    """What is wrong with the names, a sentence each; no file is looked at."""
    for tensor in tensors:
        if not uses_external_data(tensor):
            continue
        entries = _entries(tensor)
        location = entries.get("location", "")
        place = PurePosixPath(location)
        if (
            not place.parts
            or place.is_absolute()
            or ".." in place.parts
            or set("\\:\0") & set(location)
        ):
            yield f"its tensor {tensor.name!r} lies outside the model's folder: {location!r}"
        if unknown := sorted(entries.keys() - _KEYS):
            yield f"its tensor {tensor.name!r} says {unknown[0]!r} of the file it lies in"
        for key in ("offset", "length"):
            text = entries.get(key, "0")
            if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
                yield f"its tensor {tensor.name!r} has the {key} {text[:40]!r}"


def absent(tensors: Iterable[TensorProto], folder: Path) -> Iterator[str]:
    """What is wrong with the files, a sentence each; nothing of them is read.

    Args:
        tensors: of the model, their names without fault (``flaws``).
        folder: of the model.
    """
    sizes: dict[str, int] = {}
    wanted = 0
    for tensor in tensors:
        if not uses_external_data(tensor):
            continue
        entries = _entries(tensor)
        name = entries["location"]
        if name not in sizes:
            try:
                sizes[name] = _size(folder, name)
            except OSError as error:
                yield f"its weights in {name!r}: {error.strerror or error}"
                return
            except ValueError as error:
                yield f"its weights in {name!r}: {error}"
                return
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length") or max(sizes[name] - offset, 0))
        if length != _raw_bytes(tensor) or offset + length > sizes[name]:
            yield (
                f"the {sizes[name]} bytes in {name!r} do not hold the tensor {tensor.name!r}: "
                f"{length} from {offset}, and its shape needs {_raw_bytes(tensor)}"
            )
        wanted += length
    if wanted > _MOST_SHARED * sum(sizes.values()):
        yield f"its tensors ask for {wanted} bytes of files that have {sum(sizes.values())}"


def _size(folder: Path, name: str) -> int:
    """Bytes of the regular file ``name``; ValueError for anything else, and for links."""
    place = folder
    mode = 0
    for part in PurePosixPath(name).parts:
        place /= part
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise ValueError("it is a link")
    if not stat.S_ISREG(mode):
        raise ValueError("it is not a regular file")
    return place.stat().st_size
