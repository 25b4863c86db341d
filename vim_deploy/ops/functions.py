"""The ops in ONNX messages: local functions that say what they mean, their nodes, their schema.

Before: a model with nodes in our domain. After: the same nodes, and for each of their ops one
function of that name in the file, so that any ONNX runtime can run it without a plugin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from string import Template
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, helper
from onnx.defs import OpSchema

from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import (
    Shapes,
    attribute_float,
    attribute_int,
    opset_version,
    read_by_subgraphs,
    rename_tensors,
    subgraphs_of,
)
from vim_deploy.ops import OPS, Op, contract
from vim_deploy.ops.log_step_scan import PADDED
from vim_deploy.ops.op import LOOP, VARYING, Facts, Kind
from vim_deploy.ops.selective_scan import SCAN_INPUT_DIRECTIONS, SCAN_OUTPUT_DIRECTIONS
from vim_deploy.places import parse

#: How a node and how a schema name the type of an attribute.
KIND_TYPES = {
    Kind.FLAG: (AttributeProto.INT, OpSchema.AttrType.INT),
    Kind.COLUMN: (AttributeProto.INT, OpSchema.AttrType.INT),
    Kind.COUNT: (AttributeProto.INT, OpSchema.AttrType.INT),
    Kind.NUMBER: (AttributeProto.FLOAT, OpSchema.AttrType.FLOAT),
    Kind.DIRECTIONS: (AttributeProto.INTS, OpSchema.AttrType.INTS),
}
#: Numbers of tokens that bodies without a loop are written for, ascending; none: with a loop.
Lengths = tuple[int, ...]
#: What whole numbers may be. Columns of a row, groups and bins are far above any model, and far
#: below what overflows a 32-bit number.
_RANGES = {
    Kind.FLAG: range(2),
    Kind.COLUMN: range((1 << 24) + 1),
    Kind.COUNT: range(1, (1 << 16) + 1),
}


def nodes_of(graph: GraphProto, op: Op | None = None) -> list[NodeProto]:
    """The nodes of one of our own ops, or of any, in graph order."""
    own = [node for node in graph.node if node.domain == contract.DOMAIN]
    return own if op is None else [node for node in own if node.op_type == op.name]


def call_of(name: str) -> tuple[str, str] | None:
    """The call in whose place a node of a standalone graph stands, and its op; None for others."""
    scope = parse(name).scope
    op, _, number = scope[-1].partition("_") if scope else ("", "", "")
    is_call = op in OPS and (not number or number.isdigit())
    return (name.rpartition("/")[0], op) if is_call else None


def inlined_calls(nodes: Iterable[NodeProto]) -> dict[tuple[str, str], list[NodeProto]]:
    """The nodes of a graph that stand in the places of calls, in order, by ``call_of``."""
    nodes = list(nodes)
    # A cast in front of a node of ours is named after it, too.
    there = {node.name for node in nodes if node.domain == contract.DOMAIN}
    found: dict[tuple[str, str], list[NodeProto]] = {}
    for node in nodes:
        call = call_of(node.name)
        if call is not None and call[0] not in there:
            found.setdefault(call, []).append(node)
    return found


@dataclass(frozen=True)
class AskedOps:
    """What a model asks of kernels for our ops.

    Attributes:
        names: op types, wherever their nodes stand.
        beyond: what the model says that kernels of this contract know nothing of, in words; they
            would compute something else than its functions. Empty where there is nothing.
    """

    names: frozenset[str] = frozenset()
    beyond: str = ""

    def require_known(self, kernels: str) -> None:
        """VIM-903 where ``kernels``, a library in words, would not compute what the model says."""
        if self.beyond:
            raise VimDeployError(
                "VIM-903",
                f"{kernels} does not fit",
                why=f"{self.beyond}, which its kernels do not know",
                fix="run the functions in the file (--ops function, or no plugin), or take a "
                "vim-deploy as late as the one that made it",
            )


def asked_ops(model: onnx.ModelProto, ops: Mapping[str, Op] = OPS) -> AskedOps:
    """Our ops in ``model``, in its functions and subgraphs, too, and what is asked of them."""
    nodes = [
        node
        for holder in (model.graph, *model.functions)
        for node in _all_of(holder.node)
        if node.domain == contract.DOMAIN
    ]
    return AskedOps(frozenset(node.op_type for node in nodes), next(_beyond(model, nodes, ops), ""))


def _all_of(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs within them."""
    for node in nodes:
        yield node
        for graph in subgraphs_of(node):
            yield from _all_of(graph.node)


def _beyond(
    model: onnx.ModelProto, nodes: Iterable[NodeProto], ops: Mapping[str, Op]
) -> Iterator[str]:
    """What the contract does not have: another version of the domain, an attribute.

    A default that a function states counts like an attribute of its nodes.
    """
    for holder in (model, *model.functions):
        for entry in holder.opset_import:
            if entry.domain == contract.DOMAIN and entry.version != contract.DOMAIN_VERSION:
                yield (
                    f"the file means version {entry.version} of the domain {contract.DOMAIN}, not "
                    f"{contract.DOMAIN_VERSION}"
                )
    functions = [item for item in model.functions if item.domain == contract.DOMAIN]
    said = [
        *((f"node {item.name!r}", item.op_type, item.attribute) for item in nodes),
        *((f"function {item.name!r}", item.name, item.attribute_proto) for item in functions),
    ]
    for what, name, attributes in said:
        for attribute in attributes:
            if name in ops and attribute.name not in ops[name].attributes:
                yield f"the file's {what} says {attribute.name!r}"


