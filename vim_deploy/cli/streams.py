"""The two streams of the command line: what is written, in which form, and what fails.

A result is either written to standard output, or the command ends with a code: VIM-305 on a full
disk, VIM-304 where there is no output, and quietly with the status of a program that SIGPIPE ends
when the reader has gone. When standard error cannot be written there is nobody to tell, and the
work goes on. A terminal gets one line that changes, which is taken away before any other is
written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
import time
import warnings
from dataclasses import dataclass, field
from typing import TextIO

import vim_deploy
from vim_deploy.cli.tables import one_line
from vim_deploy.errors import ExitCode, VimDeployError
from vim_deploy.progress import stage_log
from vim_deploy.text import printable

#: Columns of a terminal that does not tell.
_COLUMNS = 80


@dataclass
class Form:
    """How a command line is answered.

    Attributes:
        as_json, quiet, verbosity, log_json: what was asked for, before the command or behind it.
        answered: the JSON object has been printed; there is one.
        said: stages that have had their line.
        width: characters of the line on the terminal that is to be written over.
    """

    as_json: bool = False
    quiet: bool = False
    verbosity: int = 0
    log_json: bool = False
    answered: bool = False
    said: set[str] = field(default_factory=set)
    width: int = 0


form = Form()


def begin() -> None:
    """Nothing has been asked for yet: the beginning and the end of a command line."""
    clear_status()
    vars(form).update(vars(Form()))


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
    if not form.quiet:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        note(text.rstrip(), level="warning")


def write_result(text: str) -> None:
    """Write ``text`` and a line end to standard output, now.

    Raises:
        VimDeployError: VIM-305 (no space), VIM-304 (closed, or not to be written).
        ReaderGoneError: the reader has gone.
    """
    clear_status()
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


def note(text: str, *, level: str = "info") -> None:
    """Write foreign or own text and a line end to standard error; nothing when that fails."""
    note_styled(printable(text), level=level)


def note_styled(
    text: str, *, level: str = "info", logger: str = vim_deploy.__name__, **more: object
) -> None:
    """As ``note``, for text that was made fit to be shown before styles were added to it.

    With ``--log-format json`` all that is written to standard error is a JSON object a line, in
    which ``more`` stands as well.
    """
    if form.log_json:
        told = {"time": round(time.time(), 3), "level": level, "logger": logger, "message": text}
        text = json.dumps({**told, **more})
    clear_status()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def has_colours(stream: TextIO) -> bool:
    """Whether styles belong on this stream: a terminal that has them, and nobody who declines."""
    declined = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or form.log_json
    return stream.isatty() and not declined


def columns_of(stream: TextIO) -> int:
    """Columns of the terminal that ``stream`` leads to."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    return _COLUMNS


def is_live() -> bool:
    """Whether a line that changes can be shown; never with --quiet."""
    return sys.stderr.isatty() and not (form.quiet or form.log_json)


def show_status(text: str) -> None:
    """Show ``text`` in the line that changes, as far as one line holds it."""
    from rich.cells import cell_len

    text = one_line(text)
    while cell_len(text) >= columns_of(sys.stderr):
        text = text[:-1]
    clear_status()
    form.width = cell_len(text)
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def clear_status() -> None:
    """Take the line that changes away; every terminal knows a carriage return."""
    width, form.width = form.width, 0
    if width:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"\r{' ' * width}\r")
            sys.stderr.flush()


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


class _Handler(logging.Handler):
    """The log on standard error; the beginning of a stage is one line that changes, where it can.

    Elsewhere a stage has one line, however often it comes.
    """

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.name == stage_log.name:
            if is_live():
                return show_status(f"{text} ...")
            if text in form.said:
                return None
            form.said.add(text)
        return note_styled(printable(text), level=record.levelname.lower(), logger=record.name)


def configure_log() -> None:
    """Send the package's log to standard error, and what libraries warn of that have no place."""
    logger = logging.getLogger(vim_deploy.__name__)
    logger.handlers[:] = [_Handler()]
    logger.propagate = False
    verbosity = -1 if form.quiet else min(form.verbosity, 1)
    logger.setLevel({-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG}[verbosity])
    logging.lastResort = _Handler(logging.ERROR if form.quiet else logging.WARNING)
