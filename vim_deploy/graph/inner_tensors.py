"""Inner tensors of an exported graph by place, and a copy of the graph that gives them out.

Names say where a node is (``graph.names``); what a fused op holds for both directions at once is
split here, so that base and fused graphs are read alike.
"""

from __future__ import annotations

import re

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from vim_deploy.artifact.half_weights import element_types
from vim_deploy.artifact.marked_tensors import InnerTensor
from vim_deploy.onnx_graph import attribute_float, attribute_int
from vim_deploy.ops import contract
from vim_deploy.places import BEFORE_BLOCKS, BEHIND_BLOCKS, Place, place

_BLOCK = re.compile(r"block_(\d+)/(.*)")
_DIRECTIONS = ("fwd", "bwd")
#: Part of a block by the start of what follows its name; the last node of each is what counts.
_PARTS = {
    "norm/": ("norm", ""),
    "mixer/in_proj/": ("in_proj", ""),
    "mixer/out_proj/": ("out_proj", ""),
    **{
        f"mixer/{direction}/{name}/": (part, direction)
        for direction in _DIRECTIONS
        for part, name in (
            ("conv", "conv1d"),
            ("x_proj", "x_proj"),
            ("dt_proj", "dt_proj"),
            ("scan", "scan"),
        )
    },
}
#: Parts outside of the blocks, likewise.
_OUTSIDE = {
    "patch_embed/": place(BEFORE_BLOCKS, "patch_embed"),
    "norm_f/": place(BEHIND_BLOCKS, "norm_f"),
    "head/": place(BEHIND_BLOCKS, "head"),
}
#: Parts of dense models by the start of a node's name: necks, and convolutions of the heads.
_NECK = re.compile(r"(?:fpn|simfp_)(\d)/.*")
_DENSE_HEAD = re.compile(
    r"((?:decode|auxiliary)_head)/"
    r"(lateral_convs/\d+|psp_modules/\d+|bottleneck|fpn_convs/\d+|fpn_bottleneck|convs/\d+|conv_seg)/.*"
)
#: The first of these operators in a norm has the stream as its first input. (Squares and means may
#: belong to another block's norm: the layers of a pair in two-layer mode share them.)
_NORM_READERS = ("Mul", "LayerNormalization")
#: Parts of fused mixers that hold both directions in their leading axis.
_PAIRS = {"mixer/conv1d/": "conv", "mixer/x_proj/": "x_proj", "mixer/dt_proj/": "dt_proj"}
#: Axes of the fused scan's inputs that hold both directions: all but the last one, xz.
_PAIR_RANKS = dict(zip(contract.BI_SELECTIVE_SCAN_INPUTS[:-1], (4, 4, 4, 3, 2, 2), strict=True))


