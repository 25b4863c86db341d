"""Reading values of official configurations: each is what is expected, or an error names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vim_deploy.errors import VimDeployError, nearest


def as_list(value: object, where: str) -> list[Any]:
    """A list; VIM-408 for anything else."""
    if not isinstance(value, list | tuple):
        raise refuse(f"{where} = {value!r}", "a list")
    return list(value)


def whole(values: Mapping[str, Any], name: str) -> int:
    """A whole number from 1; VIM-408 for anything else."""
    value = values[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise refuse(f"{name} = {value!r}", "a whole number from 1")
    return value


def class_name(name: object) -> str:
    """A class's own name, without the modules or the scope in front."""
    return str(name).rpartition(".")[2]


def require_type(values: Mapping[str, Any], expected: str) -> None:
    """VIM-408 unless the class that ``type`` or ``_target_`` names, if any, is ``expected``."""
    found = values.get("type", values.get("_target_", expected))
    if class_name(found) != expected:
        raise refuse(f"type {found!r} where {expected} is expected", expected)


def known(values: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    """VIM-201 with the nearest name for an option that is none of ``names``."""
    for name in values:
        if name not in names:
            raise VimDeployError(
                "VIM-201", f"unknown model option {where}.{name}", fix=nearest(str(name), names)
            )


def table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The keywords under ``name``; VIM-408 for anything else."""
    found = values[name]
    if not isinstance(found, Mapping):
        raise refuse(f"{name} = {found!r} is not a table of keywords", "an object")
    return found


def refuse(message: str, fix: str) -> VimDeployError:
    """VIM-408: what is described cannot be exported."""
    return VimDeployError("VIM-408", f"dense model: {message}", fix=fix)
