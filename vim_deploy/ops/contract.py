"""The contract of the custom ops, shared by the exporter and the plugin library.

``plugins/include/vim_plugins/contract.h`` states the same facts for C++. Meaning of
``VimSelectiveScan`` for one channel d, with fp32 state h[N] that starts at 0::

    delta  = softplus(dt + dt_bias)
    h_n    = exp(delta * A[n, d]) * h_n + delta * B_n * u
    y      = sum_n C_n * h_n + Dskip * u          (times silu(z) when has_z = 1)

with l running from 0 to L-1, or from L-1 to 0 when ``reverse`` = 1, on tensors kept in natural
token order. Source of the recurrence: Mamba, arXiv 2312.00752, algorithm 2.
"""

from __future__ import annotations

from typing import Final

DOMAIN: Final = "vim_deploy"
DOMAIN_VERSION: Final = 1
#: Plugin version and namespace under which TensorRT finds the op.
PLUGIN_VERSION: Final = "1"
PLUGIN_NAMESPACE: Final = ""

#: Grows whenever the meaning, the inputs or the attributes of an op change.
CONTRACT_VERSION: Final = 1

SELECTIVE_SCAN: Final = "VimSelectiveScan"
#: Inputs of ``VimSelectiveScan`` in order. T is fp32, fp16 or bf16; f is fp32.
#: u T[B,L,D], dt T[B,L,D], A f[N,D], bc T[B,L,K], Dskip f[D], dt_bias f[D], z T[B,L,Zc].
SELECTIVE_SCAN_INPUTS: Final = ("u", "dt", "A", "bc", "Dskip", "dt_bias", "z")
#: Output: y T[B,L,D].
SELECTIVE_SCAN_OUTPUTS: Final = ("y",)
#: Integer attributes; all are present on every node.
SELECTIVE_SCAN_ATTRIBUTES: Final = (
    "reverse",
    "delta_softplus",
    "b_off",
    "c_off",
    "z_off",
    "has_z",
)
#: INTS attributes for the local function only: ONNX cannot turn the INT ``reverse`` into the lists
#: of directions that Scan wants, so the node carries those lists as well. Plugins ignore them.
SCAN_INPUT_DIRECTIONS: Final = "scan_input_directions"
SCAN_OUTPUT_DIRECTIONS: Final = "scan_output_directions"

BI_CAUSAL_CONV: Final = "VimBiCausalConv"
#: Inputs of ``VimBiCausalConv``: xz T[B,L,Xc] with x at columns [x_off, x_off + D), w f[2,W,D],
#: b f[2,D]. With x taken as 0 outside the sequence::
#:
#:     u2[0, l] = silu(b[0] + sum_k w[0, k] * x[l - (W - 1) + k])     (causal)
#:     u2[1, l] = silu(b[1] + sum_k w[1, k] * x[l + (W - 1) - k])     (anti-causal)
BI_CAUSAL_CONV_INPUTS: Final = ("xz", "w", "b")
#: Output: u2 T[2,B,L,D].
BI_CAUSAL_CONV_OUTPUTS: Final = ("u2",)
BI_CAUSAL_CONV_ATTRIBUTES: Final = ("x_off",)

BI_SELECTIVE_SCAN: Final = "VimBiSelectiveScan"
#: Inputs of ``VimBiSelectiveScan``: u2 T[2,B,L,D], dt T[2,B,L,D] (or, when ``low_rank`` = 1, the
#: weight T[2,D,r] with dt[l, d] = sum_r dt[d, r] * xdbl[l, dt_off + r]), xdbl T[2,B,L,K],
#: A f[2,N,D], Dskip f[2,D], dt_bias f[2,D], xz T[B,L,Zc]. Index 0 of the leading axis runs
#: forward, index 1 in reverse, and with the recurrence above::
#:
#:     y = scale * (y_forward + y_reverse) * silu(xz[..., z_off : z_off + D])
#:
#: where the sum is taken in fp32.
BI_SELECTIVE_SCAN_INPUTS: Final = ("u2", "dt", "xdbl", "A", "Dskip", "dt_bias", "xz")
#: Output: y T[B,L,D].
BI_SELECTIVE_SCAN_OUTPUTS: Final = ("y",)
#: Integer attributes; all are present on every node (``dt_off`` is read when ``low_rank`` = 1).
BI_SELECTIVE_SCAN_ATTRIBUTES: Final = (
    "delta_softplus",
    "b_off",
    "c_off",
    "dt_off",
    "z_off",
    "low_rank",
)
#: Float attributes: 0.5 when the model halves the sum of the directions, else 1.
BI_SELECTIVE_SCAN_FLOAT_ATTRIBUTES: Final = ("scale",)

#: Inputs that are fp32 whatever the element type T of the others.
FP32_INPUTS: Final = {
    SELECTIVE_SCAN: ("A", "Dskip", "dt_bias"),
    BI_CAUSAL_CONV: ("w", "b"),
    BI_SELECTIVE_SCAN: ("A", "Dskip", "dt_bias"),
}
#: Input names of every op, in order.
INPUTS: Final = {
    SELECTIVE_SCAN: SELECTIVE_SCAN_INPUTS,
    BI_CAUSAL_CONV: BI_CAUSAL_CONV_INPUTS,
    BI_SELECTIVE_SCAN: BI_SELECTIVE_SCAN_INPUTS,
}

#: Largest state size the kernels support.
MAX_STATE: Final = 64
#: Largest number of convolution taps the kernels support.
MAX_CONV_WIDTH: Final = 16
