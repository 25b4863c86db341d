"""The report of a run as files: ``NAME.html`` and ``NAME.md`` beside ``NAME.json``.

Markdown (GitHub's) has tables, facts and the text alternatives of the figures; it is written by
hand, since the libraries for it read it. The page needs nothing else: no script, font or network.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, tostring

from vim_deploy.errors import missing_package
from vim_deploy.files import write_bytes
from vim_deploy.report import svg
from vim_deploy.report.accuracy_page import accuracy_document
from vim_deploy.report.bench_page import bench_document
from vim_deploy.report.bisect_page import bisect_document
from vim_deploy.report.coco_page import coco_document
from vim_deploy.report.compare_page import compare_document
from vim_deploy.report.deploy_page import deploy_document
from vim_deploy.report.document import (
    Code,
    Document,
    Facts,
    Figure,
    Gallery,
    Item,
    Items,
    Section,
    Table,
    Text,
)
from vim_deploy.report.parity_page import parity_document
from vim_deploy.text import printable

#: Name of a run's files -> how its JSON becomes a document.
DOCUMENTS: dict[str, Callable[[Mapping[str, Any]], Document]] = {
    "parity": parity_document,
    "accuracy": lambda value: (coco_document if "box" in value else accuracy_document)(value),
    "bisect": bisect_document,
    "bench": bench_document,
    "compare": compare_document,
    "deploy": deploy_document,
}


def write_pages(
    kind: str, value: Mapping[str, Any], folder: Path, *, with_html: bool
) -> tuple[Path, ...]:
    """Write the Markdown twin of a run's JSON, and its page.

    Args:
        kind: a key of ``DOCUMENTS``; names the files.
        value: the run's JSON-able record.
        folder: that exists.
        with_html: whether to write the page too, which needs jinja2.

    Returns:
        What was written.

    Raises:
        VimDeployError: VIM-301 (jinja2 missing), VIM-304, VIM-305 (output).
    """
    document = DOCUMENTS[kind](value)
    pages = {".md": markdown(document)}
    if with_html:
        pages[".html"] = html(document)
    written = []
    for suffix, text in pages.items():
        path = folder / f"{kind}{suffix}"
        write_bytes(path, text.encode())
        written.append(path)
    return tuple(written)


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
    if isinstance(item, Gallery):
        shots = (": ".join((shot.name, "; ".join(shot.lines))) for shot in item.shots)
        return [f"**{escaped(item.caption)}**", "", *(f"- {escaped(shot)}" for shot in shots), ""]
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


_PACKAGE = "jinja2"
_TEMPLATE = "report.html.j2"


def makes_html() -> bool:
    """Whether pages can be made here."""
    return importlib.util.find_spec(_PACKAGE) is not None


def require_html() -> None:
    """Before minutes are spent: VIM-301 where jinja2 is not installed."""
    if not makes_html():
        raise missing_package(_PACKAGE, "report", "an HTML report")


def html(document: Document) -> str:
    """The whole page; everything in it is escaped, apart from the drawings, which are elements.

    Raises:
        VimDeployError: VIM-301 where jinja2 is not installed.
    """
    require_html()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vim_deploy.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawing"] = _drawing
    environment.filters["kind"] = lambda item: type(item).__name__
    environment.filters["grouped"] = _grouped
    page = environment.get_template(_TEMPLATE).render(
        document=document, sections=document.filled(), chart_style=svg.style()
    )
    return page + "\n"


def _harmless(value: Any) -> Any:  # noqa: ANN401 - what a template prints
    """Text without characters that HTML cannot hold; what is safe already stays as it is."""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else printable(value)


def _drawing(element: Element) -> str:
    """The drawing as text; ElementTree has escaped what is in it."""
    return tostring(element, encoding="unicode")


def _grouped(items: Any) -> list[tuple[bool, list[Any]]]:  # noqa: ANN401 - items of a section
    """Neighbouring figures together, everything else alone; True for figures."""
    groups: list[tuple[bool, list[Any]]] = []
    for item in items:
        drawn = hasattr(item, "drawing")
        if drawn and groups and groups[-1][0]:
            groups[-1][1].append(item)
        else:
            groups.append((drawn, [item]))
    return groups
