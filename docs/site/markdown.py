"""Markdown as GitHub reads it: fences, links, headings; and the same text for Python-Markdown.

Pages are written for GitHub's view of the repository. The site's generator reads another dialect:
lists nest by four columns, a list or a table begins after an empty line, and a ``#`` at the start
of a ``console`` block is a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

FENCE = re.compile(r"^(`{3,}|~{3,})\s*(\w*)")
HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
#: First line of a block that cannot run everywhere; what follows is what it takes.
NEEDS = "# needs "
_ITEM = re.compile(r"^( *)([-*+]|\d+[.)])( +)(?=\S)")
#: An error's code that is no part of a link or heading, also between backquotes; code between
#: backquotes within one paragraph; the end of a link or picture with its target, and all of a link
#: whose text is a page's name.
_CODE_OR_LINK = re.compile(
    r"(?<![\w\[`/#-])(?P<error>VIM-\d{3,4}|`VIM-\d{3,4}`)(?![\w\]`:-])|"
    r"(?P<ticks>`+)(?:(?!\n\s*\n).)*?(?<!`)(?P=ticks)(?!`)"
    r"|(?:\[(?P<named>[\w./-]+\.md)\]|\])\((?P<target>[^)\s]+)(?P<title>(?:\s[^)]*)?)\)",
    re.DOTALL,
)
#: A picture alone on its line becomes a link to itself: a phone is too narrow for a figure.
_PICTURE = re.compile(r"^(!\[[^\]]*\]\(([^)\s]+)\))$")
_ERROR = re.compile(r"^(VIM-\d+): ")
_COLUMNS = 4


def slug(heading: str, _: str = "-") -> str:
    """The name that ``#...`` points to, as GitHub makes it of a heading.

    Args:
        heading: its text.
        _: what stands for a space, from Python-Markdown; it is never another.
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def slugs() -> Callable[[str, str], str]:
    """``slug``, for the generator, which asks for the function and keeps it as a pickle."""
    return slug


def error_anchor(heading: str) -> str | None:
    """``vim-401`` for the heading of an error's entry, None for any other."""
    found = _ERROR.match(heading)
    return found and found[1].lower()


def split_fences(text: str) -> Iterator[tuple[bool, list[str]]]:
    """Runs of lines, and whether each is a fenced block, with its fences.

    Raises:
        ValueError: a block is not closed.
    """
    fence, run, start = "", list[str](), 0
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line.strip())
        if fence:
            run.append(line)
            if match and match[1].startswith(fence) and not match[2]:
                yield True, run
                fence, run = "", []
        elif match:
            yield False, run
            fence, run, start = match[1], [line], number
        else:
            run.append(line)
    if fence:
        raise ValueError(f"a block that begins in line {start} is not closed")
    yield False, run


def headings(text: str) -> Iterator[tuple[int, str]]:
    """Level and text of every heading, in order."""
    for fenced, lines in split_fences(text):
        for match in map(HEADING.match, () if fenced else lines):
            if match:
                yield len(match[1]), match[2]


def with_links(
    text: str,
    change: Callable[[str], str],
    title: Callable[[str], str | None] = lambda _: None,
    error: Callable[[str], str] | None = None,
) -> str:
    """``text`` with other links and pictures, and each error's code a link; code stays.

    Args:
        text: of a page.
        change: gives the new target for the old one.
        title: what a link is called whose text is the name of the file that it leads to, of its
            target; None to leave it.
        error: gives the target for an error's code; None to leave these.
    """

    def changed(match: re.Match[str]) -> str:
        target = match["target"]
        if match["error"] and error is not None:
            return f"[{match['error']}]({error(match['error'].strip('`'))})"
        if target is None:
            return match[0]
        named = match["named"]
        if named is not None and target.partition("#")[0].endswith(named):
            named = title(target) or named
        start = "]" if named is None else f"[{named}]"
        return f"{start}({change(target)}{match['title']})"

    pieces = [
        "\n".join(lines) if fenced else _CODE_OR_LINK.sub(changed, "\n".join(lines))
        for fenced, lines in split_fences(text)
        if lines
    ]
    return "\n".join(pieces) + "\n"


def for_python_markdown(text: str) -> str:
    """The page in the dialect of Python-Markdown, with an anchor for every error's entry."""
    lines = _Lists()
    for fenced, run in split_fences(text):
        for number, line in enumerate(_with_title(run) if fenced else map(_own, run)):
            lines.add(line, fenced, first=number == 0)
    return "\n".join(lines.done) + "\n"


def _with_title(block: list[str]) -> list[str]:
    """A fenced block whose ``# needs`` is its title, so that nobody copies it as a command."""
    if len(block) < 2 or not block[1].strip().startswith(NEEDS):
        return block
    said = block[1].strip().removeprefix("# ").replace('"', "'")
    return [f'{block[0]} title="{said}"', *block[2:]]


def _own(line: str) -> str:
    """A line of prose: an anchor for an error, a link for a picture, bars in a table's code."""
    match = HEADING.match(line)
    if match and (anchor := error_anchor(match[2])):
        return f"{line} {{ #{anchor} }}"
    if _PICTURE.match(line):
        return _PICTURE.sub(r"[\1](\2)", line)
    if line.lstrip().startswith("|"):
        # Between backquotes a bar does not end a cell, and a backslash is one.
        return re.sub(r"`[^`]+`", lambda code: code[0].replace("\\|", "|"), line)
    return line


class _Lists:
    """Lines one after another, with the columns of the list items that they stand in."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._columns: list[int] = []
        self._fence_column = 0

    def add(self, line: str, fenced: bool, *, first: bool) -> None:
        text = line.lstrip(" ")
        column = len(line) - len(text)
        if not text:
            self.done.append("")
            return
        if fenced and not first:
            beyond = max(0, column - self._fence_column)
            self.done.append(" " * (_COLUMNS * len(self._columns) + beyond) + text)
            return
        item = None if fenced else _ITEM.match(line)
        after_gap = not self.done or not self.done[-1]
        after_item = bool(self._columns)
        # A line of a paragraph may stand further left than its item; nothing else may.
        if item or fenced or after_gap or HEADING.match(line):
            while self._columns and column < self._columns[-1]:
                self._columns.pop()
        depth = len(self._columns)
        if item:
            if not depth and not after_gap and not after_item:
                self.done.append("")
            self.done.append(f"{' ' * _COLUMNS * depth}{text}")
            self._columns.append(len(item[0]))
            return
        if text.startswith("|") and not after_gap and not self.done[-1].lstrip().startswith("|"):
            self.done.append("")
        beyond = max(0, column - self._columns[-1]) if depth else column
        if fenced:
            self._fence_column, beyond = column, 0
        self.done.append(" " * (_COLUMNS * depth + beyond) + text)
