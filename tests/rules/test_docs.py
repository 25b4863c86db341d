"""The documents agree with the code: links, quoted commands, error catalogue."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rules.test_commands import ALL
from tests.support.commands import mistakes, named_in, options
from tests.support.markdown import anchors, links, markdown_files, quoted_commands
from tests.support.source import REPOSITORY, SERVED, files, modules
from vim_deploy.errors import CATALOG

ERRORS = REPOSITORY / "docs" / "errors.md"
_CODE = re.compile(r"VIM-\d{3,4}")
#: Options of pip, Triton, trtexec and a package's run.sh, and those of the program itself.
FOREIGN = {
    "--backend-config",
    "--dynamicPlugins",
    "--force-reinstall",
    "--log-format",
    "--no-deps",
    "--prepare",
    "--quiet",
    "--user",
    "--verbose",
}


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


@pytest.mark.parametrize(
    "path", markdown_files(), ids=lambda path: path.relative_to(REPOSITORY).as_posix()
)
def test_quoted_commands_exist(path: Path) -> None:
    for line, words in quoted_commands(path):
        assert not list(mistakes(words)), f"{path.name}:{line}: vim-deploy {' '.join(words)}"


def said(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string of a module, ``X`` for what is put into it."""
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in node.values}
            texts = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            yield node.lineno, "".join(map(str, texts))
        elif isinstance(node, ast.Constant) and id(node) not in parts:
            yield node.lineno, str(node.value)


def test_commands_and_options_that_messages_name_exist() -> None:
    ours = set().union(*map(options, ALL.values())) | FOREIGN
    for module in modules():
        for line, text in said(module.tree):
            where = f"{module.name}:{line}: "
            for words in named_in(text):
                assert not list(mistakes(words)), f"{where}vim-deploy {' '.join(words)}"
            # What is installed satisfies vim-deploy[EXTRA]; no index has it to install it again.
            assert not re.search(r"--(force-reinstall|upgrade) '?vim-deploy", text), where + text
            if " " in text and not module.name.startswith(SERVED):
                unknown = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) - ours
                assert not unknown, f"{where}no command takes {sorted(unknown)}"


def test_documents_that_code_names_exist() -> None:
    for path in files(".py", ".h", ".cpp", ".cu", ".toml", ".txt", ".sh"):
        for name in re.findall(r"(?<![\w/.])docs/[\w./-]+\.md", path.read_text(encoding="utf-8")):
            assert (REPOSITORY / name).is_file(), f"{path.relative_to(REPOSITORY)}: {name}"


def test_the_command_check_can_fail() -> None:
    assert list(mistakes(["exprot", "x.pth"])) == ["no command 'exprot'"]
    assert list(mistakes(["export", "x.pth", "--opzet", "18"])) == ["no option --opzet"]
    assert list(mistakes(["export", "x.pth", "--precision", "fp17"])) != []
    assert list(mistakes(["export", "--opset", "18", "--precision", "PRECISION"])) == []
    sentence = (
        "vim-deploy made it; make it again: vim-deploy exprot CHECKPOINT, or vim-deploy x --y."
    )
    assert list(named_in(sentence)) == [["exprot", "CHECKPOINT"], ["x", "--y"]]


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
