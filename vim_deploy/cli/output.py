"""What commands print: results on standard output, everything else on standard error.

A result is what the command was called for: a table, a verdict, a description; ``result`` and
``print_table`` print it, also with --quiet. ``say`` is for what happens on the way. With --json the
result is one JSON object, and the form for people goes where the notes go. Text of others is made
fit to be shown here, before styles are added, and nowhere else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from vim_deploy.cli import streams
from vim_deploy.cli.tables import one_line, table_text
from vim_deploy.errors import VimDeployError
from vim_deploy.text import json_text, printable, storable

if TYPE_CHECKING:
    from vim_deploy.runtimes.building.process import BuildProgress, ProgressCallback


#: Characters of a message or a reason that are shown.
_MOST_SHOWN = 4000


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    streams.write_result(json_text(value))


def _is_quiet() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("quiet"))


def _gives_json() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.params.get("as_json"))


def say(text: str) -> None:
    """Lines for people, on standard error; silent with --quiet."""
    if not _is_quiet():
        streams.note(text)


def result(text: str) -> None:
    """Lines of the result, on standard output; with --json as a note."""
    if _gives_json():
        say(text)
    else:
        streams.write_result(printable(text))


def _short(text: str) -> str:
    """A text as long as people read one; names in it may be a file's, and of any length."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def print_error(error: VimDeployError, *, as_json: bool) -> None:
    """The coded error for people, and as JSON when that was asked for."""
    # A message is one line, also when a name in it is not.
    message = one_line(_short(error.message))
    label = f"error {error.code}"
    if streams.has_colours(sys.stderr):
        label = click.style(label, fg="red", bold=True)
    lines = [f"{label}: {message}"]
    lines += [
        # Further lines are set in: none of them can be taken for an error of ours.
        f"  {name}: {printable(_short(text))}".replace("\n", "\n       ")
        for name, text in (("why", error.why), ("fix", error.fix))
        if text
    ]
    streams.note_styled("\n".join(lines))
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
        streams.note_styled(text)
    else:
        streams.write_result(text)


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
                streams.note(f"{done} of {of} images")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
