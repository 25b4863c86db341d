"""What a report says, before it is HTML or Markdown: the twins come from one document."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

Row = Sequence[str]
#: Nothing that a browser would fetch, and nothing that could end an attribute.
_OWN_PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+")
#: A run's JSON-able record, or a part of it.
Value = Mapping[str, Any]


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
        drawing: the ``svg`` element; ``charts`` makes figures.
    """

    title: str
    alt: str
    drawing: Element


@dataclass(frozen=True)
class Shot:
    """A picture and what is said of it.

    Attributes:
        name: of the picture.
        source: a data URI; empty where there is none to show.
        lines: beside it.
    """

    name: str
    source: str
    lines: Sequence[str]

    @property
    def shown(self) -> str:
        """``source``, if it is a picture that stands in the page itself; else nothing."""
        return self.source if _OWN_PICTURE.fullmatch(self.source) else ""


@dataclass(frozen=True)
class Gallery:
    """Pictures beside each other."""

    caption: str
    shots: Sequence[Shot]


Item = Text | Items | Facts | Code | Table | Figure | Gallery


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


#: ``parity.metrics`` writes the largest number where a comparison was not possible.
NOT_COMPARABLE = 1e300


def number(value: float | None, digits: int = 3) -> str:
    """``digits`` significant digits; ``-`` for None, words where nothing could be compared."""
    if value is None:
        return "-"
    if not math.isfinite(value) or abs(value) >= NOT_COMPARABLE:
        return "not comparable"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    decimals = max(digits - 1 - math.floor(math.log10(size)), 0)
    return f"{value:.{decimals}f}"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.2f} %"


def size_of(count: float | None) -> str:
    """Bytes for people, in decimal units."""
    if count is None:
        return "-"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{number(count / scale)} {unit}"
    return f"{count:.0f} bytes"


def image_size(sides: object) -> str:
    """Height and width, as ``224x224``."""
    return "x".join(str(side) for side in sides) if isinstance(sides, list | tuple) else "-"


def dataset_document(
    value: Value,
    what: str,
    called: str,
    facts: Iterable[tuple[str, str]],
    results: Iterable[Item],
) -> Document:
    """The report of one ``verify --dataset``.

    Args:
        value: as it was written.
        what: was measured, such as ``Accuracy``.
        called: what the data set holds, such as ``images``.
        facts: what was compared.
        results: how that went.
    """
    dataset = value["dataset"]
    failures = value["failures"]
    unreadable: list[Item] = []
    if dataset["unreadable"]:
        names = [f"{entry['name']}: {entry['why']}" for entry in dataset["unreadable_images"]]
        unreadable = [Text(f"{dataset['unreadable']} {called} were left out:"), Items(names)]
    return Document(
        title=f"{what} of {value['artifact']} on {dataset['name']}",
        passed=bool(value["passed"]),
        verdict=[*failures, *(said for said in value["statement"] if said not in failures)],
        made_by=made_by(value),
        sections=[
            Section("compared", "What was compared", [Facts(list(facts))]),
            Section("results", "Results", list(results)),
            Section("unreadable", f"{called.capitalize()} that could not be read", unreadable),
            notes_section(value.get("notes", ())),
            environment_section(value.get("environment")),
            command_section(value["command"]),
        ],
    )
