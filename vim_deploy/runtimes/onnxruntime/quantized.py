"""What a session is told of a quantized file, so that the CPU computes what the file says.

``session.disable_quant_qdq`` has it computed node by node, in float32: exactly, and as fast as a
float32 file. It is needed twice:

- int8 where sums of products may saturate (``runtimes.processor``). ``session.x64quantprecision``,
  whose products of unsigned bytes are exact as well, is three times as fast, but does not load
  files in which two products read the same weights.
- fp8: releases up to 1.28 at least make a product of integers of the pattern, and then refuse their
  own graph.
"""

from __future__ import annotations

from collections.abc import Mapping

from vim_deploy.precisions import Precision
from vim_deploy.runtimes.processor import saturates

#: Said where int8 products are computed in float32.
NOTE = (
    "this processor has no VNNI instructions: ONNX Runtime computes int8 in float32, and not faster"
)
_AS_IT_IS = {"session.disable_quant_qdq": "1"}


def entries_for(quantized: Precision | None) -> Mapping[str, str]:
    """Entries of a session on the CPU, by ONNX Runtime's names.

    Args:
        quantized: what products of the file are quantized to; None for others.
    """
    if quantized == "fp8" or (quantized == "int8" and saturates()):
        return _AS_IT_IS
    return {}
