"""How the fake's classes differ by version, refuse unknown names and record what is done."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

Release = tuple[int, int]
FIRST: Release = (0, 0)
LAST: Release = (99, 0)


@dataclass
class Fake:
    """State of one personality: what was called, and how it is to behave.

    Attributes:
        calls: ``("IBuilderConfig.set_flag", (flag,))``; a set attribute as ``("X.name=", (v,))``.
        creators: registered plugins by op type; a value is the path of their library.
        fail: what the builder does: ``""`` builds, ``"memory"`` runs out of memory, ``"none"``
            gives None without a word, ``"kill"`` ends the process by SIGKILL in the middle.
        ignore_types: build everything as float32, whatever was asked for (and say nothing).
        lose_plugins: leave plugin layers out of the engine.
        step_seconds: how long each of the builder's steps takes.
        missing_weights: names the refitter keeps asking for.
    """

    version: str
    release: Release
    module: ModuleType
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    creators: dict[str, str] = field(default_factory=dict)
    fail: str = ""
    ignore_types: bool = False
    lose_plugins: bool = False
    step_seconds: float = 0.0
    missing_weights: tuple[str, ...] = ()
    compute_capability: str = "9.0"

    def note(self, name: str, *arguments: Any) -> None:
        """Record a call."""
        self.calls.append((name, arguments))

    def names(self) -> list[str]:
        """Names of all calls, in order."""
        return [name for name, _ in self.calls]

    def arguments(self, name: str) -> list[tuple[Any, ...]]:
        """Arguments of every call of one name."""
        return [arguments for called, arguments in self.calls if called == name]


def only(since: Release = FIRST, until: Release = LAST) -> Callable[[Any], Any]:
    """Mark a class or method as being there from one release to before another."""

    def mark(member: Any) -> Any:
        member.span = (since, until)
        return member

    return mark


def attribute(
    default: Any = None, since: Release = FIRST, until: Release = LAST, *, settable: bool = True
) -> property:
    """A property that keeps what it is set to; setting is recorded by ``Base``."""
    key = f"_value_{id(object())}_{len(_KEYS)}"
    _KEYS.append(key)

    def get(self: Any) -> Any:
        return self.__dict__.get(key, default)

    def put(self: Any, value: Any) -> None:
        self.__dict__[key] = value

    get.span, get.key = (since, until), key  # type: ignore[attr-defined]
    return property(get, put if settable else None)


_KEYS: list[str] = []


class Base:
    """An object of the fake API: no attribute can be set that its class does not have."""

    fake: Fake

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            member = getattr(type(self), name, None)
            if not isinstance(member, property) or member.fset is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self.fake.note(f"{type(self).__name__}.{name}=", value)
        object.__setattr__(self, name, value)


def _span(member: Any) -> tuple[Release, Release]:
    holder = member.fget if isinstance(member, property) else member
    return getattr(holder, "span", (FIRST, LAST))


def _recorded(cls_name: str, function: FunctionType) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        type(self).fake.note(f"{cls_name}.{function.__name__}", *arguments, *named.values())
        return function(self, *arguments, **named)

    return call


def specialise(cls: type, fake: Fake) -> type | None:
    """``cls`` as it is in one release, or None when it is not there."""
    since, until = _span(cls)
    if not since <= fake.release < until:
        return None
    body: dict[str, Any] = {"fake": fake}
    for name, member in vars(cls).items():
        if name in ("__dict__", "__weakref__", "span"):
            continue
        first, end = _span(member)
        if not first <= fake.release < end:
            continue
        public = isinstance(member, FunctionType) and not name.startswith("_")
        body[name] = _recorded(cls.__name__, member) if public else member
    return type(cls.__name__, cls.__bases__, body)
