"""Tables for people, at the width there is.

A file or pipe gets every row on one line, for ``grep`` and ``cut``. On a terminal the widest
columns are folded first, and no number is: digits on two lines read as two numbers. Where that
leaves too little room for a table, each row becomes lines of ``column: value``. Widths are found by
hand, since rich folds whatever is wide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vim_deploy.text import printable

if TYPE_CHECKING:
    from rich.console import Console

#: Columns of a table that goes to a file or pipe, at most: each cell is padded to the widest, and
#: one name of a file of others must not make every row as long as itself.
_WIDTH_OF_FILES = 10_000
#: What a folded column keeps at least, as far as its text is as long.
_LEAST_WIDTH = 8
#: The same of the first column, which names the rows.
_LEAST_WIDTH_OF_NAMES = 24
#: A number with sign, exponent and unit sign; a word such as a SHA-256 is none and may be folded.
_NUMBER = re.compile(r"[-+(~<>=]*[0-9][0-9.,:x/]*(e[-+]?[0-9]+)?[%x),;]*", re.IGNORECASE)


def one_line(text: object) -> str:
    """``text`` fit to be shown, its line ends written out: a name cannot forge a row."""
    return printable(text).replace("\n", "\\n")


def table_text(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> str:
    """Title and table as the console would print them, without the last line end."""
    from rich.table import Table
    from rich.text import Text

    heads = [one_line(column) for column in columns]
    cells = [[one_line(cell) for cell in row] for row in rows]
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    # Frame: a line and a space on either side of each column.
    room = console.width - 3 * len(heads) - 1
    widths = _widths([heads, *cells], room)
    if widths is None:
        return "\n".join([one_line(title), *_as_records(heads, cells)])
    table = Table()
    for head, width in zip(heads, widths, strict=True):
        # As Text: names such as 'vim-deploy[rtx]' are not rich's markup.
        table.add_column(Text(head), overflow="fold", width=width)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    with console.capture() as capture:
        console.print(table)
    return f"{one_line(title)}\n{capture.get()}".rstrip("\n")


def _widths(lines: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Width of each column; None where ``room`` is too little to keep numbers whole."""
    from rich.cells import cell_len

    columns = list(zip(*lines, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    least = [
        max(
            min(width, _LEAST_WIDTH if index else _LEAST_WIDTH_OF_NAMES),
            *map(_longest_number, column),
        )
        for index, (width, column) in enumerate(zip(widths, columns, strict=True))
    ]
    if sum(least) > room:
        return None
    if widths[0] + sum(least[1:]) <= room:
        # Names of rows are folded last: they are looked for.
        least[0] = widths[0]
    # The widest columns come down together, so that short ones stay whole.
    most = min(max(widths), room)
    while sum(_capped(widths, least, most)) > room:
        most -= 1
    return _capped(widths, least, most)


def _capped(widths: Sequence[int], least: Sequence[int], most: int) -> list[int]:
    return [max(floor, min(width, most)) for width, floor in zip(widths, least, strict=True)]


def _longest_number(text: str) -> int:
    return max((len(word) for word in text.split() if _NUMBER.fullmatch(word)), default=0)


def _as_records(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    lines = []
    for row in cells:
        named = [f"{head}: {cell}" if head else cell for head, cell in zip(heads, row, strict=True)]
        lines += [f"  {'-' if index == 0 else ' '} {line}" for index, line in enumerate(named)]
    return lines
