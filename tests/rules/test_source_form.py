"""Form of the source: length of files and commands, docstrings, no star imports."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from tests.support.source import REPOSITORY, files, modules

MAX_FILE_LINES = 400
MAX_COMMAND_LINES = 40
CODE = (".py", ".cpp", ".cc", ".cu", ".cuh", ".h", ".hpp", ".cmake")


def short(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def test_files_are_short() -> None:
    counts = {short(path): len(path.read_text("utf-8").splitlines()) for path in files(*CODE)}
    assert len(counts) > 50
    assert {name: count for name, count in counts.items() if count > MAX_FILE_LINES} == {}


def test_python_files_begin_with_a_docstring() -> None:
    missing = [
        short(path)
        for path in files(".py")
        if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert missing == []


def test_no_star_imports() -> None:
    stars = [
        f"{short(path)}:{node.lineno}"
        for path in files(".py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]
    assert stars == []


def test_nobody_compares_error_codes() -> None:
    """What a caller tells apart is a class of its own (``vim_deploy.errors``)."""
    compared = [
        f"{module.name}:{node.lineno}"
        for module in modules()
        # DLPack's type codes are no error codes.
        if module.name != "vim_deploy.cuda.device_view"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Attribute) and side.attr == "code"
    ]
    assert compared == []


def test_public_functions_and_classes_have_docstrings() -> None:
    missing = [
        f"{module.name}.{node.name}"
        for module in modules()
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not missing


def is_command(node: ast.FunctionDef) -> bool:
    """Whether a decorator makes it a command: ``@click.command(...)``, ``@group.command(...)``."""
    return any(
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and decorator.func.attr in ("command", "group")
        for decorator in node.decorator_list
    )


def test_command_bodies_are_short() -> None:
    commands = [
        (f"{module.name}.{node.name}", node.end_lineno - node.body[0].lineno + 1)
        for module in modules()
        if module.layer == "cli"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef) and is_command(node) and node.end_lineno
    ]
    assert commands
    assert [entry for entry in commands if entry[1] > MAX_COMMAND_LINES] == []


def test_test_files_have_names_of_their_own() -> None:
    # Test folders are not packages, so two files of one name would shadow each other.
    counts = Counter(path.name for path in (REPOSITORY / "tests").rglob("test_*.py"))
    assert [name for name, count in counts.items() if count > 1] == []
