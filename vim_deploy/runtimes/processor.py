"""Whether this processor adds products of 8-bit integers exactly.

On x86, runtimes multiply unsigned activations by signed weights. With VNNI instructions the sums
are exact. Without, pairs of such products are added in 16 bits, which saturate: weights of the full
range give wrong sums, without a word. On an emulated Haswell the product of a matrix of random
weights was 17 % off in ONNX Runtime and in OpenVINO alike.
"""

from __future__ import annotations

import platform
from pathlib import Path

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
