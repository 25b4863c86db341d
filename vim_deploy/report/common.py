"""Sections that every report has: what it ran on, notes, the command to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vim_deploy.report.document import Code, Facts, Item, Items, Section, Text
from vim_deploy.report.text import number, size_of

_BYTES = "_bytes"


def made_by(value: Mapping[str, Any]) -> str:
    """Tool and, where it is known, date."""
    environment = value.get("environment") or {}
    state = value.get("state") or environment.get("state") or {}
    date = state.get("date")
    tool = str(value.get("tool", "vim-deploy"))
    return f"{tool}, {date}" if date else tool


def notes_section(notes: Sequence[str]) -> Section:
    """What a reader has to know."""
    return Section("notes", "Notes", [Items([str(note) for note in notes])] if notes else [])


def environment_section(environment: Mapping[str, Any] | None) -> Section:
    """Machine, software and their state, from ``bench.environment``."""
    items: list[Item] = []
    if environment:
        state = dict(environment["state"])
        versions = state.pop("versions", {})
        items.append(Facts([*record_facts(environment["machine"]), *record_facts(state)], True))
        items.append(Text("Versions:"))
        items.append(Facts([(name, str(version)) for name, version in versions.items()], True))
    return Section("environment", "Machine and versions", items)


def command_section(command: Sequence[str]) -> Section:
    """How to repeat the run."""
    items = [Code(shlex.join(command))] if command else []
    return Section("command", "Command", items)


def record_facts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of a record for people; what is not known is left out."""
    for key, value in values.items():
        if value is None or value == {} or value == []:
            continue
        name = key.removesuffix(_BYTES).replace("_", " ")
        yield name, size_of(value) if key.endswith(_BYTES) else _plain(value)


def _plain(value: object) -> str:
    """A value of the record for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "-" if value is None else str(value)
