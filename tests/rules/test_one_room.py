"""One fact, one room: what a file is, is told apart in ``artifact`` and nowhere else."""

from __future__ import annotations

import ast

from tests.support.source import modules

#: Suffixes and first bytes that tell kinds of files apart.
_KINDS = {".onnx", ".plan", ".engine", ".pth", ".safetensors", b"ftrt", b"vtrt", b"PK\x03\x04"}
#: Whose names are not of exported files: weights of the hub, and archives inside a checkpoint.
_OTHERS = ("vim_deploy.model.", "vim_deploy.recipe.")


def raisers(code: str) -> list[str]:
    """Modules that make an error of ``code``."""
    return [
        module.name
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        for argument in node.args[:1]
        if isinstance(argument, ast.Constant) and argument.value == code
    ]


def test_a_file_that_says_nothing_is_refused_in_one_place() -> None:
    assert raisers("VIM-410") == ["vim_deploy.artifact.metadata"]


def compared(tree: ast.AST) -> set[str | bytes]:
    """Suffixes and first bytes that ``tree`` compares something with."""
    return {
        item.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for item in ast.walk(node)
        if isinstance(item, ast.Constant) and isinstance(item.value, str | bytes)
    } & _KINDS


def test_kinds_of_files_are_told_apart_in_one_room() -> None:
    for module in modules():
        if module.name.startswith(("vim_deploy.artifact.", *_OTHERS)):
            continue
        assert not compared(module.tree), module.name


def test_the_rules_can_fail() -> None:
    assert compared(ast.parse('x = path.suffix in (".onnx", ".npz")')) == {".onnx"}
