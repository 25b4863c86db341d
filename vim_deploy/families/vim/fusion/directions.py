"""The fusions of a mixer: what PyTorch computes for each direction becomes one node for both.

Each rewrites one mixer and leaves a graph of the same meaning, in which nodes pick the directions
for what is not fused yet; the last one makes all picks superfluous.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from onnx import NodeProto

from vim_deploy.families.vim.fusion.branch_pattern import Branch
from vim_deploy.families.vim.fusion.mixer_pattern import Mixer
from vim_deploy.onnx_graph import Array, Rewriter, node_of
from vim_deploy.ops import BI_CAUSAL_CONV, BI_SELECTIVE_SCAN, contract

#: Columns to a multiple of which rows are padded: 16 bytes of fp16, a vector load of the kernels.
ROW_MULTIPLE = 8
Fusion = Callable[[Rewriter, Mixer], None]


def fusions(low_rank: bool) -> dict[str, Fusion | None]:
    """The fusions in order, by the names of their passes; None where there is nothing to do.

    Args:
        low_rank: the scan op takes dt's low-rank weight instead of the projected dt.
    """
    return {
        "bi_causal_conv": fuse_convolutions,
        "x_proj": merge_x_proj,
        "dt_proj": None if low_rank else merge_dt_proj,
        "bi_selective_scan": partial(fuse_scans, low_rank=low_rank),
    }


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


def fuse_convolutions(graph: Rewriter, mixer: Mixer) -> None:
    """Both convolutions become one ``VimBiCausalConv``.

    Before: slice, transpose, Conv, transpose, SiLU, once a direction. After: one node that reads
    the packed rows where in_proj wrote them, u2 [2,B,L,D], and a pick of each direction.
    """
    taps = [_taps(graph, branch) for branch in mixer.branches]
    # A reversed kernel slides forward over the tokens; the contract counts from the newest token.
    taps[1] = taps[1][::-1]
    weight = graph.add_constant(mixer.weight("conv", "w"), np.stack(taps))
    biases = np.stack([_bias(graph, branch) for branch in mixer.branches])
    fused = node_of(
        BI_CAUSAL_CONV.name,
        mixer.node("conv", BI_CAUSAL_CONV.name),
        [mixer.xz, weight, graph.add_constant(mixer.weight("conv", "b"), biases)],
        mixer.u2,
        contract.DOMAIN,
        x_off=mixer.forward.sizes.x_off,
    )
    outputs = [branch.u for branch in mixer.branches]
    graph.replace(outputs, [fused, *_picks(graph, mixer, "conv", mixer.u2, outputs)])


def merge_x_proj(graph: Rewriter, mixer: Mixer) -> None:
    """Both x_proj become one batched MatMul with the columns in the fused ops' order.

    Before: rows dt | B | C, of any width, once a direction. After: one product [2,B,L,K] with rows
    B | C | dt | padding, where K is a multiple of 8, so that every row starts on 16 bytes in fp16.
    The padding is zero and no op reads it.
    """
    order = mixer.column_order
    weights = np.stack([graph.value(branch.x_proj) for branch in mixer.branches])
    # [2,1,D,K]: the batch axis of u2 is broadcast.
    packed = np.zeros((*weights.shape[:2], packed_rows(mixer).columns), weights.dtype)[:, None]
    packed[:, 0, :, : len(order)] = weights[:, :, order]
    name = graph.add_constant(mixer.weight("x_proj", "weight_packed"), packed)
    product = node_of("MatMul", mixer.node("x_proj", "MatMul"), [mixer.u2, name], mixer.x_dbl2)
    # What follows still wants the traced order.
    outputs = [branch.x_dbl for branch in mixer.branches]
    rows = [mixer.node("x_proj", f"packed_{number}") for number in range(len(outputs))]
    back = graph.add_constant(mixer.weight("x_proj", "order"), np.argsort(order))
    picks = _picks(graph, mixer, "x_proj", mixer.x_dbl2, rows)
    for row, output in zip(rows, outputs, strict=True):
        place = graph.node_name(mixer.node("x_proj", "Order"))
        picks.append(node_of("Gather", place, [row, back], output, axis=2))
    graph.replace(outputs, [product, *picks])


def merge_dt_proj(graph: Rewriter, mixer: Mixer) -> None:
    """Both dt_proj become one batched MatMul on the packed rows.

    Before: a slice of dt's columns and a MatMul, once a direction. After: dt2 [2,B,L,D] from one
    product of the whole packed rows [2,B,L,K] with a weight [2,1,K,D] that is zero where a row
    holds something else than dt. The wider product costs less than cutting the columns out would (a
    slice is a copy); an infinite B or C would reach dt as NaN, but makes y infinite anyway.
    """
    rows, sizes = packed_rows(mixer), mixer.forward.sizes
    stacked = np.stack([graph.value(branch.dt_proj) for branch in mixer.branches])
    weight = np.zeros((2, 1, rows.columns, sizes.channels), stacked.dtype)
    weight[:, 0, rows.dt_off : rows.dt_off + sizes.rank] = stacked
    name = graph.add_constant(mixer.weight("dt_proj", "weight_packed"), weight)
    product = node_of("MatMul", mixer.node("dt_proj", "MatMul"), [mixer.x_dbl2, name], mixer.dt2)
    outputs = [branch.dt for branch in mixer.branches]
    graph.replace(outputs, [product, *_picks(graph, mixer, "dt_proj", mixer.dt2, outputs)])


def fuse_scans(graph: Rewriter, mixer: Mixer, low_rank: bool) -> None:
    """Both scans, their sum, its scale and the gate become one ``VimBiSelectiveScan``.

    Before: two ``VimSelectiveScan``, an Add and, where the model halves the sum, a Mul. After: one
    node that reads what the other fused nodes give.
    """

    def stacked(what: str, tensors: Sequence[str]) -> str:
        values = np.stack([graph.value(tensor) for tensor in tensors])
        return graph.add_constant(mixer.weight("scan", what), values)

    dt = mixer.dt2
    if low_rank:
        # The contract's weight is [2,D,r], as in the checkpoint; the traced one is transposed.
        weights = [graph.value(branch.dt_proj).T for branch in mixer.branches]
        dt = graph.add_constant(mixer.weight("dt_proj", "weight"), np.stack(weights))
    rows = packed_rows(mixer)
    fused = node_of(
        BI_SELECTIVE_SCAN.name,
        graph.node_name(mixer.node("scan", BI_SELECTIVE_SCAN.name)),
        [
            mixer.u2,
            dt,
            mixer.x_dbl2,
            stacked("A", [branch.a for branch in mixer.branches]),
            stacked("Dskip", [branch.d_skip for branch in mixer.branches]),
            stacked("dt_bias", [branch.dt_bias for branch in mixer.branches]),
            mixer.xz,
        ],
        mixer.output,
        contract.DOMAIN,
        delta_softplus=mixer.delta_softplus,
        b_off=rows.b_off,
        c_off=rows.c_off,
        dt_off=rows.dt_off,
        z_off=mixer.z_off,
        low_rank=int(low_rank),
        scale=mixer.scale,
    )
    graph.replace([mixer.output], [fused])


def _taps(graph: Rewriter, branch: Branch) -> Array:
    """The kernel [W,D]."""
    taps: Array = graph.value(branch.conv_weight)[:, 0, :].T
    return taps


def _bias(graph: Rewriter, branch: Branch) -> Array:
    if branch.conv_bias is None:
        return np.zeros(branch.sizes.channels, graph.value(branch.conv_weight).dtype)
    return graph.value(branch.conv_bias)


def _picks(
    graph: Rewriter, mixer: Mixer, part: str, stacked: str, outputs: Sequence[str]
) -> list[NodeProto]:
    """Nodes that give index 0, 1, ... of the leading axis of ``stacked`` as ``outputs``."""
    nodes = []
    for number, output in enumerate(outputs):
        which = np.array(number, np.int64)
        index = graph.add_constant(mixer.node(part, f"direction_{number}"), which)
        name = graph.node_name(mixer.node(part, "Direction"))
        nodes.append(node_of("Gather", name, [stacked, index], output, axis=0))
    return nodes
