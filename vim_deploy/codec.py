"""Frozen records to plain JSON values and back: the one codec of everything that is stored.

A record is a frozen dataclass. ``encode`` gives its fields in their order, tuples as lists, paths
as texts; ``decode`` compares every value with the field's annotation (msgspec does that, Literals
and nested records included) and builds the record, whose ``__post_init__`` says what its values
must be, alone and to each other. What a class stores otherwise, it says with ``stored``.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import operator
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath
from typing import Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from vim_deploy.errors import VimDeployError, nearest

Record = TypeVar("Record")
#: Makes the caller's coded error of a sentence that says what was found.
OnError = Callable[[str], VimDeployError]
#: The same for a key that the record does not have: its path (``image.mena``), and the nearest.
#: None leaves the key out.
OnUnknown = Callable[[str, str], VimDeployError | None]
#: Makes the caller's error of the coded one that a record's ``__post_init__`` raised.
OnOwn = Callable[[VimDeployError], VimDeployError]
#: A number as it was written: ``float`` would make 1.0 of 1, and another file of it.
Number: TypeAlias = int | float
#: A size, a count or a width: above 2^16 it is a mistake, not a model.
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
#: A number of bytes or things.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
#: A value of one colour channel.
Byte: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=255)]

#: What msgspec calls a type, and what people call it.
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "int | float": "a number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "object": "a table",
}
_PLACE = re.compile(r"(.*?)(?: in `[^`]*`)? - at `\$\.?(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_EXPECTED = re.compile(r"Expected `([^`]*)`(?:, got `([^`]*)`)?")


@dataclass(frozen=True, kw_only=True)
class stored:  # noqa: N801 - a decorator
    """Class decorator of a record whose stored form is not simply its fields.

    Args:
        head: constant entries in front, such as a format number; ``decode`` demands them.
        keys: names of fields and properties to store, in this order; ``decode`` reads the fields.
            ``key=place.block`` stores an attribute's attribute, and all under another name;
            ``*part`` stores the entries of a record in its place, none where it is None;
            ``decode`` gathers those that are its fields.
        also: properties to store behind the fields; as in ``keys``.
        without: fields that are not stored.
        sparse: what is left out where it is None, empty or false.
        blank: fields that are stored as an empty table where they are None.
        decimals: to which figures, or all of a mapping, are rounded.
        inner: the one field that is stored in the record's place, without its name.
        infinite: stands for infinite figures, which JSON has not.
        unread: a field that is not stored: where a later version's keys may be left out, the paths
            of those in the records below, for whoever needs the whole of one.
    """

    head: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    sparse: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()
    decimals: Mapping[str, int] = field(default_factory=dict)
    inner: str = ""
    infinite: float | None = math.inf
    unread: str = ""

    def __call__(self, kind: type[Record]) -> type[Record]:
        """Note how ``kind`` is stored."""
        _FORMS[kind] = self
        return kind

    def entries(self, record: Any) -> tuple[str, ...]:  # noqa: ANN401 - any of our dataclasses
        """What is stored, as in ``keys``."""
        return self.keys or (*(item.name for item in dataclasses.fields(record)), *self.also)

    def figure(self, key: str, value: Any) -> Any:  # noqa: ANN401 - plain values
        """``value`` as it stands under ``key``."""
        if key in self.blank and value is None:
            return {}
        if isinstance(value, dict) and key in self.decimals:
            return {name: round(item, self.decimals[key]) for name, item in value.items()}
        if not isinstance(value, float):
            return value
        if math.isinf(value):
            return self.infinite
        return round(value, self.decimals[key]) if key in self.decimals else value


_FORMS: dict[type, stored] = {}
_AS_IT_IS = stored()
#: Classes whose records are of one of several kinds, and what chooses the kind.
_CHOSEN: dict[type, Callable[[Mapping[str, Any]], type]] = {}


def chosen(choose: Callable[[Mapping[str, Any]], type]) -> Callable[[type[Record]], type[Record]]:
    """Class decorator of the base of several kinds of records.

    Args:
        choose: the kind that a stored mapping is of; ValueError for none, with a sentence.
    """

    def note(base: type[Record]) -> type[Record]:
        _CHOSEN[base] = choose
        return base

    return note


def encode(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any of our dataclasses
    """The stored form of a record: dicts, lists, texts, numbers, truth values and None.

    Of a record that is stored as its one field (``inner``) that field's value, which is a mapping.
    """
    plain: dict[str, Any] = _plain(record)
    return plain


def _plain(value: Any) -> Any:  # noqa: ANN401 - any field of a record
    if dataclasses.is_dataclass(value):
        return _of_record(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, VimDeployError):
        return value.as_dict()
    if isinstance(value, enum.Enum):
        return value.value
    return str(value) if isinstance(value, PurePath) else value


def _of_record(record: Any) -> Any:  # noqa: ANN401 - any of our dataclasses
    form = _FORMS.get(type(record), _AS_IT_IS)
    if form.inner:
        return _plain(getattr(record, form.inner))
    found = dict(form.head)
    for entry in form.entries(record):
        key, _, path = entry.partition("=")
        if key in (*form.without, form.unread):
            continue
        value = _plain(operator.attrgetter((path or key).removeprefix("*"))(record))
        if key.startswith("*"):
            found |= value or {}
        elif key not in form.sparse or not (value is False or value in (None, "", [], {})):
            found[key] = form.figure(key, value)
    return found


def decode(
    value: Any,  # noqa: ANN401 - parsed JSON or TOML
    record: type[Record],
    on_error: OnError,
    *,
    on_unknown: OnUnknown | None = None,
    on_own: OnOwn | None = None,
) -> Record:
    """``value``, as ``encode`` gives it and JSON or TOML brings it back, as a ``record``.

    Numbers are not made of texts nor whole ones of fractions; lists become the tuples that a
    record holds.

    Args:
        value: what was read.
        record: a dataclass.
        on_error: makes the error for what is no such record.
        on_unknown: makes the error for a key that the record does not have; None leaves such keys
            out, as a later version may add some.
        on_own: makes the error for a record's own coded one; None takes ``on_error`` with its text.
    """
    try:
        unfolded = _unfolded(value, record, "", on_unknown)
    except (_OtherKindError, RecursionError) as error:
        raise on_error(str(error)) from error
    except _OwnError as own:
        raise (on_own(own.error) if on_own else on_error(sentence(own.error))) from own.error
    try:
        return msgspec.convert(unfolded, record, dec_hook=_own_types)
    except (msgspec.ValidationError, RecursionError) as error:
        # In a file that people write the place comes first, and types have people's names.
        raise on_error(_told(str(error)) if on_unknown else str(error)) from error
    except VimDeployError as error:
        raise (on_own(error) if on_own else on_error(sentence(error))) from error
    except (ValueError, TypeError, KeyError) as error:
        raise on_error(f"{type(error).__name__}: {error}") from error


def _own_types(kind: type, value: Any) -> Any:  # noqa: ANN401
    """The types of our records that msgspec does not know."""
    if kind in _CHOSEN and isinstance(value, kind):
        return value
    if kind is not Path or not isinstance(value, str):
        raise TypeError(f"{kind.__name__} expected")
    return Path(value)


def sentence(error: VimDeployError) -> str:
    """What an error says, without its code, in one line."""
    return f"{error.message}: {error.why}" if error.why else error.message


def _told(text: str) -> str:
    """msgspec's sentence on a value, as ``image.mean[0]: expected a number, got text``."""
    found = _PLACE.fullmatch(text)
    said, place = (found[1], found[2]) if found else (text, "")
    expected = _EXPECTED.match(said)
    missing = _MISSING.match(said)
    if missing:
        return f"missing: {_below(place, missing[1])}"
    wanted = expected[1].removesuffix(" | null") if expected else ""
    if expected and wanted in _KINDS:
        kinds = [_KINDS.get(name, name) for name in (wanted, expected[2]) if name]
        said = f"expected {', got '.join(kinds)}{said[expected.end() :]}"
    return f"{place}: {said}" if place else said


