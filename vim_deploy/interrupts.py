"""Ctrl-C that survives libraries which swallow it.

The signal handler raises KeyboardInterrupt, as Python's own does, and leaves a mark. A library may
lose the exception (a callback of the interpreter, a C++ frame), so whoever is about to put an
output in place asks again.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_requested = threading.Event()


def install() -> None:
    """Handle SIGINT and SIGTERM in this process; a polite kill then cleans up like Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _requested.set()
    raise KeyboardInterrupt


def requested() -> bool:
    """Whether an interrupt has come, seen by the program or not."""
    return _requested.is_set()


def check() -> None:
    """Raise the KeyboardInterrupt that a library lost."""
    if requested():
        raise KeyboardInterrupt
