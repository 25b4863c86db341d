"""Both directional convolutions of a mixer become one ``VimBiCausalConv``.

Before: slice, transpose, Conv, transpose, SiLU, once a direction. After: one node that reads the
packed rows where in_proj wrote them, u2 [2,B,L,D], and a pick of each direction for what follows.
"""

from __future__ import annotations

import numpy as np
import onnx

from vim_deploy.graph.passes.branch_pattern import Branch
from vim_deploy.graph.passes.editing import Array, GraphIndex, Rewriter, node_of, pick_directions
from vim_deploy.graph.passes.mixer_pattern import Mixer
from vim_deploy.graph.passes.report import Outcome, Plan
from vim_deploy.ops import contract


def fuse_convolutions(model: onnx.ModelProto, plan: Plan) -> Outcome:
    """Rewrite the convolutions of every mixer of ``plan``."""
    index, rewriter = GraphIndex(model.graph), Rewriter(model.graph)
    for mixer in plan.mixers:
        _fuse(index, rewriter, mixer)
    rewriter.finish()
    return Outcome(len(plan.mixers), plan.refused)


def _fuse(index: GraphIndex, rewriter: Rewriter, mixer: Mixer) -> None:
    taps = [_taps(index, branch) for branch in mixer.branches]
    # A reversed kernel slides forward over the tokens; the contract counts from the newest token.
    taps[1] = taps[1][::-1]
    name = f"{mixer.place}/conv1d/{contract.BI_CAUSAL_CONV}"
    weight = rewriter.constant(f"{mixer.parameters}.conv1d_pair.w", np.stack(taps))
    biases = np.stack([_bias(index, branch) for branch in mixer.branches])
    bias = rewriter.constant(f"{mixer.parameters}.conv1d_pair.b", biases)
    fused = node_of(
        contract.BI_CAUSAL_CONV,
        name,
        [mixer.xz, weight, bias],
        mixer.u2,
        contract.DOMAIN,
        x_off=mixer.forward.sizes.x_off,
    )
    outputs = [branch.u for branch in mixer.branches]
    picks = pick_directions(rewriter, f"{mixer.place}/conv1d", mixer.u2, outputs)
    rewriter.replace(outputs, [fused, *picks])


def _taps(index: GraphIndex, branch: Branch) -> Array:
    """The kernel [W,D]."""
    taps: Array = index.value(branch.conv_weight)[:, 0, :].T
    return taps


def _bias(index: GraphIndex, branch: Branch) -> Array:
    if branch.conv_bias is None:
        return np.zeros(branch.sizes.channels, index.value(branch.conv_weight).dtype)
    return index.value(branch.conv_bias)
