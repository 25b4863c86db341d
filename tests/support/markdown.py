"""Reading the repository's Markdown files: fenced blocks, links, headings, quoted commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docs.site.markdown import FENCE, HEADING, NEEDS, slug
from tests.support.source import files

PROGRAM = "vim-deploy"
_LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)[^)]*\)|!\[[^\]]*\]\(([^)\s]+)[^)]*\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, and the line of its fence."""

    language: str
    lines: tuple[str, ...]
    first_line: int

    @property
    def needs(self) -> str:
        """What its commands need that not every machine has; "" for those that run anywhere."""
        first = self.lines[0] if self.lines else ""
        return first.removeprefix(NEEDS) if first.startswith(NEEDS) else ""


@dataclass(frozen=True)
class Command:
    """One command line of a ``console`` block, and what the page shows of its answer."""

    text: str
    said: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether the page shows an error for an answer."""
        return any(line.startswith("error VIM-") for line in self.said)

    @property
    def words(self) -> list[str]:
        """As a shell splits it."""
        return shlex.split(self.text, comments=True)


def markdown_files() -> tuple[Path, ...]:
    """Every Markdown file of the repository."""
    return tuple(files(".md"))


def _split(text: str) -> tuple[list[Block], list[tuple[int, str]]]:
    """Fenced blocks, and the numbered lines outside them."""
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    fence, language, start, inside = "", "", 0, []
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line.strip())
        if fence:
            if match and match[1].startswith(fence) and not match[2]:
                blocks.append(Block(language, tuple(inside), start))
                fence = ""
            else:
                inside.append(line)
        elif match:
            fence, language, start, inside = match[1], match[2], number, []
        else:
            prose.append((number, line))
    assert not fence, f"a block that begins in line {start} is not closed"
    return blocks, prose


def blocks(path: Path) -> list[Block]:
    """Fenced blocks of a file, in order."""
    return _split(path.read_text(encoding="utf-8"))[0]


def links(path: Path) -> Iterator[tuple[int, str]]:
    """Line and target of every link and picture outside fenced blocks."""
    for number, line in _split(path.read_text(encoding="utf-8"))[1]:
        for match in _LINK.finditer(re.sub(r"`[^`]*`", "", line)):
            yield number, match[1] or match[2]


def anchors(path: Path) -> set[str]:
    """Names that ``#...`` can point to in a file, as GitHub makes them from headings."""
    found = set()
    for _, line in _split(path.read_text(encoding="utf-8"))[1]:
        if match := HEADING.match(line):
            found.add(slug(match[2]))
    return found


def _joined(lines: tuple[str, ...]) -> Iterator[str]:
    """Lines with a trailing backslash joined to the next."""
    whole = ""
    for line in lines:
        whole += line.rstrip().removesuffix("\\")
        if not line.rstrip().endswith("\\"):
            yield whole
            whole = ""
    if whole:
        yield whole


def commands(block: Block) -> list[Command]:
    """Commands of a ``console`` block: lines that begin with ``$``, then lines of the answer."""
    found: list[Command] = []
    for line in _joined(block.lines):
        if line.startswith("$ "):
            found.append(Command(line[2:]))
        elif found and line.strip():
            last = found.pop()
            found.append(Command(last.text, (*last.said, line)))
    return found


def console_commands(block: Block) -> list[list[str]]:
    """Words of every command of a ``console`` block."""
    return [command.words for command in commands(block)]


def quoted_commands(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and words of every ``vim-deploy`` command in blocks, indented code and backquotes."""
    found, prose = _split(path.read_text(encoding="utf-8"))
    pieces = [(block.first_line, line) for block in found for line in _joined(block.lines)]
    pieces += [(number, line) for number, line in prose if line.startswith("    ")]
    # A quoted command may go over the end of a line.
    text = "\n".join(line for _, line in prose if not line.startswith("    "))
    pieces += [(0, piece.replace("\n", " ")) for piece in re.findall(r"`([^`]+)`", text)]
    for number, piece in pieces:
        line = re.sub(r"\[([^\]]*)\]", r"\1", piece.strip().removeprefix("$ "))
        if line.startswith(PROGRAM + " "):
            yield number, line.replace("'", "").split("#")[0].split()[1:]
