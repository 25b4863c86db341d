"""Changes of the fields of an ONNX file, whatever they mean."""

from __future__ import annotations

from random import Random
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message

from tests.fuzz.cases import Mutation
from tests.fuzz.mutate_bytes import HOSTILE_NUMBERS, HOSTILE_TEXT
from tests.fuzz.mutate_structure import on_json

_NAMES = [text for text in HOSTILE_TEXT if text != "\ud800"]


def _messages(message: Message) -> list[Message]:
    """A message and all below it."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if _repeated(message, field) else [value]:
                found += _messages(item)
    return found


def _repeated(message: Message, field: Any) -> bool:
    return hasattr(getattr(message, field.name), "extend")


def _other(value: Any, generator: Random) -> Any:
    if isinstance(value, str):
        return generator.choice([*_NAMES, "image", "logits", "w", "rows"])
    if isinstance(value, bytes):
        return generator.choice([name.encode() for name in _NAMES] + [b"", value[:-1], value * 2])
    if isinstance(value, float):
        return generator.choice([float("nan"), float("inf"), -1e38, 0.0])
    return generator.choice(HOSTILE_NUMBERS)


def _field(model: onnx.ModelProto, generator: Random) -> None:
    """One field that is set: dropped, repeated, emptied or of another value."""
    message = generator.choice([each for each in _messages(model) if each.ListFields()])
    field, value = generator.choice(message.ListFields())
    kind = generator.randrange(4)
    if kind == 0:
        message.ClearField(field.name)
    elif _repeated(message, field):
        items = list(value)
        place = generator.randrange(len(items))
        if kind == 1:
            value.extend([items[place]] * generator.choice((1, 300)))
        elif kind == 2 or field.message_type is not None:
            del value[place]
        else:
            value[place] = _other(items[place], generator)
    elif field.message_type is None:
        setattr(message, field.name, _other(value, generator))


def _unset(model: onnx.ModelProto, generator: Random) -> None:
    """A field set that was not, such as a oneof's other member or an unused list."""
    message = generator.choice(_messages(model))
    field = generator.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if field.message_type is not None:
        value.add() if _repeated(message, field) else value.SetInParent()
    elif _repeated(message, field):
        kinds = {"TYPE_STRING": "x", "TYPE_BYTES": b"x", "TYPE_FLOAT": 1.0, "TYPE_DOUBLE": 1.0}
        names = {getattr(field, key): item for key, item in kinds.items()}
        value.append(names.get(field.type, 1))
    else:
        setattr(message, field.name, _other(value, generator))


def _dimension(model: onnx.ModelProto, generator: Random) -> None:
    """A size of a tensor or a declared shape that cannot be."""
    tensors = [each for each in _messages(model) if isinstance(each, onnx.TensorProto)]
    sizes = [each for each in _messages(model) if isinstance(each, onnx.TensorShapeProto.Dimension)]
    if tensors and generator.random() < 0.5:
        dims = generator.choice(tensors).dims
        dims.append(generator.choice(HOSTILE_NUMBERS))
    elif sizes:
        size = generator.choice(sizes)
        if generator.random() < 0.5:
            size.dim_value = generator.choice(HOSTILE_NUMBERS)
        else:
            size.dim_param = generator.choice(_NAMES)


def _outside(model: onnx.ModelProto, generator: Random) -> None:
    """Weights said to be in another file."""
    tensors = [each for each in _messages(model) if isinstance(each, onnx.TensorProto)]
    if tensors:
        tensor = generator.choice(tensors)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key in ("location", "offset", "length"):
            entry = tensor.external_data.add()
            entry.key = key
            names = [*_NAMES, "picture.png", "model.onnx", "/etc/hostname", "."]
            numbers = [str(number) for number in HOSTILE_NUMBERS] + ["x", "9" * 5000, "1e3"]
            entry.value = generator.choice(names if key == "location" else numbers)


