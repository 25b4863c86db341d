"""Inner tensors of an exported graph by place, and a copy of the graph that gives them out.

Names say where a node is (``places``); what a fused op holds for both directions at once is
split here, so that base and fused graphs are read alike, and standalone ones as those they are of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from vim_deploy.artifact.marked_tensors import InnerTensor
from vim_deploy.graph.quantization.smoothing import FOLDED
from vim_deploy.onnx_graph import (
    GraphIndex,
    attribute_float,
    attribute_int,
    element_types,
    node_of,
)
from vim_deploy.ops import BI_SELECTIVE_SCAN, contract
from vim_deploy.ops.functions import inlined_calls
from vim_deploy.places import (
    BEHIND_BLOCKS,
    DIRECTED,
    DIRECTIONS,
    RPN_LEVELS,
    NodeName,
    Place,
    inlined_name,
    parse,
    place,
    stream_of,
)

#: The first of these operators in a norm has the stream as its first input. (Squares and means may
#: belong to another block's norm: the layers of a pair in two-layer mode share them.) Files of
#: version 0.1.0 begin with Mul, those since divide by the root.
_NORM_READERS = ("Div", "Mul", "LayerNormalization")
#: Axes of the fused scan's inputs that hold both directions: all but the last one, xz.
_PAIR_RANKS = dict(zip(BI_SELECTIVE_SCAN.inputs[:-1], (4, 4, 4, 3, 2, 2), strict=True))
#: Scope of what chooses a detector's proposals, and what the last layers of its heads give.
_PROPOSALS = ("proposal_generator",)
_WHAT = {
    "objectness_logits": "logits",
    "anchor_deltas": "deltas",
    "cls_score": "logits",
    "bbox_pred": "deltas",
}
_NUMBER = re.compile(r"_([0-9]{1,6})$")


def with_inner_outputs(
    model: onnx.ModelProto, dt_rank: int
) -> tuple[onnx.ModelProto, dict[Place, InnerTensor]]:
    """A copy of ``model`` that also gives out its inner tensors, in their own types.

    A fused scan gives only the sum of its directions. The copy therefore holds it twice more, each
    time with the inputs of one direction set to zero: what is left is the other's output. Where it
    is inlined, each direction is there before the gate, and the copy holds its product with that.

    Args:
        model: an exported graph.
        dt_rank: of the model; columns of dt in x_proj's rows.

    Returns:
        The copy, and how to read each place off its outputs.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    found = inner_tensors(copy, dt_rank)
    types = element_types(copy)
    nodes: list[NodeProto] = []
    for node in copy.graph.node:
        nodes.append(node)
        block = parse(node.name).block
        if _is_fused_scan(node) and block is not None:
            scale = attribute_float(node, "scale")
            for index, direction in enumerate(DIRECTIONS):
                single = _single_direction(copy.graph, node, index, types)
                nodes += single
                tensor = InnerTensor(single[-1].output[0], factor=scale)
                found[place(block, "scan", direction)] = tensor
    for at, product in _gated(nodes):
        nodes.append(product)
        found[at] = InnerTensor(product.output[0])
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    types = element_types(copy)
    given = {value.name for value in copy.graph.output}
    for name in dict.fromkeys(tensor.name for tensor in found.values()):
        if name not in given:
            copy.graph.output.append(helper.make_tensor_value_info(name, types[name], None))
    return copy, dict(sorted(found.items()))


def _gated(nodes: list[NodeProto]) -> list[tuple[Place, NodeProto]]:
    """One direction of an inlined fused scan times the gate, as PyTorch has it, and where it is."""
    found = []
    for (call, op), inner in inlined_calls(nodes).items():
        block, made = parse(call).block, {name for node in inner for name in node.output}
        for direction in DIRECTIONS:
            factors = [inlined_name(call, name) for name in (f"y_{direction}", "gate_silu")]
            if op == BI_SELECTIVE_SCAN.name and block is not None and made.issuperset(factors):
                product = node_of("Mul", f"{call}_{direction}", factors)
                found.append((place(block, "scan", direction), product))
    return found


def inner_tensors(model: onnx.ModelProto, dt_rank: int) -> dict[Place, InnerTensor]:
    """The inner tensors of ``model`` that PyTorch has as well, in order of computation."""
    found: dict[Place, InnerTensor] = {}
    stored = {tensor.name for tensor in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.output and node.op_type != "Cast" and not stored.issuperset(node.input[:1] or "-")
    ]
    uncast = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    columns = {
        **_inlined_columns(model.graph, dt_rank),
        **{
            parse(node.name).block: _traced_columns(node, dt_rank)
            for node in nodes
            if _is_fused_scan(node)
        },
    }
    for node in nodes:
        at, output = parse(node.name), InnerTensor(node.output[0])
        # What a norm reads is the stream, what out_proj reads the sum of the directions.
        source = InnerTensor(uncast.get(node.input[0], node.input[0])) if node.input else None
        if at.block is None:
            if at.part == "head" and source:
                found.setdefault(place(BEHIND_BLOCKS, "features"), source)
        elif source and at.part == "norm" and node.op_type in _NORM_READERS:
            found.setdefault(stream_of(at.block), source)
        elif source and at.part == "out_proj":
            found.setdefault(place(at.block, "mixed"), source)
        elif at.part == "mixed" and place(at.block, "out_proj") in found:
            # Layer scale, behind the projection.
            found[place(at.block, "out_proj")] = output
        # A later node of the same part replaces an earlier one.
        if at.part in DIRECTED and not at.direction:
            found.update(_both(at.block, at.part, output.name, columns))
        elif at.part not in ("", "residual", "mixed"):
            found[at.place] = output
        elif part := _region_part(at, node):
            found[place(BEHIND_BLOCKS, part)] = output
    found.update(_detections(model.graph))
    # Norms that smoothing was folded into give other numbers than PyTorch's.
    smoothed = {node.output[0] for node in nodes if any(FOLDED in name for name in node.input)}
    return {at: item for at, item in sorted(found.items()) if item.name not in smoothed}


