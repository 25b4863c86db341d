"""The documents agree with the code: links, quoted commands, error catalogue."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest

from tests.support.markdown import anchors, links, markdown_files, quoted_commands
from tests.support.source import REPOSITORY, files, modules
from vim_deploy.cli.main import cli
from vim_deploy.errors import CATALOG

ERRORS = REPOSITORY / "docs" / "errors.md"
_CODE = re.compile(r"VIM-\d{3,4}")
#: Words that stand for a value in an explanation, and metavariables.
_PLACEHOLDER = re.compile(r"^(\.\.\.|[A-Z][A-Z-]*)$")


def test_there_are_documents() -> None:
    names = {path.relative_to(REPOSITORY).as_posix() for path in markdown_files()}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md"} <= names


def test_links_resolve() -> None:
    broken = []
    for path in markdown_files():
        for line, target in links(path):
            if re.match(r"[a-z]+:", target):
                continue  # another site: not asked from a test
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            good = file.exists() and REPOSITORY in (file, *file.parents)
            if good and anchor and file.suffix == ".md":
                good = anchor in anchors(file)
            if not good:
                broken.append(f"{path.relative_to(REPOSITORY)}:{line}: {target}")
    assert broken == []


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that ``words`` begin with, and what follows it; KeyError for an unknown one."""
    command: click.Command = cli
    rest = [word for word in words if word]
    while isinstance(command, click.Group) and rest:
        if rest[0].startswith("-") or _PLACEHOLDER.match(rest[0]):
            break
        context = click.Context(command)
        found = command.get_command(context, rest[0])
        if found is None:
            raise KeyError(rest[0])
        command, rest = found, rest[1:]
    return command, rest


def option_names(command: click.Command) -> set[str]:
    """Every option a command takes, with the help options."""
    return {"-h", "--help"} | {
        name
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }


@pytest.mark.parametrize(
    "path", markdown_files(), ids=lambda path: path.relative_to(REPOSITORY).as_posix()
)
def test_quoted_commands_exist(path: Path) -> None:
    for line, words in quoted_commands(path):
        where = f"{path.name}:{line}: vim-deploy {' '.join(words)}"
        try:
            command, rest = find(words)
        except KeyError as error:
            pytest.fail(f"{where}: no command {error}")
        known = option_names(command)
        for word in rest:
            if not re.match(r"--?[A-Za-z]", word):
                continue
            name = word.partition("=")[0].rstrip(",.;:")
            assert name in known, f"{where}: no option {name}"


def test_the_command_check_can_fail() -> None:
    with pytest.raises(KeyError):
        find(["exprot", "x.pth"])
    command, rest = find(["export", "x.pth", "--opzet", "18"])
    assert rest == ["x.pth", "--opzet", "18"]
    assert "--opzet" not in option_names(command)
    assert "--opset" in option_names(command)


def test_error_catalogue_is_documented_entry_by_entry() -> None:
    text = ERRORS.read_text(encoding="utf-8")
    headings = re.findall(r"^### (VIM-\d{3,4}): (.*)$", text, re.MULTILINE)
    assert headings == list(CATALOG.items())
    for entry in text.split("\n### ")[1:]:
        for part in ("Meaning", "Example", "Fix"):
            found = re.search(rf"\*\*{part}:\*\* \S", entry)
            assert found, f"{entry.splitlines()[0]} has no {part}"


def raised_codes() -> set[str]:
    """Codes that stand as a string of their own in the package, the catalog's keys apart."""
    found = set()
    for module in modules():
        keys = {
            id(key)
            for node in ast.walk(module.tree)
            if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "CATALOG"
            for key in getattr(node.value, "keys", [])
        }
        found |= {
            node.value
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and _CODE.fullmatch(node.value)
            and id(node) not in keys
        }
    return found


def test_every_code_is_raised_and_every_raised_code_is_known() -> None:
    assert raised_codes() == set(CATALOG)


def test_codes_named_anywhere_exist() -> None:
    for path in files(".py", ".md", ".toml"):
        if path.name == "test_errors.py":
            continue  # which tries a code that does not exist
        unknown = set(_CODE.findall(path.read_text(encoding="utf-8"))) - set(CATALOG)
        assert not unknown, f"{path.relative_to(REPOSITORY)} names {sorted(unknown)}"
