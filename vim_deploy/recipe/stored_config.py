"""The configuration that mmsegmentation stores in a checkpoint: Python source, never run.

Only assignments of literals, tuples, lists, dicts and ``dict(...)`` calls are read; everything else
in the source is passed over, and what depends on it has no value.
"""

from __future__ import annotations

import ast
from typing import Any

#: The longest official configuration has some ten kilobytes.
MAX_CHARACTERS = 1 << 20
#: Nesting of the source; deeper ones would exhaust the interpreter's stack.
_MAX_DEPTH = 50


class _Unknown(Exception):  # noqa: N818 - a signal inside this module, not an error
    """An expression that is not plain data."""


def read_assignments(source: str) -> dict[str, Any]:
    """Names and values of the plain assignments in ``source``; nothing for what does not parse."""
    if len(source) > MAX_CHARACTERS:
        return {}
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return {}
    values: dict[str, Any] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                values[statement.targets[0].id] = _value(statement.value, values, 0)
            except _Unknown:
                values.pop(statement.targets[0].id, None)
    return values


def _value(node: ast.expr, names: dict[str, Any], depth: int) -> Any:  # noqa: ANN401 - plain data
    if depth > _MAX_DEPTH:
        raise _Unknown
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Tuple | ast.List):
        return [_value(item, names, depth + 1) for item in node.elts]
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand, names, depth + 1)
        if isinstance(number, int | float):
            return -number
    if isinstance(node, ast.Dict):
        return _entries(
            [(None if key is None else _value(key, names, depth + 1)) for key in node.keys],
            node.values,
            names,
            depth,
        )
    is_dict = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    if is_dict and node.func.id == "dict" and not node.args:  # type: ignore[attr-defined]
        keywords = node.keywords  # type: ignore[attr-defined]
        return _entries(
            [item.arg for item in keywords], [item.value for item in keywords], names, depth
        )
    raise _Unknown


def _entries(
    keys: list[Any], nodes: list[ast.expr], names: dict[str, Any], depth: int
) -> dict[str, Any]:
    if not all(isinstance(key, str) for key in keys):
        raise _Unknown
    found = {}
    for key, node in zip(keys, nodes, strict=True):
        try:
            found[key] = _value(node, names, depth + 1)
        except _Unknown:
            # A part that is no data, such as a lambda in the training pipeline, is left out.
            continue
    return found
