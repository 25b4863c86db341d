"""Our own classes say what they have; nobody asks with ``getattr``, ``hasattr`` or by class."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.support.source import Module, modules

#: Modules, or beginnings of their names, that ask objects of others, and whose.
FOREIGN = {
    "vim_deploy.artifact.onnx_file": "protobuf messages, whose fields have a getter each",
    "vim_deploy.bench.environment": "os, which differs between systems",
    "vim_deploy.cli.streams": "sys and its streams, which a caller may have replaced or taken",
    "vim_deploy.cuda.device_view": "arrays of other libraries",
    "vim_deploy.families.vim.network.": "layers that a configuration may leave out, by their names",
    "vim_deploy.files": "os and its errors",
    "vim_deploy.folders": "os, which differs between systems",
    "vim_deploy.image_bounds": "Pillow's pictures, whose decoders differ",
    "vim_deploy.interrupts": "the import system and signals, which differ between systems",
    "vim_deploy.report.write": "values of jinja2's templates, of any class",
    "vim_deploy.runtimes.building.compiler": "parser errors of TensorRT, whose releases differ",
    "vim_deploy.runtimes.tensorrt.": "TensorRT, whose releases differ; arrays of others",
    "vim_deploy.runtimes.tensorrt_rtx.": "TensorRT-RTX, whose releases differ",
    "vim_deploy.untrusted": "os and its errors",
}


def asked(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines that ask an object whether it has something, or whether it is some runner.

    ``getattr`` of a computed name without a default reads fields, whose names are known.
    """
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        name, given = node.func.id, node.args
        if name == "hasattr" or (
            name == "getattr" and (len(given) == 3 or isinstance(given[1], ast.Constant))
        ):
            yield node.lineno, ast.unparse(node)
        if name in ("isinstance", "issubclass") and "Runner" in ast.unparse(given[1]):
            yield node.lineno, ast.unparse(node)


def is_foreign(module: Module) -> bool:
    return any(
        module.name == place or (place.endswith(".") and module.name.startswith(place))
        for place in FOREIGN
    )


def test_own_classes_are_not_probed() -> None:
    for module in modules():
        for line, text in asked(module.tree):
            allowed = is_foreign(module) and text.partition("(")[0] in ("getattr", "hasattr")
            assert allowed, f"{module.path}:{line} {text}: give the class what is asked for"


def test_the_rule_can_fail() -> None:
    tree = ast.parse(
        "getattr(runner, 'parts', None)\nhasattr(runner, 'close')\ngetattr(record, field.name)\n"
        "isinstance(runner, TrtRunner)\nisinstance(size, int)\n"
    )
    assert [line for line, _ in asked(tree)] == [1, 2, 4]
