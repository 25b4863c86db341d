"""The body of an op's local function: what the nodes of a file say, and the text for that.

A file has one function for an op. Where its nodes agree in their sizes and columns, these are
constants in the body; where they differ, a body that can takes them from each node (``VARYING``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from string import Template
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto

from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import Shapes, attribute_float, attribute_int, subgraphs_of
from vim_deploy.ops import contract
from vim_deploy.ops.op import VARYING, Facts, Kind, Op

#: Numbers of tokens that bodies without a loop are written for, ascending; none: with a loop.
Lengths = tuple[int, ...]


def lengths_of(tokens: int | Collection[int] | None) -> Lengths:
    """One or several numbers of tokens, each once; none for None."""
    if tokens is None:
        return ()
    return (tokens,) if isinstance(tokens, int) else tuple(sorted(set(tokens)))


def known_shapes(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of ``graph``, also of those stored in 16 bits behind a Cast."""
    shapes = {}
    for value in graph.input:
        # Where weights are handed in (``without_weights``).
        dims = value.type.tensor_type.shape.dim
        if dims and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(int(dim.dim_value) for dim in dims)
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return shapes


def shared_facts(op: Op, nodes: list[NodeProto], shapes: Shapes) -> Facts:
    """What all ``nodes`` say of their attributes and of the sizes of their initialisers.

    ``varying`` is 1 where they differ in sizes or columns and the body of ``op`` takes those from
    each node. What they differ in is None, also flags that each node has for itself. ``given`` is
    how many inputs they have at most.

    Raises:
        VimDeployError: VIM-502 when they differ in anything else.
    """
    told = {tuple(node_facts(op, node, shapes).items()) for node in nodes}
    forms: list[dict[str, int | float | None]] = [dict(form) for form in told]
    shared = forms[0]
    if len(forms) > 1:
        names = {name for form in forms for name in form}
        differing = sorted(n for n in names if len({form.get(n) for form in forms}) > 1)
        shared = forms[0] | dict.fromkeys(differing)
        meant = [n for n in differing if op.attributes.get(n, Kind.COLUMN) != Kind.COLUMN]
        if meant or not any(part.when == VARYING for part in op.body):
            raise VimDeployError(
                "VIM-502",
                f"the {op.name} nodes do not share one form",
                why=f"they differ in {', '.join(meant or differing)}; found {len(forms)} forms: "
                f"{sorted(map(str, forms))}",
                fix="report this model config",
            )
    flags: dict[str, int | None] = {}
    for name in (name for name in op.per_node if op.attributes[name] == Kind.FLAG):
        said = {attribute_int(node, name, 0) for node in nodes}
        flags[name] = said.pop() if len(said) == 1 else None
    given = max(len(node.input) for node in nodes)
    return {**shared, **flags, "varying": int(len(forms) > 1), "given": given}


def node_facts(op: Op, node: NodeProto, shapes: Shapes) -> dict[str, int | float]:
    """What one node says of the attributes that the body is written for, and of its sizes."""
    facts = {
        name: attribute_float(node, name) if kind == Kind.NUMBER else attribute_int(node, name)
        for name, kind in op.attributes.items()
        if name not in op.per_node
    }
    for name, source in zip(op.inputs, node.input, strict=False):
        facts.update(zip(op.sizes.get(name, ()), shapes.get(source, ()), strict=False))
    facts.pop("", None)
    return facts


def body_of(
    op: Op,
    shared: Facts,
    lengths: Lengths,
    opset: int,
    plain: bool = False,
    any_length: bool = False,
) -> FunctionProto:
    """The function of ``op`` for nodes with these facts, and for these numbers of tokens.

    ``any_length``: in the form for several lengths, also for one.
    """
    facts: dict[str, Any] = {
        **shared,
        "tokens": max(lengths, default=None),
        "any_length": int(any_length or len(lengths) > 1),
        "plain": int(op.is_plain(plain, bool(lengths))),
    }
    for start, size in op.blocks.items():
        if None not in (shared.get(start), shared.get(size)):
            facts[f"{start.removesuffix('_off')}_end"] = shared[start] + shared[size]
    if op.derived is not None:
        facts |= op.derived(shared)
    text = "\n".join(
        part.text if isinstance(part.text, str) else part.text(max(lengths, default=0))
        for part in op.body
        if all(facts[name] == value for name, value in part.when.items())
        and not any(facts[name] == value for name, value in part.unless.items())
    )
    function = onnx.parser.parse_function(
        f'<opset_import: ["" : {opset}], domain: "{contract.DOMAIN}"> {op.name} '
        f"<{', '.join(op.attributes)}> ({', '.join(op.inputs)}) => ({', '.join(op.outputs)}) "
        f"{{{Template(text).substitute(facts)}}}"
    )
    read = {name for node in function.node for name in node.input}
    spare = {*op.optional} - read
    while len(function.input) > facts["given"] and function.input[-1] in spare:
        # TensorRT's parser wants as many inputs of a function as its calls give.
        del function.input[-1]
    settle(function.node)
    return function


def settle(nodes: Iterable[NodeProto]) -> None:
    """Name each node after its output, and state constants as bytes, without empty fields.

    ONNX Runtime 1.18 to 1.21 give nodes that they make of nameless ones one and the same name, and
    then refuse the model. Names of tensors are unique, those inside of subgraphs among them.
    """
    for node in nodes:
        node.name = node.output[0]
        node.ClearField("domain")
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                attribute.t.CopyFrom(
                    onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(attribute.t))
                )
        for graph in subgraphs_of(node):
            settle(graph.node)
