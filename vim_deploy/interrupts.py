"""Ctrl-C and a polite kill: every command ends soon, and leaves nothing half-made.

The first signal raises KeyboardInterrupt, as Python's own handler does, and leaves a mark. A
library may lose the exception (a callback of the interpreter, a C++ frame), so whoever is about to
put an output in place asks again; and a library that must not be interrupted in the middle is
called within ``deferred``. Whatever keeps the process from ending, a thread of this module ends it
after ``GRACE_SECONDS``, with what ``scratch`` names removed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from pathlib import Path
from types import FrameType
from typing import Any

#: From the first signal to the end that no library can put off. Longer than what a build process
#: is given to stop (``runtimes.building.process``), shorter than people wait.
GRACE_SECONDS = 3.5
#: Exit status of a command that was interrupted: 128 + SIGINT.
STATUS = 130

_requested = threading.Event()
_finished = threading.Event()
_threadless = threading.Event()
_held = threading.Event()
_scratch: set[Path] = set()
_deferring = 0


def install() -> None:
    """Handle what ends this process politely, so that it cleans up as after Ctrl-C.

    That is SIGINT, SIGTERM, a terminal that has gone (SIGHUP, but not under ``nohup``) and a soft
    limit of processor time (SIGXCPU).
    """
    for number in _handled():
        signal.signal(number, _interrupt)
    for loader in (SourceFileLoader, ExtensionFileLoader):
        for name in ("create_module", "exec_module"):
            method = getattr(loader, name)
            # Once: tests install more than once in a process.
            if not hasattr(method, "__wrapped__"):
                setattr(loader, name, _undisturbed(method))


def _undisturbed(method: Callable[..., Any]) -> Callable[..., Any]:
    """A loader's ``method``, with interrupts within it raised at the end of the outermost import.

    While libraries are loaded, C runs Python and does not always look whether that raised: with
    protobuf building the classes of onnx, one interrupt in 200 was a segmentation fault.
    """

    @functools.wraps(method)
    def load(*arguments: Any) -> Any:  # noqa: ANN401
        with deferred():
            return method(*arguments)

    return load


def _handled() -> list[signal.Signals]:
    found = [signal.SIGINT, signal.SIGTERM]
    for name in ("SIGHUP", "SIGXCPU"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            found.append(number)
    return found


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # People press Ctrl-C again, and supervisors repeat their signal: a second exception would break
    # off the cleaning up after the first.
    if _requested.is_set():
        return
    _requested.set()
    try:
        threading.Thread(target=_end, daemon=True).start()
    except RuntimeError:
        # Without a thread to spare the exception has to do.
        _threadless.set()
    if _deferring:
        _held.set()
    else:
        raise KeyboardInterrupt


def _end() -> None:
    """End the process when it has not ended by itself."""
    time.sleep(GRACE_SECONDS)
    if _finished.is_set():
        return
    for path in tuple(_scratch):
        _remove(path)
    with contextlib.suppress(OSError, ValueError):
        # Not when the reader of standard error has stopped reading: that is what we may wait for.
        if select.select([], [2], [], 0)[1]:
            os.write(2, b"interrupted: unfinished outputs were not written\n")
    os._exit(STATUS)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def finished() -> None:
    """The command is over, and its status known: from now on nothing is ended or raised."""
    _finished.set()
    for number in _handled():
        signal.signal(number, signal.SIG_IGN)
    # An extension that runs Python text, and is left by KeyboardInterrupt, makes the interpreter
    # end itself by SIGINT in the end, whatever the exit status, until the next text is run
    # (CPython's run_eval_code_obj: unhandled_keyboard_interrupt).
    exec("")  # noqa: S102 - no text of anybody


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[None]:
    """``path`` is a file or folder that must not stay when the process ends within the block."""
    _scratch.add(path)
    try:
        yield
    finally:
        _scratch.discard(path)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Interrupts within the block are raised at its end; within such a block, at the outer's end.

    For libraries that end the process when an exception comes out of a place where they know none.
    Signals are handled in the main thread, so in others there is nothing to put off.
    """
    global _deferring
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1
        # Not one that is being handled already: the block may be part of the cleaning up.
        if not _deferring and _held.is_set():
            _held.clear()
            raise KeyboardInterrupt


def without_threads() -> bool:
    """Whether the interrupt came while no thread could be started.

    OpenBLAS, which NumPy loads, interrupts the process itself (``raise(SIGINT)``) when it gets none
    of its threads: nobody pressed Ctrl-C then.
    """
    return _threadless.is_set()


def requested() -> bool:
    """Whether an interrupt has come, seen by the program or not."""
    return _requested.is_set()


def check() -> None:
    """Raise the KeyboardInterrupt that a library lost."""
    if requested():
        raise KeyboardInterrupt
