"""What a process has once and threads of a program change at the same time.

The package changes nothing of it for longer than it must, and never one thread's view by another's
coming or going.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

#: Held where PyTorch traces or runs with a number of threads of its own: both change settings of
#: the whole process and put them back, and the exporter patches PyTorch while it works.
TORCH = threading.RLock()

_counting = threading.Lock()
_quiet = contextlib.ExitStack()
_inside = 0


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Silence warnings of libraries that nobody could act on.

    Python's filters belong to the process. Threads within such a block share one change of them,
    which the first makes and the last undoes: each putting back what it found would leave some
    thread's silence behind for ever.
    """
    global _inside
    with _counting:
        if not _inside:
            _quiet.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _inside += 1
    try:
        yield
    finally:
        with _counting:
            _inside -= 1
            if not _inside:
                _quiet.close()
