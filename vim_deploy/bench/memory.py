"""This process's memory, from ``/proc``: resident now, and the largest it has been.

``getrusage``'s maximum is not used: on Linux the peak of the process that *started* this one is
folded into it when the program begins (kernel, ``exec_mmap`` and ``setmax_mm_hiwater_rss``), so a
small process started by a large one would look large. ``VmHWM`` belongs to the program's own
memory, and can be set back.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
#: proc(5), clear_refs: "5" sets the peak resident size to the present one.
_RESET_PEAK = "5"


def resident_bytes() -> int | None:
    """Resident memory now; None on systems without ``/proc``."""
    return _field("VmRSS")


def peak_bytes() -> int | None:
    """Largest resident memory since the program began, or since ``reset_peak`` worked."""
    return _field("VmHWM")


def reset_peak() -> bool:
    """Give freed memory back and begin a new peak; False where the system does not allow it."""
    gc.collect()
    _trim_heap()
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _trim_heap() -> None:
    """What the C library keeps of freed memory goes back to the system, where it can (glibc)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


def _field(name: str) -> int | None:
    try:
        text = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
