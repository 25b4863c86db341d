"""One module makes the names of nodes out of pieces and takes them apart: ``vim_deploy.places``."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.source import Module, modules

#: Pieces of the grammar: a block's number, what stands around or behind ``mixer``, directions.
GRAMMAR = re.compile(r"block_(?:\d|%|\(|\[|\\|$)|mixer/|/mixer|\bfwd\b|\bbwd\b|fpn#|simfp_#")
HOME = "vim_deploy.places"


def texts(tree: ast.AST) -> list[tuple[str, int]]:
    """Literal text of the code and its lines, docstrings apart."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        (node.value, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_names_are_known_in_one_place(module: Module) -> None:
    found = [f"{module.path}:{line} {text!r}" for text, line in texts(module.tree)
             if GRAMMAR.search(text)]  # fmt: skip
    assert bool(found) == (module.name == HOME), f"ask {HOME}: {found}"


@pytest.mark.parametrize(
    "code",
    [
        're.compile(r"(block_\\d+)/.*")',
        'f"block_{number:02d}"',
        'name.startswith("mixer/x_proj/")',
        'f"{block}/mixer/{direction}"',
        '("fwd", "bwd")',
    ],
)
def test_the_rule_sees_what_it_is_there_for(code: str) -> None:
    assert any(GRAMMAR.search(text) for text, _ in texts(ast.parse(code)))
