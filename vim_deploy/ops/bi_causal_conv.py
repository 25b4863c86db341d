"""``VimBiCausalConv``: both directions' depthwise convolutions over the tokens, and their SiLU.

Inputs: xz T[B,L,Xc] with x at columns [x_off, x_off + D), w f[2,W,D], b f[2,D]; output: u2
T[2,B,L,D]. With x taken as 0 outside the sequence::

    u2[0, l] = silu(b[0] + sum_k w[0, k] * x[l - (W - 1) + k])     (causal)
    u2[1, l] = silu(b[1] + sum_k w[1, k] * x[l + (W - 1) - k])     (anti-causal)
"""

from __future__ import annotations

import numpy as np

from vim_deploy.ops.op import Array, Kind, Op, Part, columns
from vim_deploy.ops.selective_scan import silu

#: Two depthwise convolutions on channels-first tokens, then SiLU on both at once. Nodes that read
#: constants only, which a runtime folds, reorder the kernels from the contract's layout. Sums of
#: shifted tokens would need no transposes, but twice the nodes: ONNX Runtime then loads a model
#: more slowly, and TensorRT-RTX builds it more slowly. The contract counts taps towards the token
#: itself, which is from the right in the anti-causal kernel.
_BODY = """
    x_channels_first = Transpose <perm = [0, 2, 1]> (x)
    w_channels_first = Transpose <perm = [0, 2, 1]> (w)
    axis_0 = Constant <value = int64[1] {0}> ()
    axis_2 = Constant <value = int64[1] {2}> ()
    kernels = Unsqueeze (w_channels_first, axis_2)
    kernel_fwd_index = Constant <value = int64 {0}> ()
    kernel_fwd = Gather <axis = 0> (kernels, kernel_fwd_index)
    kernel_newest_last_index = Constant <value = int64 {1}> ()
    kernel_newest_last = Gather <axis = 0> (kernels, kernel_newest_last_index)
    newest_first = Constant <value = int64[$width] {$taps_from_right}> ()
    kernel_bwd = Gather <axis = 2> (kernel_newest_last, newest_first)
    bias_fwd_index = Constant <value = int64 {0}> ()
    bias_fwd = Gather <axis = 0> (b, bias_fwd_index)
    bias_bwd_index = Constant <value = int64 {1}> ()
    bias_bwd = Gather <axis = 0> (b, bias_bwd_index)
    convolved_fwd = Conv <group = $channels, kernel_shape = [$width], pads = [$before, 0]>
        (x_channels_first, kernel_fwd, bias_fwd)
    row_fwd = Unsqueeze (convolved_fwd, axis_0)
    convolved_bwd = Conv <group = $channels, kernel_shape = [$width], pads = [0, $before]>
        (x_channels_first, kernel_bwd, bias_bwd)
    row_bwd = Unsqueeze (convolved_bwd, axis_0)
    rows = Concat <axis = 0> (row_fwd, row_bwd)
    convolved = Transpose <perm = [0, 1, 3, 2]> (rows)
    u2_sigmoid = Sigmoid (convolved)
    u2 = Mul (convolved, u2_sigmoid)"""


def bi_causal_conv(xz: Array, w: Array, bias: Array, *, x_off: int = 0) -> Array:
    """The op in float64, u2 [2,B,L,D]; shapes as above."""
    width, channels = w.shape[1:]
    x = xz[..., x_off : x_off + channels]
    length = x.shape[1]
    sums = [np.broadcast_to(bias[i], x.shape).copy() for i in range(2)]
    for tap in range(width):
        shift = width - 1 - tap
        if shift < length:
            sums[0][:, shift:] += w[0, tap] * x[:, : length - shift]
            sums[1][:, : length - shift] += w[1, tap] * x[:, shift:]
    return np.stack([silu(total) for total in sums])


BI_CAUSAL_CONV = Op(
    name="VimBiCausalConv",
    inputs=("xz", "w", "b"),
    outputs=("u2",),
    attributes={"x_off": Kind.COLUMN},
    body=(Part(columns("xz", "x", "x", axis=2) + _BODY),),
    reference=bi_causal_conv,
    fp32=("w", "b"),
    sizes={"w": ("", "width", "channels")},
    blocks={"x_off": "channels"},
    derived=lambda facts: {
        "before": facts["width"] - 1,
        "taps_from_right": ", ".join(map(str, reversed(range(facts["width"])))),
    },
    kernel_sizes=("batch", "length", "channels", "width", "xz_columns"),
)
