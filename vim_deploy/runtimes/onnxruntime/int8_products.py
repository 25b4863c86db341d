"""Whether ONNX Runtime multiplies 8-bit integers exactly on this processor, and what helps if not.

ONNX Runtime multiplies unsigned activations by signed weights on x86. Without VNNI instructions its
kernels add pairs of such products in 16 bits, which saturate: full-range weights give wrong sums,
without a word. Its session option ``session.x64quantprecision`` makes the weights unsigned, too,
whose kernels are exact. With VNNI the option changes no result and takes those instructions away: a
product of Vim-Ti's ``in_proj`` took 2.3 times as long. So it is set where VNNI is missing, or where
nothing tells.
"""

from __future__ import annotations

import platform
from pathlib import Path

#: Name and value of a session's entry.
EXACT = ("session.x64quantprecision", "1")
#: Said where it is set.
NOTE = (
    "this processor has no VNNI instructions: ONNX Runtime multiplies int8 exactly, and more slowly"
)
#: As Linux calls them; AMX comes with the first.
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_X86 = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})
_CPUINFO = Path("/proc/cpuinfo")


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
