"""What the command line prints: results on standard output, everything else on standard error.

A result is what the command was called for: a table, a verdict, the path of what was written;
``result`` and ``print_table`` print it, also with --quiet. With --json the result is one JSON
object, and the form for people goes where the notes go.

``say`` and the log are for what happens on the way. Text of others is made fit to be shown here,
before styles are added, and nowhere else.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from vim_deploy.cli.streams import (
    columns_of,
    configure_log,
    form,
    has_colours,
    is_live,
    note,
    note_styled,
    show_status,
    write_result,
)
from vim_deploy.cli.tables import one_line, table_text
from vim_deploy.errors import VimDeployError
from vim_deploy.text import json_text, printable, storable

if TYPE_CHECKING:
    from rich.console import Console

    from vim_deploy.runtimes.building.process import BuildProgress

#: Characters of a message or a reason that are shown.
_MOST_SHOWN = 4000


def _remember(_: click.Context, parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401
    """Take an option as soon as it is read: errors of the others are told in its form, too."""
    if parameter.name == "log_format":
        form.log_json = form.log_json if value is None else value == "json"
    elif parameter.name == "verbose":
        form.verbosity += value
    elif value:
        setattr(form, str(parameter.name), True)
    configure_log()


#: Options that ``form`` keeps, whether they stand before the command or behind it.
_KEPT: dict[str, Any] = {"is_eager": True, "expose_value": False, "callback": _remember}
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object.", **_KEPT
)
#: Of the program and of every command: people write them in either place.
COMMON_OPTIONS = (
    click.Option(
        ("-v", "--verbose"), count=True, help="Say more; -vv also prints stack traces.", **_KEPT
    ),
    click.Option(("-q", "--quiet"), is_flag=True, help="Only results and errors.", **_KEPT),
    click.Option(
        ("--log-format",),
        type=click.Choice(["text", "json"]),
        help="Form of what goes to standard error; json: an object a line.  [default: text]",
        **_KEPT,
    ),
)


def answer(value: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> bool:
    """The end of a command, with ``--json`` one JSON object on standard output; whether it was.

    Args:
        value: what the command has found.
        check: raises VimDeployError when that is a failure, which stands in the object as well.

    Raises:
        VimDeployError: that of ``check``; VIM-304, VIM-305 of the output.
    """
    try:
        check()
    except VimDeployError as error:
        print_json({**value, "error": error.as_dict()})
        raise
    return print_json(value)


def print_json(value: Mapping[str, Any]) -> bool:
    """With ``--json`` an object on standard output, if it is the first; whether it was printed."""
    if not form.as_json or form.answered:
        return False
    form.answered = True
    write_result(json_text(value))
    return True


def is_verbose() -> bool:
    """Whether everything is to be told."""
    return form.verbosity > 0


def wants_traces() -> bool:
    """Whether stack traces are to be printed."""
    return form.verbosity > 1


def take_form(words: Sequence[str]) -> None:
    """What ``words`` ask for that could not be read: the form in which that is said."""
    before = list(words)[: words.index("--") if "--" in words else None]
    form.as_json |= "--json" in before
    form.log_json |= "--log-format=json" in before or any(
        pair == ("--log-format", "json") for pair in itertools.pairwise(before)
    )


def say(text: str) -> None:
    """Lines for people, on standard error; silent with --quiet."""
    if not form.quiet:
        note(text)


def say_notes(notes: Iterable[object]) -> None:
    """What a reader of the result has to know, a line each."""
    for each in notes:
        say(f"note: {each}")


def result(text: str) -> None:
    """Lines of the result, on standard output; with --json as a note."""
    if form.as_json:
        say(text)
    else:
        write_result(printable(text))


def _short(text: str) -> str:
    """A text as long as people read one; names in it may be a file's, and of any length."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def print_error(error: VimDeployError) -> None:
    """The coded error for people, and as JSON when that was asked for."""
    # A message is one line, also when a name in it is not.
    message = one_line(_short(error.message))
    if form.log_json:
        note_styled(message, level="error", error=error.as_dict())
    else:
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
    print_json({"error": error.as_dict()})


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table, as ``result`` prints."""
    if form.as_json and form.quiet:
        return
    console = _console(sys.stderr if form.as_json else sys.stdout)
    text = table_text(console, title, columns, [tuple(row) for row in rows])
    if form.as_json:
        note_styled(text)
    else:
        write_result(text)


def print_markdown(text: str) -> None:
    """A page of ours: laid out on a terminal, as it stands in a file or pipe."""
    if form.as_json:
        return
    if not sys.stdout.isatty():
        write_result(printable(text).rstrip("\n"))
        return
    from rich.markdown import Markdown

    console = _console(sys.stdout)
    with console.capture() as capture:
        # Links lead to files beside a page, which no terminal can open: they are written out.
        console.print(Markdown(printable(text), hyperlinks=False))
    write_result(capture.get().rstrip("\n"))


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(
        file=stream,
        force_terminal=stream.isatty(),
        color_system="auto" if has_colours(stream) else None,
        width=columns_of(stream),
        # Without a height, which no text depends on, Rich takes a dumb terminal for 80 columns.
        height=25,
    )


def command_line() -> tuple[str, ...]:
    """This process's command line, for records."""
    return ("vim-deploy", *map(storable, sys.argv[1:]))


def show_build(state: BuildProgress) -> None:
    """Where a build is, in the line that changes."""
    if is_live():
        of = f" {state.step} of {state.steps}" if state.steps else ""
        show_status(f"building: {state.title}{of}, {state.elapsed:.0f} s")


def image_progress() -> Callable[[int, int], None]:
    """Told how many of how many images are done: the line that changes, or a line a tenth."""
    tenths = 0

    def tell(done: int, of: int) -> None:
        nonlocal tenths
        text, reached = f"{done} of {of} images", 10 * done // of
        if is_live():
            show_status(text)
        elif reached > tenths:
            tenths = reached
            say(text)

    return tell
