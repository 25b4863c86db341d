"""The classes of a TensorRT module, and how those of a fake differ from them.

``python -m tests.support.tensorrt_api MODULE`` prints them as JSON. A method's parameters are read
off its docstring, where pybind11 writes one signature for each overload; a parameter without a
name there is ``""``.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any

#: Attributes of fakes that lead to what they record.
_OF_FAKES = ("fake", "state")
#: Class -> member -> what it is: ``{"kind": "enum"}``, ``{"kind": "property", "set": bool}``,
#: ``{"kind": "method", "overloads": [[[name, optional], ...], ...]}``, ``{"kind": "value"}``.
Api = dict[str, dict[str, dict[str, Any]]]


def api_of(module: ModuleType) -> Api:
    """Public classes of a module made by pybind11."""
    classes = {name: item for name, item in vars(module).items() if inspect.isclass(item)}
    return {
        name: {key: _member(item, key) for key in dir(item) if is_public(key)}
        for name, item in sorted(classes.items())
        if not name.startswith("_")
    }


def is_public(name: str) -> bool:
    return name == "__init__" or not name.startswith("_")


def _member(owner: type, name: str) -> dict[str, Any]:
    if name in getattr(owner, "__members__", ()):
        return {"kind": "enum"}
    found = inspect.getattr_static(owner, name)
    if isinstance(found, property):
        return {"kind": "property", "set": found.fset is not None}
    value = getattr(owner, name)
    if not callable(value):
        return {"kind": "value"}
    lines = (line.strip() for line in (value.__doc__ or "").splitlines())
    texts = [re.sub(r"^\d+\. ", "", line) for line in lines]
    signatures = [text for text in texts if text.startswith(f"{name}(self")]
    return {"kind": "method", "overloads": [parameters(text) for text in signatures]}


def parameters(signature: str) -> list[tuple[str, bool]]:
    """Name and optionality of each parameter of ``name(self: X, flag: Y = 3) -> None``."""
    parts, depth, quote = [""], 0, ""
    for letter in signature[signature.index("(") :]:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{<":
            depth += 1
            if depth == 1:
                continue
        elif letter in ")]}>":
            depth -= 1
            if depth == 0:
                break
        elif letter == "," and depth == 1:
            parts.append("")
            continue
        parts[-1] += letter
    found = []
    for part in parts[1:]:
        name, _, kind = part.strip().partition(":")
        found.append(("" if re.fullmatch(r"arg\d+", name) else name, "=" in kind))
    return found


def fake_parameters(function: FunctionType) -> list[tuple[str, bool]]:
    """The same of a method that is written in Python."""
    own = list(inspect.signature(function).parameters.values())[1:]
    assert all(item.kind is item.POSITIONAL_OR_KEYWORD for item in own), function
    return [(item.name, item.default is not item.empty) for item in own]


def takes(real: Iterable[tuple[str, bool]], fake: list[tuple[str, bool]]) -> bool:
    """Whether every call that a fake's method takes is one for this overload."""
    real = list(map(tuple, real))
    if len(fake) > len(real) or not all(optional for _, optional in real[len(fake) :]):
        return False
    return all(
        name == own and (optional or not own_optional)
        for (name, optional), (own, own_optional) in zip(real, fake, strict=False)
        if name
    )


def differences(fake: type, real: Mapping[str, Any] | None) -> list[str]:
    """What a fake class offers that the real one does not, in words."""
    if real is None:
        return ["there is no such class"]
    found = []
    for name in filter(is_public, dir(fake)):
        own, there = inspect.getattr_static(fake, name), real.get(name)
        made_by_hand = isinstance(own, FunctionType) and there and there["overloads"]
        # A class that only TensorRT makes has no constructor of its own.
        if name in _OF_FAKES or (name == "__init__" and not made_by_hand):
            continue
        if there is None:
            found.append(f"{name}: not there")
        elif isinstance(own, property):
            if there["kind"] != "property":
                found.append(f"{name}: a {there['kind']}, not a property")
            elif own.fset is not None and not there["set"]:
                found.append(f"{name}: cannot be set")
        elif isinstance(own, FunctionType):
            mine = fake_parameters(own)
            if not any(takes(item, mine) for item in there.get("overloads", ())):
                found.append(f"{name}{mine}: it takes {there.get('overloads', there['kind'])}")
    return found


def main() -> None:
    """Print the classes of the module that is named."""
    json.dump(api_of(importlib.import_module(sys.argv[1])), sys.stdout)


if __name__ == "__main__":
    main()
