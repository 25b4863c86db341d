"""What a report says, before it is HTML or Markdown: the twins come from one document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

Row = Sequence[str]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and values; ``short`` ones may stand two in a line."""

    items: Sequence[tuple[str, str]]
    short: bool = False


@dataclass(frozen=True)
class Code:
    """A command, to be copied as it is."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        caption: what it holds.
        columns: names.
        rows: as many cells each.
        words: columns of words, which are aligned left; the others hold numbers.
        failed: numbers of the rows that are to stand out.
        folded: whether a reader has to open it first; for the figures' own numbers.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    words: frozenset[int] = frozenset({0})
    failed: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        title: what it shows.
        alt: the same for who does not see it, with the figures that matter.
        drawing: the ``svg`` element; ``charts`` makes it.
    """

    title: str
    alt: str
    drawing: Element


Item = Text | Items | Facts | Code | Table | Figure


@dataclass(frozen=True)
class Section:
    """A part of a document; figures that follow each other stand side by side where there is room.

    ``name`` is its address in the page.
    """

    name: str
    title: str
    items: Sequence[Item]


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: of the page.
        passed: the verdict; None where a run has none.
        verdict: the outcome in a sentence or more.
        made_by: tool and date.
        sections: in order; empty ones are left out.
    """

    title: str
    passed: bool | None
    verdict: Sequence[str]
    made_by: str
    sections: Sequence[Section]

    def filled(self) -> list[Section]:
        """The sections that have something in them."""
        return [section for section in self.sections if section.items]
