"""Recognise one direction of a mixer: from its scan back to the packed rows it reads.

The traced chain, channels-first inside the convolution::

    xz -> Slice -> Transpose -> Conv -> Transpose -> x * Sigmoid(x) = u
    u -> MatMul = x_dbl;  x_dbl -> Slice -> MatMul = dt;  VimSelectiveScan(u, dt, x_dbl, ...) = y
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from vim_deploy.onnx_graph import GraphIndex, attribute_int, attribute_ints
from vim_deploy.ops import SELECTIVE_SCAN

_CHANNELS_TO_TOKENS = [0, 2, 1]


class NoMatch(Exception):  # noqa: N818 - a signal between the passes' modules, not an error
    """The reason why a place is not what a pass rewrites."""


@dataclass(frozen=True)
class Sizes:
    """What both directions of a mixer must agree on.

    Attributes:
        x_off: first column of x in ``xz``.
        dt_off: first column of dt in ``x_dbl``.
        channels, width, states, rank: D, W, N and r.
        columns: of ``x_dbl``.
    """

    x_off: int
    dt_off: int
    channels: int
    width: int
    states: int
    rank: int
    columns: int


@dataclass(frozen=True)
class Branch:
    """One direction: names of its tensors and of its constants.

    Shapes: u, dt, y [B,L,D]; x_dbl [B,L,columns]; conv_weight [D,1,W], in the order in which the
    convolution slides over the tokens; conv_bias [D], or None; x_proj [D,columns]; dt_proj [r,D];
    a [N,D]; d_skip, dt_bias [D].
    """

    sizes: Sizes
    xz: str
    u: str
    x_dbl: str
    dt: str
    y: str
    conv_weight: str
    conv_bias: str | None
    x_proj: str
    dt_proj: str
    a: str
    d_skip: str
    dt_bias: str


def find_branch(index: GraphIndex, scan: NodeProto) -> tuple[Branch, list[NodeProto]]:
    """The branch that ends in ``scan``, and its nodes apart from ``scan``.

    Raises:
        NoMatch: the chain is another one.
    """
    inputs = dict(zip(SELECTIVE_SCAN.inputs, scan.input, strict=True))
    u, dt, x_dbl = inputs["u"], inputs["dt"], inputs["bc"]
    silu, activated = _silu(index, u)
    conv, xz, x_off, chain = _convolution(index, activated, attribute_int(scan, "reverse"))
    x_proj = _node(index, x_dbl, "MatMul", "x_proj")
    if x_proj.input[0] != u:
        raise NoMatch("x_proj does not read the convolved tokens")
    dt_proj = _node(index, dt, "MatMul", "dt_proj")
    columns = _node(index, dt_proj.input[0], "Slice", "the columns of dt")
    dt_off, dt_end = _column_range(index, columns)
    channels, _, width = _shape(index, conv.input[1], 3)
    states, _ = _shape(index, inputs["A"], 2)
    rank, _ = _shape(index, dt_proj.input[1], 2)
    _, width_of_rows = _shape(index, x_proj.input[1], 2)
    if columns.input[0] != x_dbl or dt_end - dt_off != rank:
        raise NoMatch("dt_proj does not read its columns of x_proj's rows")
    branch = Branch(
        sizes=Sizes(x_off, dt_off, channels, width, states, rank, width_of_rows),
        xz=xz,
        u=u,
        x_dbl=x_dbl,
        dt=dt,
        y=scan.output[0],
        conv_weight=conv.input[1],
        conv_bias=conv.input[2] if len(conv.input) > 2 and conv.input[2] else None,
        x_proj=x_proj.input[1],
        dt_proj=dt_proj.input[1],
        a=inputs["A"],
        d_skip=inputs["Dskip"],
        dt_bias=inputs["dt_bias"],
    )
    _check_shapes(index, branch)
    return branch, [*silu, conv, *chain, x_proj, dt_proj, columns]


def _node(index: GraphIndex, tensor: str, op_type: str, what: str) -> NodeProto:
    node = index.producer(tensor, op_type)
    if node is None:
        raise NoMatch(f"{what}: {tensor} does not come from a {op_type}")
    return node


def _silu(index: GraphIndex, u: str) -> tuple[list[NodeProto], str]:
    """The nodes of u = x * Sigmoid(x), and x."""
    product = _node(index, u, "Mul", "SiLU of the convolution")
    for x, gate in (product.input, reversed(product.input)):
        sigmoid = index.producer(gate, "Sigmoid")
        if sigmoid is not None and sigmoid.input[0] == x:
            return [product, sigmoid], x
    raise NoMatch(f"SiLU of the convolution: {u} is not x * Sigmoid(x)")


def _convolution(
    index: GraphIndex, tensor: str, reverse: int
) -> tuple[NodeProto, str, int, list[NodeProto]]:
    """The Conv behind ``tensor``, the packed rows it reads, their first column, nodes around it."""
    after = _transpose(index, tensor)
    conv = _node(index, after.input[0], "Conv", "convolution")
    before = _transpose(index, conv.input[0])
    columns = _node(index, before.input[0], "Slice", "the columns of x")
    start, end = _column_range(index, columns)
    channels, per_group, width = _shape(index, conv.input[1], 3)
    depthwise = per_group == 1 and attribute_int(conv, "group", 1) == channels
    # Opset 11's defaults, where the attribute is absent.
    steps = [attribute_ints(conv, name) or [1] for name in ("strides", "dilations")]
    padding = [0, width - 1] if reverse else [width - 1, 0]
    automatic = any(item.name == "auto_pad" and item.s != b"NOTSET" for item in conv.attribute)
    if automatic or not depthwise or steps != [[1], [1]] or attribute_ints(conv, "pads") != padding:
        raise NoMatch(f"{conv.name} is not the depthwise convolution of its direction")
    if end - start != channels:
        raise NoMatch(f"{conv.name} has {channels} channels, x has {end - start} columns")
    return conv, columns.input[0], start, [after, before, columns]


def _transpose(index: GraphIndex, tensor: str) -> NodeProto:
    node = _node(index, tensor, "Transpose", "convolution")
    if attribute_ints(node, "perm") != _CHANNELS_TO_TOKENS:
        raise NoMatch(f"{node.name} does not exchange channels and tokens")
    return node


def _column_range(index: GraphIndex, node: NodeProto) -> tuple[int, int]:
    """First column and the one after the last of a slice of the rows of a rank-3 tensor."""
    found = index.sliced(node)
    if found is None or found[2] not in (2, -1):
        raise NoMatch(f"{node.name} is not a range of columns")
    start, end, _ = found
    if start < 0 or end < start:
        raise NoMatch(f"{node.name} counts its columns from the end")
    return start, end


def _shape(index: GraphIndex, tensor: str, rank: int) -> tuple[int, ...]:
    item = index.initializers.get(tensor)
    if item is None:
        raise NoMatch(f"{tensor} is not a constant")
    if len(item.dims) != rank:
        raise NoMatch(f"{tensor} has {len(item.dims)} dimensions instead of {rank}")
    return tuple(item.dims)


def _check_shapes(index: GraphIndex, branch: Branch) -> None:
    sizes = branch.sizes
    row = (sizes.channels,)
    expected = {
        branch.a: (sizes.states, *row),
        branch.d_skip: row,
        branch.dt_bias: row,
        branch.x_proj: (*row, sizes.columns),
        branch.dt_proj: (sizes.rank, *row),
        branch.conv_weight: (*row, 1, sizes.width),
    }
    if branch.conv_bias is not None:
        expected[branch.conv_bias] = row
    for tensor, shape in expected.items():
        found = _shape(index, tensor, len(shape))
        if index.initializers[tensor].data_type != TensorProto.FLOAT:
            raise NoMatch(f"{tensor} is not of float32")
        if found != shape:
            raise NoMatch(f"{tensor} has shape {found} instead of {shape}")
