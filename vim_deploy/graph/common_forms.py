"""The same values by operators that every runtime takes, where some refuse or misread a form.

Before: a graph of standard operators. After: the same values, to the bit, in these forms:

- A ``Slice`` that runs backwards is a ``Gather`` of the positions. tract 0.23.9 refuses such a
  Slice before a Reshape ("Downsample over Reshape").
- A window (``Conv``, ``MaxPool``) that fits once along an axis is given just what it reads, by a
  ``Slice``. IREE 3.13.0 drops such an axis and then counts its steps off the input instead of the
  window: a batch of any size reads beyond the window without a word, a fixed one does not compile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import NodeProto, helper

from vim_deploy.onnx_graph import DEFAULT_DOMAINS, Rewriter, attribute_ints, node_of

#: Sizes of each tensor, None for those that only a picture tells.
Sizes = Mapping[str, Sequence[int | None]]

#: Begins the names of the constants by which a Gather runs backwards, so that it can be counted.
BACKWARDS = "backwards_"
#: More positions than any sequence has: a small file asks for no large constant.
_MOST_POSITIONS = 1 << 16


def take_common_forms(rewriter: Rewriter, sizes: Sizes) -> None:
    """Exchange nodes of the main graph by forms that every runtime takes, as said above.

    Args:
        rewriter: of a graph of standard operators; the caller finishes it.
        sizes: of the graph's tensors. What they do not tell stays as it is.
    """
    orders: dict[range, str] = {}
    for node in rewriter.graph.node:
        if node.domain not in DEFAULT_DOMAINS:
            continue
        if node.op_type == "Slice":
            _turn(node, rewriter, sizes, orders)
        elif node.op_type in ("Conv", "MaxPool") and len(node.output) == 1:
            _cut(node, rewriter, sizes)


def _turn(node: NodeProto, rewriter: Rewriter, sizes: Sizes, orders: dict[range, str]) -> None:
    """A Gather in the place of a Slice of one axis that runs backwards."""
    found = [rewriter.integers(name) for name in node.input[1:]]
    if len(found) < 4 or any(value is None or len(value) != 1 for value in found):
        return
    start, end, axis, step = (value[0] for value in found if value)
    shape = sizes.get(node.input[0], ())
    size = shape[axis] if -len(shape) <= axis < len(shape) else None
    if step >= 0 or size is None:
        return
    # ONNX counts and clamps the bounds of a Slice as Python does, but for a start before the first
    # position, where Python takes nothing: that stays as it is.
    order = range(size)[start:end:step]
    if not 0 < len(order) <= _MOST_POSITIONS:
        return
    if order not in orders:
        wanted = f"{BACKWARDS}{len(order)}"
        orders[order] = rewriter.add_constant(wanted, np.array(order, np.int64))
    name = rewriter.node_name(_beside(node, "Gather"))
    gather = node_of("Gather", name, [node.input[0], orders[order]], node.output[0], axis=axis)
    rewriter.replace(node.output, [gather])


def _cut(node: NodeProto, rewriter: Rewriter, sizes: Sizes) -> None:
    """A Slice before a window that has room for one step along some axis and reads a part of it."""
    read = dict(_read_once(node, sizes.get(node.input[0], ())))
    if not read:
        return
    bounds = (("starts", [0] * len(read)), ("ends", read.values()), ("axes", read))
    name = rewriter.node_name(_beside(node, "Slice"))
    constants = [
        rewriter.add_constant(f"{name}/{what}", np.array([*values], np.int64))
        for what, values in bounds
    ]
    cut = node_of("Slice", name, [node.input[0], *constants])
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[0] = cut.output[0]
    rewriter.replace(node.output, [cut, copy])


def _read_once(node: NodeProto, shape: Sequence[int | None]) -> Iterator[tuple[int, int]]:
    """Axes along which the window fits once with something left over, and how far it reads."""
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    window = attribute_ints(node, "kernel_shape")
    plain = given.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    if window is None or not plain or given.get("ceil_mode"):
        return
    count = len(window)
    dilations = attribute_ints(node, "dilations") or [1] * count
    strides = attribute_ints(node, "strides") or [1] * count
    pads = attribute_ints(node, "pads") or [0] * (2 * count)
    if len(shape) != count + 2 or {len(dilations), len(strides), len(pads) // 2} != {count}:
        return
    for number, size in enumerate(shape[2:]):
        reach = dilations[number] * (window[number] - 1) + 1
        padded = pads[number] or pads[count + number]
        if size is not None and not padded and reach < size < reach + strides[number]:
            yield number + 2, reach


def _beside(node: NodeProto, operator: str) -> str:
    """A name for a node of the same module."""
    scope, slash, _ = node.name.rpartition("/")
    return f"{scope}{slash}{operator}"