class _OtherKindError(Exception):
    """Another kind of file, or another version of it."""


class _OwnError(Exception):
    """A coded error of a record's own, on its way out."""

    def __init__(self, error: VimDeployError) -> None:
        super().__init__(str(error))
        self.error = error


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _unfolded(value: Any, hint: Any, place: str, on_unknown: OnUnknown | None) -> Any:  # noqa: ANN401
    """``value`` with what ``stored`` changed changed back, and unknown keys refused."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _unfolded_record(value, hint, place, on_unknown)
    if isinstance(hint, type) and hint in _CHOSEN:
        return _of_chosen_kind(value, hint, place, on_unknown)
    arguments = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in arguments if dataclasses.is_dataclass(kind)]
        if value is None or len(kinds) != 1:
            return value
        return _unfolded(value, kinds[0], place, on_unknown)
    if isinstance(value, list) and arguments:
        items = arguments[:1] * len(value) if arguments[-1] in (..., arguments[0]) else arguments
        parts = enumerate(zip(value, items, strict=False))
        found = [_unfolded(part, item, f"{place}[{n}]", on_unknown) for n, (part, item) in parts]
        return found + value[len(items) :]
    if isinstance(value, Mapping) and len(arguments) == 2:
        return {
            key: _unfolded(item, arguments[1], _below(place, key), on_unknown)
            for key, item in value.items()
        }
    return value


def _of_chosen_kind(value: Any, base: type, place: str, on_unknown: OnUnknown | None) -> Any:  # noqa: ANN401
    """The record of the kind that ``value`` is of."""
    try:
        kind = _CHOSEN[base](value if isinstance(value, Mapping) else {})
    except ValueError as error:
        raise _OtherKindError(f"{place}: {error}" if place else str(error)) from error
    unfolded = _unfolded_record(value, kind, place, on_unknown)
    try:
        return msgspec.convert(unfolded, kind, dec_hook=_own_types)
    except msgspec.ValidationError as error:
        said = str(error)
        at = said.find(" - at `$")
        inner = f".{place}" if place else ""
        whole = (
            f"{said[:at]} - at `${inner}{said[at + 8 :]}" if at >= 0 else f"{said} - at `${inner}`"
        )
        raise _OtherKindError(_told(whole) if on_unknown else whole) from error
    except VimDeployError as error:
        raise _OwnError(error) from error
    except (ValueError, TypeError, KeyError) as error:
        raise _OtherKindError(f"{type(error).__name__}: {error}") from error


def _unfolded_record(value: Any, kind: type, place: str, on_unknown: OnUnknown | None) -> Any:  # noqa: ANN401
    form, hints = _FORMS.get(kind, _AS_IT_IS), _hints(kind)
    if form.inner:
        return {form.inner: _unfolded(value, hints[form.inner], place, on_unknown)}
    if not isinstance(value, Mapping):
        return value
    for key, expected in form.head.items():
        if value.get(key) != expected:
            said = f"{key} =" if on_unknown else f"its {key} is"
            raise _OtherKindError(f"{said} {value.get(key)!r}, expected {expected!r}")
    fields, parts = _fields(kind), _parts(kind)
    known = fields.union(form.keys, form.head, *parts.values())
    unknown = [key for key in value if key not in known]
    if on_unknown:
        for key in unknown:
            refusal = on_unknown(_below(place, key), nearest(str(key), known))
            if refusal is not None:
                raise refusal
    unread: list[str] = []
    if form.unread and on_unknown is None:
        on_unknown = _noting(unread)
    found = {
        key: _unfolded(item, hints[key], _below(place, key), on_unknown)
        for key, item in value.items()
        if key in fields and not (key in form.blank and item == {})
    }
    for part, keys in parts.items():
        inner = {key: item for key, item in value.items() if key in keys}
        found[part] = _unfolded(inner or None, hints[part], place, on_unknown)
    return {**found, form.unread: unread} if unread else found


def _noting(unread: list[str]) -> OnUnknown:
    def note(path: str, _: str) -> None:
        unread.append(path)

    return note


def _fields(kind: type) -> set[str]:
    """What of ``kind`` is stored under its own name."""
    form = _FORMS.get(kind, _AS_IT_IS)
    return {item.name for item in dataclasses.fields(kind)}.difference(form.without, (form.unread,))


@cache
def _parts(kind: type) -> dict[str, set[str]]:
    """The fields of ``kind`` whose entries are stored in its place (``*part``), and their keys."""
    form, hints = _FORMS.get(kind, _AS_IT_IS), _hints(kind)
    found = {}
    for name in (entry[1:] for entry in (*form.keys, *form.also) if entry.startswith("*")):
        hint = hints.get(name)
        for record in (hint, *get_args(hint)):
            if isinstance(record, type) and dataclasses.is_dataclass(record):
                found[name] = _fields(record)
    return found


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if place else str(key)
