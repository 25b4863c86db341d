"""Standard output and standard error: everything the command line prints goes through here.

Results go to standard output. They are either written, or the command ends with a code: VIM-305 on
a full disk, VIM-304 where there is no output, and quietly with the status of a program that SIGPIPE
ends when the reader has gone. What is said to people on the way goes to standard error; when that
cannot be written there is nobody to tell, and the work goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from typing import TextIO

from vim_deploy.errors import ExitCode, VimDeployError
from vim_deploy.text import printable


class ReaderGoneError(Exception):
    """Whoever read standard output has gone; click would take the system's own error for its."""


def prepare() -> None:
    """Make both streams writable without surprises; for a process that is this command line.

    A closed descriptor is taken by the next file that is opened, which would then be written into
    by whatever prints: each gets a place-holder, standard output one that refuses to be written.
    Characters that the terminal's encoding lacks are written out instead of being an error.
    """
    for number, name, mode in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY),
                               (2, "stderr", os.O_WRONLY)):  # fmt: skip
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, mode)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
        if getattr(sys, name) is None:
            # Not the interpreter's own: it makes none for a descriptor that was closed.
            mode_of_text = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode_of_text, closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """As Python's own, with foreign text made fit to be shown."""
    note(warnings.formatwarning(message, category, filename, lineno, line).rstrip())


def write_result(text: str) -> None:
    """Write ``text`` and a line end to standard output, now.

    Raises:
        VimDeployError: VIM-305 (no space), VIM-304 (closed, or not to be written).
        ReaderGoneError: the reader has gone.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGoneError from error
    except (OSError, ValueError) as error:
        raise output_error(error) from error


def output_error(error: OSError | ValueError) -> VimDeployError:
    """The coded error for a result that could not be printed."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return VimDeployError(
            "VIM-305",
            "no space left while printing the result",
            why=str(error),
            fix="free some space, or send standard output elsewhere",
        )
    closed = isinstance(error, ValueError) or error.errno == errno.EBADF
    return VimDeployError(
        "VIM-304",
        "the result cannot be printed",
        why="standard output is closed" if closed else str(error),
        fix="leave standard output open, or send it to a file",
    )


def note(text: str) -> None:
    """Write foreign or own text and a line end to standard error; nothing when that fails."""
    note_styled(printable(text))


def note_styled(text: str) -> None:
    """As ``note``, for text that was made fit to be shown before styles were added to it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def has_colours(stream: TextIO) -> bool:
    """Whether styles belong on this stream: a terminal, and nobody who declines them."""
    return stream.isatty() and "NO_COLOR" not in os.environ


def finish(status: int) -> int:
    """Flush what libraries have printed; the exit status, changed when that does not work.

    After a failure the descriptors lead to nowhere, so that the interpreter's own last flush does
    not fail again with a status and a text of its own.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = status or int(ExitCode.READER_GONE)
        _lead_nowhere(sys.stdout)
    except (OSError, ValueError) as error:
        status = status or int(output_error(error).exit_code)
        _lead_nowhere(sys.stdout)
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _lead_nowhere(sys.stderr)
    return status


def _lead_nowhere(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, stream.fileno())
        os.close(handle)
