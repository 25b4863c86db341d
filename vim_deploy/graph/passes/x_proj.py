"""Both x_proj of a mixer become one batched MatMul with the columns in the fused ops' order.

Before: rows dt | B | C, of any width, once a direction. After: one product [2,B,L,K] with rows
B | C | dt | padding, where K is a multiple of 8, so that every row starts on 16 bytes in fp16.
The padding is zero and no op reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from vim_deploy.graph.passes.editing import Array, GraphIndex, Rewriter, node_of, pick_directions
from vim_deploy.graph.passes.mixer_pattern import Mixer
from vim_deploy.graph.passes.report import Outcome, Plan

#: Columns to a multiple of which rows are padded: 16 bytes of fp16, a vector load of the kernels.
ROW_MULTIPLE = 8


@dataclass(frozen=True)
class PackedRows:
    """Where B, C and dt lie in the packed rows of a mixer, and how wide those are."""

    b_off: int
    c_off: int
    dt_off: int
    columns: int


def packed_rows(mixer: Mixer) -> PackedRows:
    """The layout for ``mixer``: B at 0, C at N, dt at 2N, rows padded to ``ROW_MULTIPLE``."""
    states, rank = mixer.forward.sizes.states, mixer.forward.sizes.rank
    used = 2 * states + rank
    return PackedRows(0, states, 2 * states, -(-used // ROW_MULTIPLE) * ROW_MULTIPLE)


def merge_x_proj(model: onnx.ModelProto, plan: Plan) -> Outcome:
    """Rewrite x_proj of every mixer of ``plan``."""
    index, rewriter = GraphIndex(model.graph), Rewriter(model.graph)
    for mixer in plan.mixers:
        _merge(index, rewriter, mixer)
    rewriter.finish()
    return Outcome(len(plan.mixers), plan.refused)


def _merge(index: GraphIndex, rewriter: Rewriter, mixer: Mixer) -> None:
    order = mixer.column_order
    weights = [index.value(branch.x_proj) for branch in mixer.branches]
    packed = np.stack([_packed(weight, order, mixer) for weight in weights])
    # [2,1,D,K]: the batch axis of u2 is broadcast.
    name = rewriter.constant(f"{mixer.parameters}.x_proj_pair.weight_packed", packed[:, None])
    product = node_of("MatMul", f"{mixer.place}/x_proj/MatMul", [mixer.u2, name], mixer.x_dbl2)
    # What follows still wants the traced order; the last pass makes these picks superfluous.
    outputs = [branch.x_dbl for branch in mixer.branches]
    place = f"{mixer.place}/x_proj"
    rows = [f"{place}/packed_{number}" for number in range(len(outputs))]
    back = rewriter.constant(f"{mixer.parameters}.x_proj_pair.order", np.argsort(order))
    picks = pick_directions(rewriter, place, mixer.x_dbl2, rows)
    picks += [
        node_of("Gather", rewriter.node_name(f"{place}/Order"), [row, back], output, axis=2)
        for row, output in zip(rows, outputs, strict=True)
    ]
    rewriter.replace(outputs, [product, *picks])


def _packed(weight: Array, order: list[int], mixer: Mixer) -> Array:
    """The columns of ``weight`` [D,columns] in ``order``, padded with zeros to [D,K]."""
    columns = packed_rows(mixer).columns
    padded = np.zeros((weight.shape[0], columns), weight.dtype)
    padded[:, : len(order)] = weight[:, order]
    return padded
