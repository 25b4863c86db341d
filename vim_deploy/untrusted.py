"""JSON and TOML that somebody else wrote: bounded and finite.

Every file and every embedded text in one of these forms is read here, so that there is one answer
to what is accepted: at most ``max_bytes``, at most ``MAX_DEPTH`` levels deep, UTF-8 without half
surrogates, no NaN and no infinity, and numbers that a 64-bit machine knows. ``codec.decode`` then
turns the value into a frozen record.

What begins with ``read_`` raises the caller's own coded error, made by ``on_error`` from a sentence
that says what was found; ``parse_json`` and ``parse_toml`` raise ValueError with that sentence.
"""

from __future__ import annotations

import math
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import msgspec

from vim_deploy.codec import OnError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: A record is a few kilobytes; the labels of a large label set make it some hundred.
MAX_BYTES = 64 << 20
#: The deepest file of ours is 8 levels deep; the interpreter's own limit is far above this.
MAX_DEPTH = 64
#: A value takes some hundred bytes in memory, and two in the text. The largest text of ours is a
#: report with some ten thousand.
MAX_VALUES = 1_000_000
#: What ends a key or a value of TOML: between two of them there is no more than one.
_TOML_ENDS = re.compile(r"[\n={},\[\]]")


def read_bytes(path: Path, on_error: OnError, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The whole of a regular file; a pipe or a device is refused and never waited for."""
    try:
        # Without waiting for a pipe's other end.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise on_error("it is not a regular file")
            # One more than is there, to notice a file that grows.
            data = stream.read(min(found.st_size, max_bytes) + 1)
    except (OSError, ValueError) as error:
        raise on_error(getattr(error, "strerror", None) or str(error)) from error
    if len(data) > max_bytes:
        raise on_error(f"it has more than {max_bytes} bytes, which no such file has")
    return data


def read_text(path: Path, on_error: OnError, *, max_bytes: int = MAX_BYTES) -> str:
    """The whole of a UTF-8 text file, such as a list of class names."""
    try:
        return read_bytes(path, on_error, max_bytes=max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise on_error(f"not UTF-8 text: {error}") from error


def read_json(
    path: Path,
    on_error: OnError,
    *,
    max_bytes: int = MAX_BYTES,
    max_values: int = MAX_VALUES,
) -> Any:  # noqa: ANN401
    """The value of a JSON file."""
    try:
        return parse_json(read_bytes(path, on_error, max_bytes=max_bytes), max_values)
    except ValueError as error:
        raise on_error(str(error)) from error


def read_toml(path: Path, on_error: OnError, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The table of a TOML file."""
    try:
        return parse_toml(read_bytes(path, on_error, max_bytes=max_bytes))
    except ValueError as error:
        raise on_error(str(error)) from error


def parse_json(text: bytes | str, max_values: int = MAX_VALUES) -> Any:  # noqa: ANN401
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON of the kind described above; UnicodeDecodeError among them.
    """
    _require_bounded(text, max_values)
    try:
        value = msgspec.json.decode(text)
    except RecursionError as error:
        raise ValueError(f"it is more than {MAX_DEPTH} levels deep") from error
    require_plain(value)
    return value


def parse_toml(text: bytes | str) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        ValueError: it is no TOML of the kind described above.
    """
    _require_bounded(text)
    text = text if isinstance(text, str) else text.decode("utf-8")
    # The parser walks to every part of a dotted key from the top, in the square of its length.
    if any(part.count(".") > MAX_DEPTH for part in _TOML_ENDS.split(text)):
        raise ValueError(f"it is more than {MAX_DEPTH} levels deep")
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is more than {MAX_DEPTH} levels deep") from error
    except ValueError as error:
        raise ValueError(f"not valid TOML: {error}") from error
    require_plain(table)
    return table


def _require_bounded(text: bytes | str, max_values: int = MAX_VALUES) -> None:
    """ValueError for a text that is larger than a file may be, or would become much more."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes, which no such text has")
    # Those within texts are counted, too: none of ours has nearly as many.
    marks = (b",", b"[", b"{", b"\n") if isinstance(text, bytes) else (",", "[", "{", "\n")
    if sum(map(text.count, marks)) > max_values:  # type: ignore[arg-type]
        raise ValueError(f"it has more than {max_values} values, which no such text has")


def require_plain(value: Any) -> None:  # noqa: ANN401
    """ValueError for a value that is too deep or holds what JSON of ours never holds."""
    waiting: list[tuple[Any, int, str]] = [(value, 0, "it holds")]
    while waiting:
        item, depth, place = waiting.pop()
        if isinstance(item, dict | list):
            if depth == MAX_DEPTH:
                raise ValueError(f"it is more than {MAX_DEPTH} levels deep")
            if isinstance(item, list):
                waiting += [(part, depth + 1, place) for part in item]
            else:
                waiting += [(key, depth + 1, place) for key in item]
                waiting += [(part, depth + 1, f"{key!r} holds") for key, part in item.items()]
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"{place} {item}, which is no number to work with")
        elif isinstance(item, int) and not -(1 << 63) <= item < 1 << 64:
            raise ValueError(f"{place} a whole number that needs more than 64 bits")
        elif isinstance(item, str) and not _encodes(item):
            raise ValueError(f"{place} half of a surrogate pair, which is no character")
        elif item is not None and not isinstance(item, str | int | float):
            # TOML has dates and times, and no key of ours takes one.
            raise ValueError(f"{place} {item}, a {type(item).__name__}")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
