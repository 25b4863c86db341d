"""Changes of JSON and TOML that keep the form and change what it says.

The tree of the file is changed and written again, by ``json`` or by the small writer below, so that
a reader gets past the parser and meets what it did not expect: other types, depths and numbers.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz.cases import Mutation
from tests.fuzz.mutate_bytes import HOSTILE_NUMBERS, HOSTILE_TEXT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Stands for text that no value of Python is written as; replaced in the finished file.
_MARK = "@raw:{}@"
#: More levels than an interpreter's stack holds, more digits than int() takes, and so on.
_RAW = {
    "deep lists": "[" * 100_000 + "]" * 100_000,
    "open lists": "[" * 100_000,
    "digits": "9" * 5_000,
    "exponent": "1e999",
    "many digits": "0." + "3" * 5_000,
}
_RAW_JSON = {"NaN": "NaN", "infinity": "-Infinity", "half": '"\\ud800"', "escape": '"\\u001b[31m"'}
_RAW_TOML = {"NaN": "nan", "infinity": "-inf", "half": '"\\ud800"', "escape": '"\\u001b[31m"'}


def _places(tree: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Every (container, key or index) of the tree."""
    found = [] if found is None else found
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        found.append((tree, key))
        if isinstance(value, dict | list):
            _places(value, found)
    return found


def _drop(container: Any, key: Any, _: Random) -> None:
    del container[key]


def _other_type(container: Any, key: Any, generator: Random) -> None:
    value = container[key]
    others = [None, True, 7, -0.5, "x", [], {}, [None], {"x": None}, [value], {"x": value}]
    container[key] = generator.choice([each for each in others if type(each) is not type(value)])


def _number(container: Any, key: Any, generator: Random) -> None:
    container[key] = generator.choice((*HOSTILE_NUMBERS, -0.0, 1e-320, 1.7e308))


def _text(container: Any, key: Any, generator: Random) -> None:
    container[key] = generator.choice(HOSTILE_TEXT)


def _raw(container: Any, key: Any, generator: Random) -> None:
    container[key] = _MARK.format(generator.choice(sorted({**_RAW, **_RAW_JSON})))


def _empty(container: Any, key: Any, _: Random) -> None:
    container[key] = type(container[key])() if container[key] is not None else ""


def _length(container: Any, key: Any, generator: Random) -> None:
    value = container[key]
    if isinstance(value, list) and value:
        container[key] = generator.choice((value[:-1], [*value, value[0]], value * 100))
    elif isinstance(value, dict):
        value["surplus\x1b[31m"] = generator.choice(HOSTILE_NUMBERS)
    else:
        container[key] = str(value) * 100


def _key(container: Any, key: Any, generator: Random) -> None:
    if isinstance(container, dict):
        container[generator.choice(HOSTILE_TEXT)] = container.pop(key)


def _swap(container: Any, key: Any, generator: Random) -> None:
    other = generator.choice(
        list(container) if isinstance(container, dict) else range(len(container))
    )
    container[key], container[other] = container[other], container[key]


CHANGES = (_drop, _other_type, _number, _text, _raw, _empty, _length, _key, _swap)
Change = Callable[[Any, Any, Random], None]


def changed_tree(tree: Any, change: Change, generator: Random) -> Any:
    """The tree with ``change`` at one place; one in twenty times at its root."""
    root = {"root": copy.deepcopy(tree)}
    places = _places(root)
    container, key = places[0] if generator.random() < 0.05 else generator.choice(places)
    change(container, key, generator)
    return root.get("root", {})


def json_text(tree: Any) -> bytes:
    """As JSON, half surrogates as escapes, with the raw texts in place of their marks."""
    text = json.dumps(tree)
    for name, raw in (_RAW | _RAW_JSON).items():
        text = text.replace(f'"{_MARK.format(name)}"', raw)
    return text.encode()


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{json.dumps(str(key))} = {_toml_value(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    # TOML has no null.
    return '""' if value is None else json.dumps(value)


def toml_text(tree: Any) -> bytes:
    """As TOML, tables in one line."""
    table = tree if isinstance(tree, dict) else {"root": tree}
    rows = (f"{json.dumps(str(key))} = {_toml_value(value)}" for key, value in table.items())
    text = "\n".join(rows) + "\n"
    for name, raw in (_RAW | _RAW_TOML).items():
        text = text.replace(f'"{_MARK.format(name)}"', raw)
    return text.encode()


def _on(change: Change, read: Callable[[str], Any], write: Callable[[Any], bytes]) -> Any:
    def mutator(data: bytes, generator: Random) -> bytes:
        try:
            tree = read(data.decode())
        except (ValueError, RecursionError):
            return data  # an earlier change has made it something else
        return write(changed_tree(tree, change, generator))

    return mutator


def on_json(files: str = "*") -> tuple[Mutation, ...]:
    """Every change of a tree, on these JSON files."""
    return tuple(Mutation(_on(change, json.loads, json_text), files) for change in CHANGES)


def on_toml(files: str = "*") -> tuple[Mutation, ...]:
    """Every change of a tree, on these TOML files."""
    return tuple(Mutation(_on(change, tomllib.loads, toml_text), files) for change in CHANGES)
