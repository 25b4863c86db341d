"""Both dt_proj of a mixer become one batched MatMul on the packed rows.

Before: a slice of dt's columns and a MatMul, once a direction. After: dt2 [2,B,L,D] from one
product of the whole packed rows [2,B,L,K] with a weight [2,1,K,D] that is zero where a row holds
something else than dt. The wider product costs less than cutting the columns out would (a slice
is a copy); an infinite B or C would reach dt as NaN, but makes y infinite anyway.

In the low-rank form there is nothing to do: the scan op takes dt's weight itself.
"""

from __future__ import annotations

import numpy as np
import onnx

from vim_deploy.graph.passes.editing import GraphIndex, Rewriter, node_of, pick_directions
from vim_deploy.graph.passes.mixer_pattern import Mixer
from vim_deploy.graph.passes.report import Outcome, Plan
from vim_deploy.graph.passes.x_proj import packed_rows


def merge_dt_proj(model: onnx.ModelProto, plan: Plan) -> Outcome:
    """Rewrite dt_proj of every mixer of ``plan``."""
    if plan.low_rank:
        return Outcome(0)
    index, rewriter = GraphIndex(model.graph), Rewriter(model.graph)
    for mixer in plan.mixers:
        _merge(index, rewriter, mixer)
    rewriter.finish()
    return Outcome(len(plan.mixers), plan.refused)


def _merge(index: GraphIndex, rewriter: Rewriter, mixer: Mixer) -> None:
    rows, sizes = packed_rows(mixer), mixer.forward.sizes
    stacked = np.stack([index.value(branch.dt_proj) for branch in mixer.branches])
    weight = np.zeros((2, 1, rows.columns, sizes.channels), stacked.dtype)
    weight[:, 0, rows.dt_off : rows.dt_off + sizes.rank] = stacked
    name = rewriter.constant(f"{mixer.parameters}.dt_proj_pair.weight_packed", weight)
    product = node_of("MatMul", f"{mixer.place}/dt_proj/MatMul", [mixer.x_dbl2, name], mixer.dt2)
    outputs = [branch.dt for branch in mixer.branches]
    picks = pick_directions(rewriter, f"{mixer.place}/dt_proj", mixer.dt2, outputs)
    rewriter.replace(outputs, [product, *picks])
