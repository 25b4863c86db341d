"""What a session is told of a quantized file, so that the CPU computes what the file says.

int8: ONNX Runtime multiplies unsigned activations by signed weights on x86. Without VNNI
instructions its kernels add pairs of such products in 16 bits, which saturate: full-range weights
give wrong sums, without a word (17 % off, on an emulated Haswell). ``session.x64quantprecision``
makes the weights unsigned, too, whose kernels are exact. With VNNI the option changes no result and
takes those instructions away: a product of Vim-Ti's ``in_proj`` took 2.3 times as long. So it is
set where VNNI is missing, or where nothing tells.

fp8: releases up to 1.28 at least make a product of integers of the pattern, and then refuse their
own graph. ``session.disable_quant_qdq`` leaves it as it is, and computes in float32.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from vim_deploy.precisions import Precision

#: Said where int8 products are made exact.
NOTE = (
    "this processor has no VNNI instructions: ONNX Runtime multiplies int8 exactly, and more slowly"
)
_EXACT = {"session.x64quantprecision": "1"}
_AS_IT_IS = {"session.disable_quant_qdq": "1"}
#: As Linux calls them; AMX comes with the first.
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_X86 = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})
_CPUINFO = Path("/proc/cpuinfo")


def entries_for(quantized: Precision | None) -> Mapping[str, str]:
    """Entries of a session on the CPU, by ONNX Runtime's names.

    Args:
        quantized: what products of the file are quantized to; None for others.
    """
    if quantized == "int8":
        return _EXACT if saturates() else {}
    return _AS_IT_IS if quantized == "fp8" else {}


def saturates() -> bool:
    """Whether sums of int8 products may be wrong on this processor; True where nothing tells."""
    if platform.machine().lower() not in _X86:
        return False
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _VNNI & set(flags.partition(":")[2].split())
