"""Printing: text for people on stderr, one JSON object on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from vim_deploy.errors import VimDeployError
from vim_deploy.text import storable

#: Columns of a table that goes to a file or pipe.
_WIDTH_OF_FILES = 120

if TYPE_CHECKING:
    from vim_deploy.engine.build_process import BuildProgress, ProgressCallback


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def say(text: str) -> None:
    """One line for people, on stderr; silent with --quiet."""
    context = click.get_current_context(silent=True)
    if context is None or not context.find_root().params.get("quiet"):
        click.echo(text, err=True)


def print_error(error: VimDeployError, *, as_json: bool) -> None:
    """The coded error for people, and as JSON when that was asked for."""
    label = click.style(f"error {error.code}", fg="red", bold=True)
    lines = [f"{label}: {error.message}"]
    lines += [
        f"  {name}: {text}" for name, text in (("why", error.why), ("fix", error.fix)) if text
    ]
    click.echo("\n".join(lines), err=True)
    if as_json:
        print_json({"error": error.as_dict()})


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stderr, for people."""
    context = click.get_current_context(silent=True)
    if context is not None and context.find_root().params.get("quiet"):
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # As Text: cells such as 'vim-deploy[rtx]' are not rich's markup.
        table.add_row(*map(Text, row))
    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    console.print(title, markup=False)
    console.print(table)


def command_line() -> tuple[str, ...]:
    """This process's command line, for records."""
    return ("vim-deploy", *map(storable, sys.argv[1:]))


@contextmanager
def build_progress() -> Iterator[ProgressCallback | None]:
    """A progress bar on stderr for an engine build; None where stderr is no terminal."""
    context = click.get_current_context(silent=True)
    quiet = context is not None and context.find_root().params.get("quiet")
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Starting the builder", total=None)

        def show(state: BuildProgress) -> None:
            bar.update(
                task,
                description=state.phase,
                completed=state.step,
                total=state.steps or None,
            )

        yield show


@contextmanager
def image_progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar over images on stderr; where stderr is no terminal, a line for each tenth."""
    context = click.get_current_context(silent=True)
    if context is not None and context.find_root().params.get("quiet"):
        yield lambda done, of: None
        return
    if not sys.stderr.isatty():
        said = [0]

        def tell(done: int, of: int) -> None:
            tenth = 10 * done // of
            if tenth > said[0]:
                said[0] = tenth
                click.echo(f"{done} of {of} images", err=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
