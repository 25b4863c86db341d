"""What a session is told of a quantized file, so that the CPU computes what the file says.

int8: where sums of products may saturate (``runtimes.processor``), ``session.x64quantprecision``
makes the weights unsigned, as the activations are; those kernels are exact everywhere. With VNNI
the option changes no result and takes those instructions away: a product of Vim-Ti's ``in_proj``
took 2.3 times as long. So it is set where VNNI is missing.

fp8: releases up to 1.28 at least make a product of integers of the pattern, and then refuse their
own graph. ``session.disable_quant_qdq`` leaves it as it is, and computes in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

from vim_deploy.precisions import Precision
from vim_deploy.runtimes.processor import saturates

#: Said where int8 products are made exact.
NOTE = (
    "this processor has no VNNI instructions: ONNX Runtime multiplies int8 exactly, and more slowly"
)
_EXACT = {"session.x64quantprecision": "1"}
_AS_IT_IS = {"session.disable_quant_qdq": "1"}


def entries_for(quantized: Precision | None) -> Mapping[str, str]:
    """Entries of a session on the CPU, by ONNX Runtime's names.

    Args:
        quantized: what products of the file are quantized to; None for others.
    """
    if quantized == "int8":
        return _EXACT if saturates() else {}
    return _AS_IT_IS if quantized == "fp8" else {}
