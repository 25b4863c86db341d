"""What the command line prints: results on standard output, everything else on standard error.

A result is what the command was called for: a table, a verdict, a description; ``result`` and
``print_table`` print it, also with --quiet. It is either written, or the command ends with a code:
VIM-305 on a full disk, VIM-304 where there is no output, and quietly with the status of a program
that SIGPIPE ends when the reader has gone. With --json the result is one JSON object, and the form
for people goes where the notes go.

``say`` and the log are for what happens on the way; when standard error cannot be written there is
nobody to tell, and the work goes on. Text of others is made fit to be shown here, before styles are
added, and nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

import vim_deploy
from vim_deploy.cli.tables import one_line, table_text
from vim_deploy.errors import ExitCode, VimDeployError
from vim_deploy.text import json_text, printable, storable

if TYPE_CHECKING:
    from vim_deploy.runtimes.building.process import BuildProgress, ProgressCallback

#: Characters of a message or a reason that are shown.
_MOST_SHOWN = 4000


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


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing: where standard error takes nothing, there is nobody to tell."""


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "time": round(record.created, 3),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
            }
        )


def configure_log(verbosity: int = 0, log_format: str = "text") -> None:
    """Send the package's log to stderr.

    Args:
        verbosity: -1 errors only, 0 notes, 1 details, 2 everything.
        log_format: ``text`` or ``json``.
    """
    handler = _Handler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_TextFormatter("%(message)s"))
    logger = logging.getLogger(vim_deploy.__name__)
    logger.handlers[:] = [handler]
    logger.propagate = False
    levels = {-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG}
    logger.setLevel(levels.get(verbosity, logging.DEBUG))


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    write_result(json_text(value))


def print_outcome(value: Mapping[str, Any], require: Callable[[], None], *, as_json: bool) -> None:
    """What came out, where JSON is wanted, and the error that ``require`` raises for it.

    One JSON object: the results with the error, not the one after the other.
    """
    try:
        require()
    except VimDeployError as error:
        if not as_json:
            raise
        print_json({**value, "error": error.as_dict()})
        print_error(error, as_json=False)
        raise click.exceptions.Exit(int(error.exit_code)) from error
    if as_json:
        print_json(value)


def _is_quiet() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("quiet"))


def _remember_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    """The form of a later error: it is printed where the options are no longer known."""
    if value:
        ctx.ensure_object(dict)["as_json"] = True
    return value


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_remember_json,
    help="Print one JSON object.",
)


def _gives_json() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.params.get("as_json"))


def say(text: str) -> None:
    """Lines for people, on standard error; silent with --quiet."""
    if not _is_quiet():
        note(text)


def say_notes(notes: Iterable[object]) -> None:
    """What a reader of the result has to know, a line each."""
    for each in notes:
        say(f"note: {each}")


def result(text: str) -> None:
    """Lines of the result, on standard output; with --json as a note."""
    if _gives_json():
        say(text)
    else:
        write_result(printable(text))


def _short(text: str) -> str:
    """A text as long as people read one; names in it may be a file's, and of any length."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def print_error(error: VimDeployError, *, as_json: bool) -> None:
    """The coded error for people, and as JSON when that was asked for."""
    # A message is one line, also when a name in it is not.
    message = one_line(_short(error.message))
    label = f"error {error.code}"
    if has_colours(sys.stderr):
        label = click.style(label, fg="red", bold=True)
    lines = [f"{label}: {message}"]
    lines += [
        # Further lines are set in: none of them can be taken for an error of ours.
        f"  {name}: {printable(_short(text))}".replace("\n", "\n       ")
        for name, text in (("why", error.why), ("fix", error.fix))
        if text
    ]
    note_styled("\n".join(lines))
    if as_json:
        print_json({"error": error.as_dict()})


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table, as ``result`` prints."""
    as_note = _gives_json()
    if as_note and _is_quiet():
        return
    from rich.console import Console

    text = table_text(Console(stderr=as_note), title, columns, [tuple(row) for row in rows])
    if as_note:
        note_styled(text)
    else:
        write_result(text)


def command_line() -> tuple[str, ...]:
    """This process's command line, for records."""
    return ("vim-deploy", *map(storable, sys.argv[1:]))


@contextmanager
def build_progress() -> Iterator[ProgressCallback | None]:
    """A progress bar on standard error for an engine build; None where stderr is no terminal."""
    if _is_quiet() or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Starting the builder", total=None)

        def show(state: BuildProgress) -> None:
            bar.update(
                task,
                description=one_line(state.phase),
                completed=state.step,
                total=state.steps or None,
            )

        yield show


@contextmanager
def image_progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar over images on standard error; no terminal gets a line for each tenth."""
    if _is_quiet():
        yield lambda done, of: None
        return
    if not sys.stderr.isatty():
        said = [0]

        def tell(done: int, of: int) -> None:
            tenth = 10 * done // of
            if tenth > said[0]:
                said[0] = tenth
                note(f"{done} of {of} images")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
