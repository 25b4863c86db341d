"""Every command explains itself, and the README knows every command."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from tests.support.source import REPOSITORY
from vim_deploy.cli.main import COMMANDS, cli

README = REPOSITORY / "README.md"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command and sub-command with its full name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(cli))


@pytest.mark.parametrize("name", ALL)
def test_command_explains_itself(name: str) -> None:
    command = ALL[name]
    assert command.help, f"{name} has no help"
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.opts[0]} has no help"


@pytest.mark.parametrize("name", ALL)
def test_command_answers_h(name: str) -> None:
    said = CliRunner().invoke(cli, [*name.split(), "-h"])
    assert said.exit_code == 0
    assert "Usage:" in said.output


def test_overview_lists_every_command() -> None:
    assert list(COMMANDS) == [name for name in ALL if " " not in name]
    assert all(COMMANDS.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_command_stands_in_the_readme(name: str) -> None:
    assert f"vim-deploy {name}" in README.read_text(encoding="utf-8")
