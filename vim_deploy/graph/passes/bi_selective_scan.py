"""Both scans of a mixer, their sum, its scale and the gate become one ``VimBiSelectiveScan``.

Before: two ``VimSelectiveScan``, an Add and, where the model halves the sum, a Mul. After: one
node that reads what the other fused nodes give, so that nothing picks a direction any more.
"""

from __future__ import annotations

import numpy as np
import onnx

from vim_deploy.graph.passes.editing import GraphIndex, Rewriter, node_of
from vim_deploy.graph.passes.mixer_pattern import Mixer
from vim_deploy.graph.passes.report import Outcome, Plan
from vim_deploy.graph.passes.x_proj import packed_rows
from vim_deploy.ops import contract


def fuse_scans(model: onnx.ModelProto, plan: Plan) -> Outcome:
    """Rewrite the scans of every mixer of ``plan``."""
    index, rewriter = GraphIndex(model.graph), Rewriter(model.graph)
    for mixer in plan.mixers:
        _fuse(index, rewriter, mixer, plan.low_rank)
    rewriter.finish()
    return Outcome(len(plan.mixers), plan.refused)


def _fuse(index: GraphIndex, rewriter: Rewriter, mixer: Mixer, low_rank: bool) -> None:
    def stacked(role: str, *tensors: str) -> str:
        values = np.stack([index.value(tensor) for tensor in tensors])
        return rewriter.constant(f"{mixer.parameters}.{role}", values)

    forward, backward = mixer.branches
    dt = mixer.dt2
    if low_rank:
        # The contract's weight is [2,D,r], as in the checkpoint; the traced one is transposed.
        weights = [index.value(branch.dt_proj).T for branch in mixer.branches]
        dt = rewriter.constant(f"{mixer.parameters}.dt_proj_pair.weight", np.stack(weights))
    rows = packed_rows(mixer)
    name = f"{mixer.place}/scan/{contract.BI_SELECTIVE_SCAN}"
    fused = node_of(
        contract.BI_SELECTIVE_SCAN,
        rewriter.node_name(name),
        [
            mixer.u2,
            dt,
            mixer.x_dbl2,
            stacked("scan_pair.A", forward.a, backward.a),
            stacked("scan_pair.Dskip", forward.d_skip, backward.d_skip),
            stacked("scan_pair.dt_bias", forward.dt_bias, backward.dt_bias),
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
    rewriter.replace([mixer.output], [fused])
