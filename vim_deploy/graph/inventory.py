"""What each block of an exported graph holds: operators, types, sizes, kernel launches.

Everything is read off the graph, with the batch size filled in and shapes inferred. Names say what
belongs to a block (``places``); of dense models neck and heads are counted by themselves, as
``neck`` and ``decode_head``; all other nodes count as ``outside``. In a standalone graph names also
say which nodes stand for a scan, but not how many kernels a runtime makes of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import NodeProto

from vim_deploy.errors import VimDeployError
from vim_deploy.graph.activations import TensorSizes, tensor_sizes
from vim_deploy.ops import BI_CAUSAL_CONV, BI_SELECTIVE_SCAN, SELECTIVE_SCAN, contract
from vim_deploy.ops.functions import inlined_calls
from vim_deploy.places import GROUPS, OUTSIDE, inlined_name, parse

#: Order of the groups that are no blocks.
_OTHERS = (*GROUPS, OUTSIDE)

#: No kernel of their own: they rename a tensor or work on shapes.
_FREE = frozenset({"Constant", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"})
#: Neighbours of these kinds are compiled into one kernel.
_POINTWISE = frozenset(
    {"Add", "Cast", "Div", "Erf", "Exp", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Sigmoid",
     "Softplus", "Sqrt", "Sub", "Tanh"}
)  # fmt: skip
#: Input of our ops whose rows hold x and z side by side.
_SHARED_ROWS = {
    SELECTIVE_SCAN.name: SELECTIVE_SCAN.inputs.index("z"),
    BI_CAUSAL_CONV.name: BI_CAUSAL_CONV.inputs.index("xz"),
    BI_SELECTIVE_SCAN.name: BI_SELECTIVE_SCAN.inputs.index("xz"),
}
#: A scan node's directions, and the position of its A, [.., N, D].
_SCAN_FACTS = {
    SELECTIVE_SCAN.name: (1, SELECTIVE_SCAN.inputs.index("A")),
    BI_SELECTIVE_SCAN.name: (2, BI_SELECTIVE_SCAN.inputs.index("A")),
}


_DECAY_RANK = 2
#: Of what our ops write: pictures, tokens, channels, behind the directions of the convolution.
_SEQUENCE_RANK = 3


@dataclass(frozen=True)
class Scan:
    """One scan: directions, tokens a picture, channels, states, bytes it moves.

    In a standalone graph bytes are None, for a runtime decides on them; so are states where a tool
    took away the tensor that shows them.
    """

    directions: int
    tokens: int
    channels: int
    states: int | None
    activation_bytes: int | None


@dataclass(frozen=True)
class BlockInventory:
    """One block, for the batch size that was asked for.

    Attributes:
        name: ``block_03``, one of ``places.GROUPS``, or ``outside``.
        ops: nodes by operator.
        launches: kernels expected of an engine with the plugin library: add and norm one, each
            chain of elementwise nodes one (a ReLU with the convolution before it), every other node
            one, reshapes and what computes shapes none. None with nodes of inlined ops, which the
            library cannot take.
        edge_types: inner tensors by element type.
        parameters, parameter_bytes: initialisers that its nodes read.
        activation_bytes: of all tensors that its nodes write.
        moved_bytes: activations its launches read and write, and its parameters, once each; what
            passes inside a launch does not count. None where launches are.
        scans: its scans, nodes or what stands for them.
    """

    name: str
    ops: dict[str, int]
    launches: int | None
    edge_types: dict[str, int]
    parameters: int
    parameter_bytes: int
    activation_bytes: int
    moved_bytes: int | None
    scans: tuple[Scan, ...]


def take_inventory(model: onnx.ModelProto, batch: int) -> tuple[BlockInventory, ...]:
    """The blocks of ``model`` in order, neck and heads of dense models, and last all else.

    Args:
        model: an exported graph; it is not changed.
        batch: pictures at once; a graph with a fixed batch keeps its own.

    Raises:
        VimDeployError: VIM-409 when the shapes of the graph cannot be worked out.
    """
    sizes = tensor_sizes(model, batch)
    groups: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        groups.setdefault(parse(node.name).group, []).append(node)
    names = sorted(name for name in groups if name not in _OTHERS)
    names += [name for name in _OTHERS if name in groups]
    return tuple(_block(name, groups[name], sizes) for name in names)


def _block(name: str, nodes: list[NodeProto], sizes: TensorSizes) -> BlockInventory:
    launches = _launches([node for node in nodes if not _is_shape(node, sizes)])
    whole = not inlined_calls(nodes)
    read = {tensor for node in nodes for tensor in node.input if tensor in sizes.parameters}
    written = [tensor for node in nodes for tensor in node.output if tensor]
    parameter_bytes = sum(sizes.bytes[tensor] for tensor in read)
    moved = sum(_moved(launch, sizes) for launch in launches)
    return BlockInventory(
        name=name,
        ops=dict(sorted(Counter(node.op_type for node in nodes).items())),
        launches=len(launches) if whole else None,
        edge_types=dict(sorted(Counter(sizes.types[tensor] for tensor in written).items())),
        parameters=sum(sizes.parameters[tensor] for tensor in read),
        parameter_bytes=parameter_bytes,
        activation_bytes=sum(sizes.bytes[tensor] for tensor in written),
        moved_bytes=moved + parameter_bytes if whole else None,
        scans=(
            *(
                _scan(node, sizes)
                for node in nodes
                if node.domain == contract.DOMAIN and node.op_type in _SCAN_FACTS
            ),
            *_inlined_scans(nodes, sizes),
        ),
    )


def _is_shape(node: NodeProto, sizes: TensorSizes) -> bool:
    """Whether ``node`` puts sizes together, which a runtime does when it plans, not on the GPU."""
    return node.op_type in ("Concat", "Gather", "Slice") and all(
        sizes.types[name] == "int64" for name in node.output if name
    )


def _launches(nodes: list[NodeProto]) -> list[list[NodeProto]]:
    """The nodes in groups that become one kernel each; ``BlockInventory.launches`` has the rule."""
    groups: dict[int, list[NodeProto]] = {}
    group_of: dict[str, int] = {}
    for number, node in enumerate(nodes):
        if node.op_type in _FREE and node.domain == "":
            # Transparent: what reads its output reads its input.
            group = group_of.get(node.input[0]) if node.input else None
            if group is not None:
                group_of.update(dict.fromkeys(node.output, group))
            continue
        joined = _joins(node, groups, group_of)
        group = number if joined is None else joined
        groups.setdefault(group, []).append(node)
        group_of.update(dict.fromkeys(node.output, group))
    return list(groups.values())


def _joins(
    node: NodeProto, groups: dict[int, list[NodeProto]], group_of: dict[str, int]
) -> int | None:
    """The group of an earlier node that ``node`` is compiled into."""
    norm = _norm_of(node)
    for group in [group_of[tensor] for tensor in node.input if tensor in group_of]:
        if node.op_type == "Relu" and groups[group][-1].op_type == "Conv":
            return group
        same_norm = norm is not None and _norm_of(groups[group][-1]) == norm
        takes_sum = norm is not None or node.op_type in _POINTWISE
        if same_norm or (takes_sum and _pointwise(groups[group])):
            return group
    return None


def _norm_of(node: NodeProto) -> tuple[int | None, str] | None:
    """Block and part of the norm that ``node`` is in."""
    at = parse(node.name)
    return (at.block, at.part) if at.part in ("norm", "norm_f") else None


def _pointwise(nodes: list[NodeProto]) -> bool:
    return all(node.op_type in _POINTWISE and node.domain == "" for node in nodes)


def _moved(launch: list[NodeProto], sizes: TensorSizes) -> int:
    """Bytes of activations that a launch reads and writes, each once."""
    inner = {id(node) for node in launch}
    made = {tensor for node in launch for tensor in node.output if tensor}
    reads = {
        tensor: _read_bytes(node, position, sizes)
        for node in launch
        for position, tensor in enumerate(node.input)
        if tensor in sizes.bytes and tensor not in made and tensor not in sizes.parameters
    }
    written = (
        sizes.bytes[tensor]
        for tensor in made
        if any(id(reader) not in inner for reader in sizes.readers.get(tensor, ()))
        or tensor in sizes.outputs
    )
    return sum(reads.values()) + sum(written)


def _read_bytes(node: NodeProto, position: int, sizes: TensorSizes) -> int:
    """Bytes of one input that ``node`` reads: our ops read D columns of the rows x and z share."""
    tensor = node.input[position]
    size = sizes.bytes[tensor]
    if node.domain == contract.DOMAIN and position == _SHARED_ROWS.get(node.op_type):
        row = sizes.shapes[tensor]
        if not row or not row[-1]:
            raise _misshapen(node)
        return size * _sequence(node, sizes)[-1] // row[-1]
    return size


def _scan(node: NodeProto, sizes: TensorSizes) -> Scan:
    directions, position = _SCAN_FACTS[node.op_type]
    decay = sizes.shapes.get(node.input[position], ())
    if len(decay) < _DECAY_RANK:
        raise _misshapen(node)
    *_, states, channels = decay
    tokens = _sequence(node, sizes)[1]
    return Scan(directions, tokens, channels, states, _moved([node], sizes))


def _inlined_scans(nodes: list[NodeProto], sizes: TensorSizes) -> Iterator[Scan]:
    """The scans that stand in the places of calls; the last sequence that one makes is its output.

    A tool may have changed the nodes: what they do not show is left out.
    """
    for (call, op), inlined in inlined_calls(nodes).items():
        made = [sizes.shapes.get(name, ()) for node in inlined for name in node.output]
        sequences = [shape for shape in made if len(shape) == _SEQUENCE_RANK]
        if op in _SCAN_FACTS and sequences:
            _, tokens, channels = sequences[-1]
            b_rows = sizes.shapes.get(inlined_name(call, "b_rows"))
            yield Scan(_SCAN_FACTS[op][0], tokens, channels, b_rows[-1] if b_rows else None, None)


def _sequence(node: NodeProto, sizes: TensorSizes) -> tuple[int, ...]:
    """Sizes [.., B, L, D] of what a node of ours writes, the last three."""
    shape = sizes.shapes.get(node.output[0], ())
    if len(shape) < _SEQUENCE_RANK:
        raise _misshapen(node)
    return shape[-_SEQUENCE_RANK:]


def _misshapen(node: NodeProto) -> VimDeployError:
    return VimDeployError(
        "VIM-409",
        "the graph has a scan of other shapes than the op's contract",
        why=f"node {node.name!r} of the op {node.op_type}",
        fix="export the file again with this version of vim-deploy",
    )