def with_inner_outputs(
    model: onnx.ModelProto, dt_rank: int
) -> tuple[onnx.ModelProto, dict[Place, InnerTensor]]:
    """A copy of ``model`` that also gives out its inner tensors, in their own types.

    A fused scan gives only the sum of its directions. The copy therefore holds it twice more, each
    time with the inputs of one direction set to zero: what is left is the other's output.

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
        named = _BLOCK.fullmatch(node.name)
        if _is_fused_scan(node) and named is not None:
            scale = attribute_float(node, "scale")
            for index, direction in enumerate(_DIRECTIONS):
                single = _single_direction(copy.graph, node, index, types)
                nodes += single
                tensor = InnerTensor(single[-1].output[0], factor=scale)
                found[place(int(named[1]), "scan", direction)] = tensor
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    types = element_types(copy)
    given = {value.name for value in copy.graph.output}
    for name in dict.fromkeys(tensor.name for tensor in found.values()):
        if name not in given:
            copy.graph.output.append(helper.make_tensor_value_info(name, types[name], None))
    return copy, dict(sorted(found.items()))


def inner_tensors(model: onnx.ModelProto, dt_rank: int) -> dict[Place, InnerTensor]:
    """The inner tensors of ``model`` that PyTorch has as well, in order of computation."""
    found: dict[Place, InnerTensor] = {}
    nodes = [node for node in model.graph.node if node.op_type != "Cast"]
    uncast = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    columns = {
        _block_of(node): _traced_columns(node, dt_rank) for node in nodes if _is_fused_scan(node)
    }
    for node in nodes:
        named = _BLOCK.fullmatch(node.name)
        # What a norm reads is the stream, what out_proj reads the sum of the directions.
        source = InnerTensor(uncast.get(node.input[0], node.input[0])) if node.input else None
        if named is None:
            _note_outside(found, node, source)
            continue
        block, rest = int(named[1]), named[2]
        if source and rest.startswith("norm/") and node.op_type in _NORM_READERS:
            stream = place(BEFORE_BLOCKS, "tokens") if block == 0 else place(block, "residual")
            found.setdefault(stream, source)
        elif source and rest.startswith("mixer/out_proj/"):
            found.setdefault(place(block, "mixed"), source)
        _note(found, node, block, rest, columns.get(block))
    return dict(sorted(found.items()))


def _is_fused_scan(node: NodeProto) -> bool:
    return node.domain == contract.DOMAIN and node.op_type == contract.BI_SELECTIVE_SCAN


def _block_of(node: NodeProto) -> int | None:
    named = _BLOCK.fullmatch(node.name)
    return int(named[1]) if named else None


def _note_outside(
    found: dict[Place, InnerTensor], node: NodeProto, source: InnerTensor | None
) -> None:
    for start, where in _OUTSIDE.items():
        if node.name.startswith(start):
            if where.part == "head" and source:
                found.setdefault(place(BEHIND_BLOCKS, "features"), source)
            found[where] = InnerTensor(node.output[0])
    dense = _dense_part(node.name)
    if dense is not None:
        found[place(BEHIND_BLOCKS, dense)] = InnerTensor(node.output[0])


def _dense_part(name: str) -> str | None:
    """The part of a dense model behind the blocks that a node belongs to."""
    neck, head = _NECK.fullmatch(name), _DENSE_HEAD.fullmatch(name)
    if neck is not None:
        return f"feature_{int(neck[1]) - 1}" if name.startswith("fpn") else f"p{neck[1]}"
    return None if head is None else f"{head[1]}.{head[2]}".replace("/", ".")


def _note(
    found: dict[Place, InnerTensor],
    node: NodeProto,
    block: int,
    rest: str,
    columns: tuple[int, ...] | None,
) -> None:
    """Note ``node`` under its part; a later node of the same part replaces an earlier one."""
    if re.fullmatch(r"mixer/\w+", rest) and place(block, "out_proj") in found:
        # Layer scale, behind the projection.
        found[place(block, "out_proj")] = InnerTensor(node.output[0])
    for start, (part, direction) in _PARTS.items():
        if rest.startswith(start):
            found[place(block, part, direction)] = InnerTensor(node.output[0])
    for start, part in _PAIRS.items():
        if rest.startswith(start) and columns is not None:
            for index, direction in enumerate(_DIRECTIONS):
                picked = columns if part == "x_proj" else None
                found[place(block, part, direction)] = InnerTensor(node.output[0], index, picked)


def _traced_columns(scan: NodeProto, dt_rank: int) -> tuple[int, ...]:
    """Columns of the packed rows in PyTorch's order: dt, B, C."""
    b_off, c_off, dt_off = (attribute_int(scan, name) for name in ("b_off", "c_off", "dt_off"))
    states = c_off - b_off
    starts = ((dt_off, dt_rank), (b_off, states), (c_off, states))
    return tuple(start + column for start, count in starts for column in range(count))


def _single_direction(
    graph: onnx.GraphProto, scan: NodeProto, index: int, types: dict[str, int]
) -> list[NodeProto]:
    """A copy of the fused ``scan`` for which everything of the other direction is zero."""
    name = f"{scan.name}_{_DIRECTIONS[index]}"
    copy = NodeProto()
    copy.CopyFrom(scan)
    copy.name = name
    copy.output[0] = f"{name}_output_0"
    constants = {tensor.name for tensor in graph.initializer}
    masks = []
    for position, (role, rank) in enumerate(_PAIR_RANKS.items()):
        source = scan.input[position]
        # In the low-rank form the op reads dt's weight instead of dt.
        rank -= role == "dt" and source in constants
        kept = np.zeros((2, *[1] * (rank - 1)), dtype=np.bool_)
        kept[index] = True
        zero = np.zeros((), dtype=helper.tensor_dtype_to_np_dtype(types[source]))
        for suffix, value in (("kept", kept), ("zero", zero)):
            graph.initializer.append(numpy_helper.from_array(value, f"{name}.{role}_{suffix}"))
        # Where, not a product: the other direction's NaN must not come through.
        inputs = [f"{name}.{role}_kept", source, f"{name}.{role}_zero"]
        copy.input[position] = f"{name}_{role}"
        masks.append(
            helper.make_node("Where", inputs, [copy.input[position]], name=f"{name}/{role}")
        )
    return [*masks, copy]
