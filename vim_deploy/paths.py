"""Paths as callers of Python give them: text, ``pathlib``, anything with ``__fspath__``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias, overload

from vim_deploy.errors import VimDeployError

#: What callers may name a file by, as for ``open``; bytes are no text and are refused.
StrPath: TypeAlias = str | os.PathLike[str]


def as_text(value: object, name: str) -> str:
    """A path or an address, such as ``hf://owner/name``, as text; VIM-202 for anything else."""
    try:
        text = os.fspath(value)  # type: ignore[call-overload]
    except TypeError:
        text = value
    if isinstance(text, str):
        return text
    raise VimDeployError(
        "VIM-202",
        f"{name} is no path",
        why=f"found {type(value).__name__}",
        fix="give a str or a pathlib.Path; os.fsdecode makes one of bytes",
    )


def as_path(value: object, name: str) -> Path:
    """``as_text`` as a path; VIM-202 for an empty text, too, which would be this folder."""
    text = as_text(value, name)
    if not text:
        raise VimDeployError("VIM-202", f"{name} is empty", fix="give a path, or . for this folder")
    return Path(text)


def several(value: object) -> list[Any]:
    """Several things as they come; a path, or what nobody can go through, as the one of a list."""
    if isinstance(value, str | bytes | os.PathLike) or not isinstance(value, Iterable):
        return [value]
    return [*value]


def optional_path(value: object, name: str) -> Path | None:
    """``as_path``, and None for None."""
    return None if value is None else as_path(value, name)


class OptionalPath:
    """A field of a frozen record: takes what ``as_path`` takes, or None, and holds a Path or None.

    A dataclass takes the default from the descriptor, and type checkers take what may be given
    from ``__set__`` and what is held from ``__get__``.
    """

    def __set_name__(self, _record: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, record: None, _kind: type) -> None: ...

    @overload
    def __get__(self, record: object, _kind: type) -> Path | None: ...

    def __get__(self, record: object | None, _kind: type) -> Path | None:
        held: Path | None = None if record is None else record.__dict__[self._name]
        return held

    def __set__(self, record: object, value: StrPath | None) -> None:
        record.__dict__[self._name] = optional_path(value, self._name)
