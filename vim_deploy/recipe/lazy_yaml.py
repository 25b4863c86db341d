"""Configurations that detectron2's LazyConfig saves: YAML with Python tags and references, as data.

The file may be anybody's. No tag is obeyed: a tagged mapping or list is a plain one, and what would
become a Python object otherwise (``!!python/name``, ``!!python/object/apply``) is the text of its
tag, which no option that is exported takes. References (``${a.b}`` from the top, ``${.a}`` and
``${..a}`` from where they stand, as OmegaConf has them) are replaced by what they name; resolvers
such as ``${oc.env:HOME}`` are not run. Length, depth, the number of values and of steps of a
reference are bounded, aliases counted as often as they are used.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vim_deploy.codec import OnError
from vim_deploy.errors import missing_package
from vim_deploy.untrusted import read_text, require_plain

#: The longest of the official ones has eight kilobytes; the parser takes a second for this.
MAX_BYTES = 1 << 17
#: Levels, values, and references that lead to references.
_MAX_DEPTH, _MAX_VALUES, _MAX_STEPS = 32, 20_000, 16
#: The part of a training configuration that is exported; the rest is not looked at.
_MODEL = "model"
#: Tags that make a list of a list and a mapping of a mapping, whatever class they name.
_OBJECT = "tag:yaml.org,2002:python/object:"
_PLAIN_TAGS = (None, "!", "tag:yaml.org,2002:python/tuple", "tag:yaml.org,2002:python/list",
    "tag:yaml.org,2002:python/dict", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")  # fmt: skip
_TEXT_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:python/str")
_CORE, _SHORT = "tag:yaml.org,2002:", "!!"
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,19})")
_REAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]{1,3})?")
#: What PyYAML writes and reads of these.
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
#: A whole value that is one reference: dots for where it begins, and the names on the way.
_REFERENCE = re.compile(r"\$\{\s*(\.*)([A-Za-z_0-9.\[\]-]*)\s*\}")
_STEP = re.compile(r"[^.\[\]]+")


class _NotReadError(Exception):
    """The file is no configuration of this kind; its text says why."""


def read_lazy_config(path: Path, on_error: OnError) -> dict[str, Any]:
    """The values of a YAML file; of a whole training configuration ``{"model": ...}`` alone.

    Raises:
        VimDeployError: VIM-301 without PyYAML; the caller's error, made by ``on_error``, for a file
            that is no such configuration.
    """
    text = read_text(path, on_error, max_bytes=MAX_BYTES)
    if importlib.util.find_spec("yaml") is None:
        raise missing_package("pyyaml", "torch", f"reading {path}")
    try:
        value = _resolved(_Document(text).value())
        require_plain(value)
    except (_NotReadError, ValueError) as error:
        raise on_error(str(error)) from error
    return value


class _Document:
    """The one document of a YAML text, made of the parser's events."""

    def __init__(self, text: str) -> None:
        self._text = text
        #: What an anchor stands for, and how many values that is.
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0

    def value(self) -> dict[str, Any]:
        """What it holds."""
        import yaml

        try:
            # The parser in Python: that in C uses the stack of the process for deep texts.
            events = yaml.parse(self._text, Loader=yaml.SafeLoader)
            found = [self._node(event, events, 0) for event in _contents(events)]
        except yaml.YAMLError as error:
            # The first line says what, the marks below say where.
            lines = [line.strip() for line in str(error).splitlines()]
            raise _NotReadError(f"not valid YAML: {', '.join(lines)[:200]}") from error
        if len(found) != 1:
            raise _NotReadError(f"it holds {len(found)} documents, not one")
        if not isinstance(found[0], dict):
            raise _NotReadError(f"it holds {str(found[0])[:60]!r}, not a mapping")
        return found[0]

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Any:  # noqa: ANN401
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self._alias(event.anchor)
        self._take(1)
        before = self._count
        if kind == "ScalarEvent":
            value = _scalar(event)
        elif depth == _MAX_DEPTH:
            raise _NotReadError(f"it is more than {_MAX_DEPTH} levels deep")
        elif kind == "SequenceStartEvent":
            value = [self._node(item, events, depth + 1) for item in _until(events, "SequenceEnd")]
        else:
            value = self._mapping(events, depth + 1)
        if kind != "ScalarEvent" and not _is_plain(event.tag):
            value = _mark(event.tag)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, 1 + self._count - before
        return value

    def _mapping(self, events: Iterator[Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in _until(events, "MappingEnd"):
            key = self._node(event, events, depth)
            if isinstance(key, dict | list):
                raise _NotReadError("a key is a list or a mapping")
            name = event.value if type(event).__name__ == "ScalarEvent" else str(key)
            if name == "<<" or name in found:
                what = "is a merge key" if name == "<<" else "is there twice"
                raise _NotReadError(f"the key {name[:60]!r} {what}")
            found[name] = self._node(next(events), events, depth)
        return found

    def _alias(self, name: str) -> Any:  # noqa: ANN401 - any value
        if name not in self._anchors:
            raise _NotReadError(f"the alias *{name[:60]} stands for nothing, or for what it is in")
        value, count = self._anchors[name]
        self._take(count)
        return value

    def _take(self, count: int) -> None:
        self._count += count
        if self._count > _MAX_VALUES:
            raise _NotReadError(f"it has more than {_MAX_VALUES} values")


def _contents(events: Iterator[Any]) -> Iterator[Any]:
    """The first event of each document's value; the caller reads on to its end."""
    for event in events:
        if type(event).__name__ not in (
            "StreamStartEvent", "StreamEndEvent", "DocumentStartEvent", "DocumentEndEvent"
        ):  # fmt: skip
            yield event


def _until(events: Iterator[Any], end: str) -> Iterator[Any]:
    for event in events:
        if type(event).__name__ == f"{end}Event":
            return
        yield event


def _is_plain(tag: str | None) -> bool:
    return tag in _PLAIN_TAGS or (tag is not None and tag.startswith(_OBJECT))


def _mark(tag: str) -> str:
    """What stands for a value that is not made: the tag, as it is written."""
    return tag.replace(_CORE, _SHORT, 1)[:200]


def _scalar(event: Any) -> Any:  # noqa: ANN401 - an event of the parser, a plain value
    text: str = event.value
    if event.tag in _TEXT_TAGS or (event.tag in (None, "!") and not event.implicit[0]):
        return text
    if event.tag is not None and (not event.tag.startswith(_CORE) or "python/" in event.tag):
        return _mark(event.tag)
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _REAL.fullmatch(text) else text


def _resolved(root: dict[str, Any]) -> dict[str, Any]:
    """``root``, or its model alone, with every reference replaced by what it names."""
    if isinstance(root.get(_MODEL), dict):
        return {_MODEL: _Resolver(root).replaced(root[_MODEL], (_MODEL,))}
    replaced: dict[str, Any] = _Resolver(root).replaced(root, ())
    return replaced


class _Resolver:
    """References within ``root``; places are the names and numbers that lead to a value."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._count = 0

    def replaced(self, value: Any, place: tuple[str, ...], steps: int = 0) -> Any:  # noqa: ANN401
        """A copy of ``value``, which stands at ``place``."""
        self._count += 1
        if self._count > _MAX_VALUES or len(place) > _MAX_DEPTH:
            raise _NotReadError("its references make more values, or deeper ones, than are read")
        if isinstance(value, dict):
            return {key: self.replaced(item, (*place, key), steps) for key, item in value.items()}
        if isinstance(value, list):
            return [
                self.replaced(item, (*place, str(index)), steps) for index, item in enumerate(value)
            ]
        found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            return value
        if steps == _MAX_STEPS:
            raise _NotReadError(f"{value[:60]} at {'.'.join(place)[:120]} leads back to itself")
        dots, names = found.groups()
        # One dot is the mapping or list that the reference stands in, each more the one around it.
        base = place[: len(place) - len(dots)] if dots else ()
        target = (*base, *_STEP.findall(names))
        if len(dots) > len(place) or not names:
            raise _missing(value, place)
        return self.replaced(self._at(target, value, place, steps), target, steps + 1)

    def _at(
        self, target: tuple[str, ...], reference: str, place: tuple[str, ...], steps: int
    ) -> Any:  # noqa: ANN401
        """The value at ``target``; on the way there may be references, too."""
        value: Any = self._root
        for depth, name in enumerate(target):
            if isinstance(value, str):
                value = self.replaced(value, target[:depth], steps + 1)
            if isinstance(value, dict) and name in value:
                value = value[name]
            elif isinstance(value, list) and name.isdecimal() and int(name[:9]) < len(value):
                value = value[int(name)]
            else:
                raise _missing(reference, place)
        return value


def _missing(reference: str, place: tuple[str, ...]) -> _NotReadError:
    return _NotReadError(f"{reference[:60]} at {'.'.join(place)[:120]} names nothing in the file")
