"""Docstrings as the reference's reader takes them: one name an item."""

from __future__ import annotations

import re

_SECTION = re.compile(r"^(?:Args|Attributes):$")
_ITEM = re.compile(r"^(    )(\w+(?:, \w+)+)(: .*)$")


def one_name_each(text: str) -> str:
    """A docstring in which ``a, b: text`` is two items with the same text.

    Lines of such an item that go on are deeper, and go with each of its names.
    """
    done: list[str] = []
    names: list[str] = []
    item: list[str] = []
    within = False
    for line in [*text.splitlines(), ""]:
        if names and not line.startswith("     "):
            done += [part for name in names for part in (f"    {name}{item[0]}", *item[1:])]
            names = []
        within = bool(_SECTION.match(line)) or (within and (line.startswith(" ") or not line))
        found = _ITEM.match(line) if within else None
        if found:
            names, item = found[2].split(", "), [found[3]]
        elif names:
            item.append(line)
        else:
            done.append(line)
    return "\n".join(done[:-1])
