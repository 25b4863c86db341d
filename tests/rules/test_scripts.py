"""Scripts beside the package, which few tests run, import what the package has."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator

from tests.support.source import PACKAGE, REPOSITORY, files


def missing(tree: ast.AST) -> Iterator[str]:
    """What ``tree`` imports from the package that is not there, wherever in it that stands."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.split(".")[0] != PACKAGE.name:
            continue
        for alias in node.names:
            try:
                module = importlib.import_module(node.module)
            except ModuleNotFoundError:
                yield node.module
                break
            if not hasattr(module, alias.name):
                try:
                    importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    yield f"{node.module}.{alias.name}"


def test_scripts_import_what_there_is() -> None:
    found = {}
    for path in files(".py"):
        place = path.relative_to(REPOSITORY).as_posix()
        if place.startswith(("benchmarks/", "examples/", "tests/gpu/", "export/")):
            found[place] = list(missing(ast.parse(path.read_text(encoding="utf-8"))))
    assert "examples/demo.py" in found
    assert not any(found.values()), found


def test_the_rule_can_fail() -> None:
    text = "from vim_deploy.errors import VimDeployError, Other\nfrom vim_deploy.other import x"
    assert list(missing(ast.parse(text))) == ["vim_deploy.errors.Other", "vim_deploy.other"]
