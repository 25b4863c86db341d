"""A document as one HTML file that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import importlib.util
from typing import Any
from xml.etree.ElementTree import Element, tostring

from vim_deploy.errors import missing_package
from vim_deploy.report import svg
from vim_deploy.report.document import Document
from vim_deploy.text import printable

_PACKAGE = "jinja2"
_TEMPLATE = "report.html.j2"


def require_html() -> None:
    """Before minutes are spent: VIM-301 where jinja2 is not installed."""
    if importlib.util.find_spec(_PACKAGE) is None:
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
