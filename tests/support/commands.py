"""Command lines of documents and messages, held against the commands that there are."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Sequence

import click

from tests.support.markdown import PROGRAM
from vim_deploy.cli.main import COMMANDS, cli

#: Words that stand for a value in an explanation, and metavariables.
_PLACEHOLDER = re.compile(r"^(\.\.\.|[A-Z][A-Z-]*)$")
_OPTION = re.compile(r"--?[A-Za-z]")
#: What ends a command within a sentence.
_END = re.compile(r"`|[;,:)]( |$)|(?<!\.)\.( |$)|\n")


def find(words: Sequence[str]) -> tuple[click.Command, list[str]]:
    """The command that ``words`` begin with, and what follows it; KeyError for an unknown one."""
    command: click.Command = cli
    rest = [word for word in words if word]
    while isinstance(command, click.Group) and rest:
        if rest[0].startswith("-") or _PLACEHOLDER.match(rest[0]):
            break
        found = command.get_command(click.Context(command), rest[0])
        if found is None:
            raise KeyError(rest[0])
        command, rest = found, rest[1:]
    return command, rest


def options(command: click.Command) -> dict[str, click.Option | None]:
    """Every option a command takes by each of its names; None for the help options."""
    found: dict[str, click.Option | None] = {"-h": None, "--help": None}
    for option in command.params:
        if isinstance(option, click.Option):
            found |= dict.fromkeys((*option.opts, *option.secondary_opts), option)
    return found


def parse(words: Sequence[str]) -> None:
    """Read a whole command line as the program would; ClickException or KeyError if it cannot."""
    command, rest = find(words)
    # A command keeps the names of its help option from the first context it meets: the program's.
    program = click.Context(cli, **cli.context_settings)
    command.make_context(command.name, rest, parent=program, obj={})


def mistakes(words: Sequence[str]) -> Iterator[str]:
    """What is wrong with a command that is quoted in part: its name, its options, their choices."""
    try:
        command, rest = find(words)
    except KeyError as error:
        yield f"no command {error}"
        return
    known = options(command)
    for word, value in itertools.zip_longest(rest, rest[1:], fillvalue=""):
        if not _OPTION.match(word):
            continue
        name, _, joined = word.rstrip(",.;:").partition("=")
        if name not in known:
            yield f"no option {name}"
            continue
        option, value = known[name], joined or value.rstrip(",.;:")
        choices = option.type.choices if option and isinstance(option.type, click.Choice) else ()
        if choices and value.islower() and value not in choices:
            yield f"{name} does not take {value}"


def named_in(sentence: str) -> Iterator[list[str]]:
    """Words of every command of ours that a sentence names, without the program's name.

    The program's name also stands before verbs ("vim-deploy made it", "vim-deploy exported it"): a
    word is taken for a command when it is spelt like one, or has an option behind it.
    """
    for match in re.finditer(rf"(?<![\w/-]){PROGRAM} (?=[a-z])", sentence):
        clause = _END.split(sentence[match.end() :], maxsplit=1)[0].split(f"{PROGRAM} ")[0]
        words = [word.strip("'\"[](") for word in clause.split()]
        alike = difflib.get_close_matches(words[0], COMMANDS, cutoff=0.75)
        if any(map(_OPTION.match, words)) or (alike and not words[0].endswith("ed")):
            yield words
