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
#: INTS attribute for the local function only: ONNX cannot turn the INT ``reverse`` into the list
#: of directions that Scan wants, so the node carries that list as well.
SCAN_DIRECTIONS: Final = "scan_directions"

#: Largest state size the kernels support.
MAX_STATE: Final = 64
