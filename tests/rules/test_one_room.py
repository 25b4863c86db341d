"""One fact, one room: what a file is, is told apart in ``artifact`` and nowhere else."""

from __future__ import annotations

import ast
from typing import get_args

from tests.support.source import modules
from vim_deploy.packaging.repository import ONNXRUNTIME, PYTHON, TENSORRT
from vim_deploy.plugin.describe import INTERFACES
from vim_deploy.runtimes.building.request import HARDWARE_LEVELS
from vim_deploy.specs import Backend, Generation, HardwareCompat

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


def listed_choices(tree: ast.AST) -> list[int]:
    """Lines on which an option lists its values itself."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Choice")
        if any(isinstance(argument, ast.List | ast.Tuple) for argument in node.args[:1])
        and not any(isinstance(item, ast.Starred) for item in node.args[0].elts)  # type: ignore[attr-defined]
    ]


def test_options_ask_for_their_values() -> None:
    # The log's form is the command line's own.
    found = {module.name: lines for module in modules() if (lines := listed_choices(module.tree))}
    assert list(found) == ["vim_deploy.cli.output"]
    assert len(found["vim_deploy.cli.output"]) == 1


def test_tables_are_of_the_values_that_options_offer() -> None:
    assert tuple(HARDWARE_LEVELS) == get_args(HardwareCompat)
    assert tuple(INTERFACES) == get_args(Generation)
    assert get_args(Backend) == (TENSORRT, ONNXRUNTIME, PYTHON)


def test_the_rules_can_fail() -> None:
    assert listed_choices(ast.parse('click.option("-a", type=click.Choice(["a", "b"]))')) == [1]
    assert not listed_choices(ast.parse("click.Choice([AUTO, *NAMES])"))
    assert compared(ast.parse('x = path.suffix in (".onnx", ".npz")')) == {".onnx"}
