"""A document as Markdown (GitHub's): the tables and facts; figures are their text alternative."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vim_deploy.report.document import (
    Code,
    Document,
    Facts,
    Figure,
    Item,
    Items,
    Section,
    Table,
    Text,
)
from vim_deploy.text import printable

#: Characters with a meaning in Markdown or HTML, wherever they stand in a line.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~&$@])")
#: The same for those that have one only at the beginning of a line.
_LEADING = re.compile(r"^(\s*)([#+\-=!]|\d+[.)](?=\s|$))")
#: Addresses become links by themselves.
_ADDRESS = re.compile(r"(https?|ftp)://|www\.", re.IGNORECASE)


def markdown(document: Document) -> str:
    """The whole document."""
    verdict = {True: "passed", False: "failed", None: ""}[document.passed]
    lines = [f"# {escaped(document.title)}", ""]
    if verdict:
        lines += [f"**{verdict}**", ""]
    for sentence in document.verdict:
        lines += [escaped(sentence), ""]
    lines += [escaped(document.made_by), ""]
    for section in document.filled():
        lines += _section(section)
    return "\n".join(lines)


def escaped(text: str) -> str:
    """One line of ``text`` that shows every character as it is."""
    line = _SPECIAL.sub(r"\\\1", printable(text).replace("\n", " "))
    line = _ADDRESS.sub(
        lambda found: found.group().replace(":", "&#58;").replace(".", "&#46;"), line
    )
    return _LEADING.sub(_leading, line)


def _leading(found: re.Match[str]) -> str:
    space, sign = found.groups()
    # A number before a dot would begin a list: the sign behind it is what is escaped.
    return f"{space}\\{sign}" if len(sign) == 1 else f"{space}{sign[:-1]}\\{sign[-1]}"


def code_block(text: str) -> list[str]:
    """``text`` in a fence that nothing in it can close."""
    text = printable(text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return [fence, text, fence, ""]


def _section(section: Section) -> Iterator[str]:
    yield from (f"## {escaped(section.title)}", "")
    for item in section.items:
        yield from _item(item)


def _item(item: Item) -> Sequence[str]:
    if isinstance(item, Text):
        return [escaped(item.text), ""]
    if isinstance(item, Items):
        return [*(f"- {escaped(text)}" for text in item.items), ""]
    if isinstance(item, Facts):
        return [*(f"- {escaped(name)}: {escaped(value)}" for name, value in item.items), ""]
    if isinstance(item, Code):
        return code_block(item.text)
    if isinstance(item, Figure):
        return [f"*{escaped(item.title)}.* {escaped(item.alt)}", ""]
    return _table(item)


def _table(table: Table) -> list[str]:
    columns = [escaped(column) or " " for column in table.columns]
    rule = [":--" if index in table.words else "--:" for index in range(len(columns))]
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return [
        f"**{escaped(table.caption)}**",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows)),
        "",
    ]


def _cell(text: str) -> str:
    """A cell; a number keeps its sign."""
    return printable(text) if re.fullmatch(r"[-+]?[\d.e%() -]*", text) else escaped(text)