def _cycle(model: onnx.ModelProto, generator: Random) -> None:
    """Nodes that read what comes after them, or a function that calls itself."""
    nodes = list(model.graph.node)
    if not nodes:
        return
    if generator.random() < 0.5:
        first, second = generator.choice(nodes), generator.choice(nodes)
        if first.input and second.output:
            first.input[generator.randrange(len(first.input))] = second.output[0]
        return
    function = model.functions.add(name="Self", domain="own", input=["x"], output=["y"])
    function.opset_import.add(domain="own", version=1)
    function.node.add(op_type="Self", domain="own", input=["x"], output=["y"])
    model.opset_import.add(domain="own", version=1)
    node = generator.choice(nodes)
    node.op_type, node.domain = "Self", "own"


def _deep(model: onnx.ModelProto, generator: Random) -> None:
    """Graphs in attributes of nodes, further down than a reader may follow."""
    graph = onnx.GraphProto(name="inner")
    for _ in range(generator.choice((3, 30, 90))):
        outer = onnx.GraphProto(name="outer")
        node = outer.node.add(op_type="If", input=["image"], output=["z"])
        attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        attribute.g.CopyFrom(graph)
        graph = outer
    node = model.graph.node.add(op_type="If", input=["image"], output=["deep"])
    node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(graph)


def _names(model: onnx.ModelProto, generator: Random) -> None:
    """A tensor of a node is another one, none, or one that nothing writes."""
    node = generator.choice([each for each in model.graph.node if each.input or each.output])
    names = generator.choice([each for each in (node.input, node.output) if each])
    others = [name for each in model.graph.node for name in (*each.input, *each.output)]
    names[generator.randrange(len(names))] = generator.choice(["", "nowhere", *others])


def _attributes(model: onnx.ModelProto, generator: Random) -> None:
    """An attribute of a node is gone, or of another type or value."""
    nodes = [each for each in _messages(model) if isinstance(each, onnx.NodeProto)]
    ours = [each for each in nodes if each.domain and each.attribute]
    node = generator.choice(ours if ours and generator.random() < 0.5 else nodes)
    if node.attribute:
        place = generator.randrange(len(node.attribute))
        name = node.attribute[place].name
        del node.attribute[place]
        values = (0, -1, 1.5, "x", b"", [1], [1 << 40], [0.5], ["y"])
        if generator.random() < 0.7:
            made = onnx.helper.make_attribute(name, generator.choice(values))
            node.attribute.insert(place, made)


def _operator(model: onnx.ModelProto, generator: Random) -> None:
    """A node does something else, comes elsewhere, or is a block's by its name."""
    nodes = model.graph.node
    node, other = generator.choice(nodes), generator.choice(nodes)
    kind = generator.randrange(3)
    if kind == 0:
        node.op_type, node.domain = other.op_type, other.domain
    elif kind == 1:
        node.name = generator.choice([other.name, other.name + "/x", "layers.99.mixer.in_proj", ""])
    else:
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        nodes.remove(node)
        nodes.insert(generator.randrange(len(nodes) + 1), kept)


def _metadata(model: onnx.ModelProto, generator: Random) -> None:
    """The tree of our own entry."""
    for entry in model.metadata_props:
        if entry.key == "vim_deploy":
            made = generator.choice(on_json()).change(entry.value.encode(), generator)
            entry.value = made.decode()


_CHANGES = (_field, _metadata, _unset, _dimension, _outside, _cycle, _metadata, _deep, _field)


_GRAPH_CHANGES = (_names, _attributes, _operator)


def _on(change: Any) -> Any:
    def mutator(data: bytes, generator: Random) -> bytes:
        try:
            model = onnx.load_from_string(data)
            change(model, generator)
            return model.SerializeToString(deterministic=True)
        except (DecodeError, ValueError, TypeError, AttributeError, OverflowError, IndexError):
            return data  # an earlier change has made it something else, or protobuf refuses

    return mutator


def on_onnx(files: str = "*") -> tuple[Mutation, ...]:
    """Every change of a protobuf's fields, on these files."""
    return tuple(Mutation(_on(change), files) for change in _CHANGES)


def on_graph(files: str = "*") -> tuple[Mutation, ...]:
    """Changes of what the nodes of a graph say, each of which leaves a sound message."""
    return tuple(Mutation(_on(change), files) for change in _GRAPH_CHANGES)