def _region_part(at: NodeName, node: NodeProto) -> str:
    """The part of a detector's heads that ``node`` is the last of, or empty.

    The RPN's head runs once a level, finest first, and what is called alike has a number. What
    chooses the proposals ends in a Where that leaves zeros in the rows without one.
    """
    if at.scope == _PROPOSALS:
        return "proposals" if node.op_type == "Where" else ""
    what = _WHAT.get(at.scope[-1] if at.scope else "", "")
    if what and at.scope[:-1] == (*_PROPOSALS, "rpn_head"):
        number = _NUMBER.search(at.operator)
        level = int(number[1]) if number else 0
        return f"rpn.{RPN_LEVELS[level]}.{what}" if level < len(RPN_LEVELS) else ""
    if what and at.scope[:2] == ("roi_heads", "box_predictor"):
        stage = at.scope[2] if at.scope[2].isdecimal() else "0"
        return f"stage.{stage}.{what}"
    return ""


def _detections(graph: onnx.GraphProto) -> Iterator[tuple[Place, InnerTensor]]:
    """Outputs of a detector that rows are told apart by, and masks."""
    given = {value.name for value in graph.output}
    if {"boxes", "classes", "count"} <= given:
        for name in ("boxes", "classes", "masks"):
            if name in given:
                yield place(BEHIND_BLOCKS, name), InnerTensor(name)


def _is_fused_scan(node: NodeProto) -> bool:
    return node.domain == contract.DOMAIN and node.op_type == BI_SELECTIVE_SCAN.name


def _both(
    block: int | None, part: str, tensor: str, columns: dict[int | None, tuple[int, ...]]
) -> Iterator[tuple[Place, InnerTensor]]:
    """The parts of both directions that a fused mixer holds in one tensor's leading axis."""
    if block is None or block not in columns or part == "scan":
        return
    for index, direction in enumerate(DIRECTIONS):
        picked = columns[block] if part == "x_proj" else None
        yield place(block, part, direction), InnerTensor(tensor, index, picked)


def _traced_columns(scan: NodeProto, dt_rank: int) -> tuple[int, ...]:
    """Columns of the packed rows in PyTorch's order: dt, B, C."""
    b_off, c_off, dt_off = (attribute_int(scan, name) for name in ("b_off", "c_off", "dt_off"))
    return _in_order(b_off, c_off, dt_off, dt_rank)


def _in_order(b_off: int, c_off: int, dt_off: int, dt_rank: int) -> tuple[int, ...]:
    states = c_off - b_off
    starts = ((dt_off, dt_rank), (b_off, states), (c_off, states))
    return tuple(start + column for start, count in starts for column in range(count))


def _inlined_columns(graph: onnx.GraphProto, dt_rank: int) -> dict[int | None, tuple[int, ...]]:
    """What ``_traced_columns`` says, by block, read off the slices of inlined scans.

    A scan that does not compute dt has no slice of its columns; they lie behind those of C.
    """
    index = GraphIndex(graph)
    found = {}
    for (call, op), nodes in inlined_calls(graph.node).items():
        cuts = [node for node in nodes if node.op_type == "Slice"]
        ends = {parse(node.name).operator: index.sliced(node) for node in cuts}
        b, c = ends.get("b_rows"), ends.get("c_rows")
        if op == BI_SELECTIVE_SCAN.name and b and c:
            dt = ends.get("dt_rows")
            dt_off = dt[0] if dt else c[1]
            found[parse(call).block] = _in_order(b[0], c[0], dt_off, dt_rank)
    return found


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Stored tensors by the names that nodes read, those behind Casts among them."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _single_direction(
    graph: onnx.GraphProto, scan: NodeProto, index: int, types: dict[str, int]
) -> list[NodeProto]:
    """A copy of the fused ``scan`` for which everything of the other direction is zero."""
    name = f"{scan.name}_{DIRECTIONS[index]}"
    copy = NodeProto()
    copy.CopyFrom(scan)
    copy.name = name
    copy.output[0] = f"{name}_output_0"
    constants = _constants(graph)
    masks = []
    for position, (role, rank) in enumerate(_PAIR_RANKS.items()):
        source = scan.input[position]
        # In the low-rank form the op reads dt's weight instead of dt.
        rank -= role == "dt" and source in constants
        kept = np.zeros((2, *[1] * (rank - 1)), dtype=np.bool_)
        kept[index] = True
        zero = np.zeros((), dtype=helper.tensor_dtype_to_np_dtype(types[source]))
        copy.input[position] = f"{name}_{role}"
        if source in constants:
            # Stays one: loops of OpenVINO's reach no further than to constants outside.
            value = np.where(
                kept, numpy_helper.to_array(constants[source]).astype(zero.dtype), zero
            )
            graph.initializer.append(numpy_helper.from_array(value, copy.input[position]))
            continue
        for suffix, value in (("kept", kept), ("zero", zero)):
            graph.initializer.append(numpy_helper.from_array(value, f"{name}.{role}_{suffix}"))
        # Where, not a product: the other direction's NaN must not come through.
        inputs = [f"{name}.{role}_kept", source, f"{name}.{role}_zero"]
        masks.append(
            helper.make_node("Where", inputs, [copy.input[position]], name=f"{name}/{role}")
        )
    return [*masks, copy]
