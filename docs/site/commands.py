"""The reference of commands, from the same records that ``--help`` prints."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import click

from vim_deploy.cli.main import cli

PROGRAM = "vim-deploy"
#: The page with the table of all commands.
OVERVIEW = "commands.md"
#: What a Markdown reader takes for markup, in a sentence of a help text.
_MARKUP = re.compile(r"([\\`*_\[\]{}#])")
#: Wide enough that no line of a usage or help text is broken by ``click``.
_WIDTH = 10_000


def walked(
    command: click.Command, parent: click.Context | None = None, name: str = PROGRAM
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command and sub-command with its full name, in the order of the overview."""
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        max_content_width=_WIDTH,
        terminal_width=_WIDTH,
        **(command.context_settings if parent is None else {}),
    )
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None, child
            yield from walked(found, context, child)


def plain(text: str) -> str:
    """A sentence of a help text as Markdown, with links to the pages that it names."""
    text = html.escape(_MARKUP.sub(r"\\\1", text), quote=False)
    return re.sub(r"docs/([\w/-]+\.md)", r"[docs/\1](../\1)", text)


def records(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    """Names and help of each option, as ``--help`` has them."""
    options = (item for item in command.get_params(context) if isinstance(item, click.Option))
    found = (option.get_help_record(context) for option in options)
    return [record for record in found if record]


def linked(table: str) -> str:
    """The README's table of commands, each a link to its page here."""
    row = rf"^\| `{PROGRAM} ([a-z-]+)` \|"
    return re.sub(row, rf"| [`{PROGRAM} \1`](commands/\1.md) |", table, flags=re.MULTILINE)


def reference() -> Iterator[tuple[str, str]]:
    """Name and page of every command that is no sub-command; sub-commands stand on its page."""
    pages: dict[str, list[str]] = {}
    for path, command, context in walked(cli):
        top = path.removeprefix(PROGRAM).split()[:1]
        pages.setdefault(top[0] if top else PROGRAM, []).append(_section(path, command, context))
    for name, sections in pages.items():
        first, *others = sections
        yield name, "\n\n".join([f"# {first}", *(f"## {text}" for text in others)]) + "\n"


def _section(path: str, command: click.Command, context: click.Context) -> str:
    """Heading without its level, usage, help and options of one command."""
    usage = " ".join(command.get_usage(context).removeprefix("Usage:").split())
    help_text = "\n\n".join(
        plain(" ".join(part.split()))
        for part in re.split(r"\n\s*\n", (command.help or "").replace("\b", ""))
    )
    lines = [
        path,
        "",
        f"```text\n{usage}\n```",
        "",
        help_text,
        "",
        '<div class="options" markdown>',
    ]
    for names, text in records(command, context):
        lines += ["", f"`{names}`", f":   {plain(text)}"]
    lines += ["", "</div>"]
    return "\n".join(lines)
