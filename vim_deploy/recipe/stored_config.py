"""The configuration that mmsegmentation stores in a checkpoint: Python source, never run.

Only assignments of literals, tuples, lists, dicts and ``dict(...)`` calls are read; everything else
in the source is passed over, and what depends on it has no value. The source comes with the weights
and may be anybody's, so its length, its nesting and the size of what is read from it are limited.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Sequence
from typing import Any

from vim_deploy.threads import no_warnings
from vim_deploy.untrusted import require_plain

#: The longest official configuration has some ten kilobytes.
MAX_CHARACTERS = 1 << 18
#: And in one line: of a line of n characters the early releases of Python 3.12 split each word in a
#: time that grows with n.
MAX_LINE = 1 << 15
#: Values that are read; names that stand for others count as often as they are used.
MAX_VALUES = 20_000
#: Open brackets, and words between two commas or lines. Python's parser recurses with both, in
#: older versions as far as the stack goes and beyond.
_MAX_BRACKETS = 40
_MAX_WORDS = 60
_SKIPPED = (tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.NL)
_PLAIN = (str, int, float, bool, type(None))


class _Unknown(Exception):  # noqa: N818 - a signal inside this module, not an error
    """An expression that is not plain data."""


class _TooLarge(Exception):  # noqa: N818 - a signal inside this module, not an error
    """More values than a configuration has."""


def read_assignments(source: str) -> dict[str, Any]:
    """Names and values of the plain assignments in ``source``; nothing for what does not parse."""
    # Python 3.12 and later print warnings on what they parse, with the source's own characters.
    with no_warnings():
        if _is_long(source) or not _is_plain(source) or not _is_shallow(source):
            return {}
        try:
            tree = ast.parse(source)
            return _Reader().read(tree.body)
        except (SyntaxError, ValueError, MemoryError, RecursionError, _TooLarge):
            return {}


def _is_long(source: str) -> bool:
    # Lines as the tokenizer has them, which ends none at a form feed.
    return len(source) > MAX_CHARACTERS or max(map(len, source.split("\n"))) > MAX_LINE


def _is_plain(value: object) -> bool:
    """Whether JSON could hold ``value``: half surrogates and infinite numbers are no data."""
    try:
        require_plain(value)
    except ValueError:
        return False
    return True


def _is_shallow(source: str) -> bool:
    """Whether parsing ``source`` needs little stack, as far as its words tell."""
    brackets = words = branches = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.STRING:
                prefix = token.string.partition(token.string[-1])[0]
                # What is in the braces of an f-string is parsed, too.
                words += len(token.string) if "f" in prefix.lower() else 0
            elif token.type not in _SKIPPED:
                words += 1
            if token.type == tokenize.NEWLINE or token.string == ",":
                words = 0
            elif token.string in ("(", "[", "{"):
                brackets, words = brackets + 1, 0
            elif token.string in (")", "]", "}"):
                brackets -= 1
            # Every elif is nested in the one before it.
            branches += token.string == "elif"
            if max(brackets, branches) > _MAX_BRACKETS or words > _MAX_WORDS:
                return False
    except (SyntaxError, tokenize.TokenError):
        # IndentationError is a SyntaxError; what cannot be split cannot be parsed either.
        return False
    return True


class _Reader:
    """The values of plain assignments, counted."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}
        self._count = 0

    def read(self, statements: Sequence[ast.stmt]) -> dict[str, Any]:
        for statement in statements:
            if not isinstance(statement, ast.Assign):
                continue
            targets = [name.id for name in statement.targets if isinstance(name, ast.Name)]
            if len(targets) != len(statement.targets):
                continue
            try:
                value = self._value(statement.value)
            except _Unknown:
                # What the name stood for before is gone, too.
                for name in targets:
                    self._names.pop(name, None)
            else:
                self._names.update(dict.fromkeys(targets, value))
        return self._names

    def _value(self, node: ast.expr | None) -> Any:  # noqa: ANN401 - plain data
        self._take()
        if isinstance(node, ast.Constant) and isinstance(node.value, _PLAIN):
            if not _is_plain(node.value):
                raise _Unknown
            return node.value
        if isinstance(node, ast.Tuple | ast.List):
            return [self._value(item) for item in node.elts]
        if isinstance(node, ast.Name) and node.id in self._names:
            return self._copy(self._names[node.id])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self._value(node.operand)
            if isinstance(number, int | float) and not isinstance(number, bool):
                return -number
        if isinstance(node, ast.Dict):
            return self._entries([self._key(key) for key in node.keys], node.values)
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if is_call and node.func.id == "dict" and not node.args:  # type: ignore[union-attr]
            keywords = node.keywords  # type: ignore[union-attr]
            return self._entries([item.arg for item in keywords], [item.value for item in keywords])
        raise _Unknown

    def _key(self, node: ast.expr | None) -> Any:  # noqa: ANN401 - plain data
        # None stands for a "**" before another dict, whose entries are not looked into.
        return None if node is None else self._value(node)

    def _entries(self, keys: Sequence[Any], nodes: Sequence[ast.expr]) -> dict[str, Any]:
        if not all(isinstance(key, str) for key in keys):
            raise _Unknown
        found = {}
        for key, node in zip(keys, nodes, strict=True):
            try:
                found[key] = self._value(node)
            except _Unknown:
                # A part that is no data, such as a lambda in the training pipeline, is left out.
                found.pop(key, None)
        return found

    def _copy(self, value: Any) -> Any:  # noqa: ANN401 - plain data
        """A copy that is counted: names that double what they name grow fast."""
        self._take()
        if isinstance(value, list):
            return [self._copy(item) for item in value]
        if isinstance(value, dict):
            return {key: self._copy(item) for key, item in value.items()}
        return value

    def _take(self) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            raise _TooLarge