def plugin_attributes(op: Op) -> tuple[str, ...]:
    """Attributes of ``op`` that a plugin reads."""
    return tuple(name for name, kind in op.attributes.items() if kind != Kind.DIRECTIONS)


def loops(op: Op) -> bool:
    """Whether the body of ``op`` has a form with an ONNX Scan, and one without."""
    return any(part.when == LOOP for part in op.body)


def direction_attributes(reverse: bool) -> dict[str, list[int]]:
    """The lists that ``Scan`` wants, for a node of the given direction."""
    return {SCAN_INPUT_DIRECTIONS: [int(reverse)] * 4, SCAN_OUTPUT_DIRECTIONS: [int(reverse)]}


def attach_functions(
    model: onnx.ModelProto,
    unrolled_tokens: int | Collection[int] | None = None,
    ops: Mapping[str, Op] = OPS,
    *,
    plain: bool = False,
) -> None:
    """Give ``model`` a local function for each of our ops that it holds.

    Args:
        model: changed in place; functions of other names stay.
        unrolled_tokens: tokens that every scan of the model sees, or, where scans see different
            numbers of them, each of these (``scan_lengths``), for bodies without a loop; None
            for ONNX Scans, which take any number. Runtimes without Scan lack RoiAlign as well, and
            so such a file does without it; NonMaxSuppression is exchanged for a loop only.
        ops: by name; functions of these are replaced, or go when the model does not hold their op.
        plain: bodies without NonMaxSuppression and RoiAlign, where an op has one.

    Raises:
        VimDeployError: VIM-502 when nodes of one op differ in what a function is written for: what
            they compute, or, for an op whose body does not take them from each node, sizes and
            columns (a scan's direction may differ anyway).
    """
    shapes = known_shapes(model.graph)
    lengths = lengths_of(unrolled_tokens)
    opset = opset_version(model)
    functions = [
        body_of(op, shared_facts(op, nodes, shapes), lengths, opset, plain)
        for op in ops.values()
        if (nodes := nodes_of(model.graph, op))
    ]
    kept = [f for f in model.functions if f.domain != contract.DOMAIN or f.name not in ops]
    del model.functions[:]
    model.functions.extend([*kept, *functions])


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


def differ(functions: Iterable[FunctionProto]) -> bool:
    """Whether bodies are written for calls that differ: they pad tokens, or look columns up."""
    nodes = [node for function in functions for node in function.node]
    return any(name.endswith(PADDED) for node in nodes for name in node.output) or any(
        item.ref_attr_name.endswith("_off") for node in nodes for item in node.attribute
    )


def type_functions(model: onnx.ModelProto, ops: Mapping[str, Op] = OPS) -> None:
    """Let activations of our ops' local functions have any element type T, in place.

    Before: a body for float32 tensors. After: the same body between casts, T to float32 on the way
    in and back on the way out, as the contract has it: activations T, parameters and state float32.
    An op without activations keeps its body.
    """
    for function in model.functions:
        if function.domain == contract.DOMAIN and ops[function.name].has_activations:
            type_function(function, ops[function.name].fixed)


def type_function(function: FunctionProto, fixed: tuple[str, ...]) -> None:
    """The same for one function; inputs in ``fixed`` keep their element type."""
    read = {name for node in function.node for name in (*node.input, *read_by_subgraphs(node))}
    activations = [name for name in function.input if name not in fixed and name in read]
    (output,) = function.output
    renamed = {name: f"{name}_fp32" for name in (*activations, output)}
    body = list(function.node)
    rename_tensors(body, renamed)
    before = [
        helper.make_node("Cast", [name], [renamed[name]], to=TensorProto.FLOAT)
        for name in activations
    ]
    # Like the first activation: nodes of one file may differ in T, where a policy says so.
    after = helper.make_node("CastLike", [renamed[output], activations[0]], [output])
    nodes = [*before, *body, after]
    settle(nodes)
    del function.node[:]
    function.node.extend(nodes)


def op_flaws(node: NodeProto, ops: Mapping[str, Op] = OPS) -> Iterator[str]:
    """What keeps ``node`` from being what the contract says; nothing for nodes of other ops."""
    if node.domain != contract.DOMAIN or node.op_type not in ops:
        return
    op = ops[node.op_type]
    what = f"its node {node.name!r} of our op {op.name}"
    most, outputs = len(op.inputs), len(op.outputs)
    if not most - len(op.optional) <= len(node.input) <= most or len(node.output) != outputs:
        yield f"{what} has {len(node.input)} inputs and {len(node.output)} outputs"
    given = {attribute.name: attribute for attribute in node.attribute}
    for name in plugin_attributes(op):
        kind = op.attributes[name]
        if name not in given or given[name].type != KIND_TYPES[kind][0]:
            yield f"{what} does not say {name}"
        elif kind in _RANGES and given[name].i not in _RANGES[kind]:
            yield f"{what} says {name} = {given[name].i}"
