"""SVG elements and axes: the small part of a plotting library that the reports' figures need.

Figures are drawn for a width of 360 units, which a phone shows nearly at its own size, and take
their colours from the style sheet, so that they follow a dark page. ElementTree does the escaping.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from xml.etree.ElementTree import Element, SubElement, tostring

from vim_deploy.report.document import number
from vim_deploy.text import printable

WIDTH = 360.0
MARGIN = 8.0
FONT = 11.5
#: Mean width of a character of sans-serif fonts, in parts of the font size, rounded up.
_CHARACTER = 0.56
#: Colours of the style sheet.
COLOURS = 9
MARKERS = ("circle", "square", "diamond", "up", "down", "cross")
_STYLE = "chart.css"


def style() -> str:
    """The figures' style sheet."""
    return resources.files("vim_deploy.report").joinpath(_STYLE).read_text("utf-8")


def canvas(height: float, title: str, description: str, name: str) -> Element:
    """An empty drawing with its text alternative; ``name`` makes its ids unique in a page."""
    svg = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "chart",
            "viewBox": f"0 0 {WIDTH:g} {height:g}",
            "role": "img",
            "id": name,
            "aria-labelledby": f"{name}-title {name}-desc",
        },
    )
    SubElement(svg, "title", {"id": f"{name}-title"}).text = printable(title)
    SubElement(svg, "desc", {"id": f"{name}-desc"}).text = printable(description)
    return svg


def standalone(svg: Element) -> str:
    """The drawing as a file of its own, with its style sheet and a background."""
    copy = Element(svg.tag, svg.attrib)
    _, _, width, height = svg.attrib["viewBox"].split()
    copy.set("width", str(2 * float(width)))
    copy.set("height", str(2 * float(height)))
    SubElement(copy, "style").text = style()
    rectangle(copy, 0, 0, float(width), float(height), "surface")
    copy.extend(svg)
    return tostring(copy, encoding="unicode") + "\n"


def _place(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def line(parent: Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    """A straight line of the class ``kind``."""
    ends = zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2), strict=True)
    SubElement(parent, "line", {"class": kind, **{name: _place(value) for name, value in ends}})


def rectangle(
    parent: Element, x: float, y: float, width: float, height: float, kind: str, tip: str = ""
) -> None:
    """A filled rectangle; ``tip`` is shown under the pointer."""
    sides = zip(("x", "y", "width", "height"), (x, y, width, height), strict=True)
    shape = SubElement(
        parent, "rect", {"class": kind, **{name: _place(value) for name, value in sides}}
    )
    if tip:
        SubElement(shape, "title").text = printable(tip)


def path(parent: Element, points: Sequence[tuple[float, float]], kind: str) -> None:
    """Straight pieces through ``points``."""
    text = " ".join(f"{_place(x)},{_place(y)}" for x, y in points)
    SubElement(parent, "polyline", {"class": kind, "points": text})


def label(
    parent: Element, x: float, y: float, text: str, kind: str = "label", anchor: str = "start"
) -> None:
    """One line of text; ``y`` is its baseline."""
    place = {"x": _place(x), "y": _place(y), "class": kind, "text-anchor": anchor}
    SubElement(parent, "text", place).text = printable(text)


def text_width(text: str) -> float:
    """About how wide ``text`` will be; fonts differ, so leave room."""
    return len(text) * FONT * _CHARACTER


def fitted(text: str, width: float) -> str:
    """``text``, or its beginning and end where it is too long for ``width``."""
    text = printable(text).replace("\n", " ")
    room = max(int(width / (FONT * _CHARACTER)), 3)
    if len(text) <= room:
        return text
    tail = (room - 1) // 3
    return f"{text[: room - 1 - tail]}…{text[len(text) - tail :] if tail else ''}"


def marker(
    parent: Element, x: float, y: float, series: int, tip: str, *, hollow: bool = False
) -> None:
    """The sign of a series at a point."""
    # From the seventh on the colours begin again, with the next marker.
    shape = MARKERS[(series + series // COLOURS) % len(MARKERS)]
    kind = f"mark {'hollow' if hollow else 'full'} s{series % COLOURS}"
    if shape == "circle":
        spot = SubElement(parent, "circle", {"cx": _place(x), "cy": _place(y), "r": "4"})
    else:
        corners = " ".join(f"{_place(x + dx)},{_place(y + dy)}" for dx, dy in _CORNERS[shape])
        spot = SubElement(parent, "polygon", {"points": corners})
    spot.set("class", kind)
    SubElement(spot, "title").text = printable(tip)


_CORNERS = {
    "square": ((-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)),
    "diamond": ((0, -5), (5, 0), (0, 5), (-5, 0)),
    "up": ((0, -5), (4.5, 4), (-4.5, 4)),
    "down": ((0, 5), (4.5, -4), (-4.5, -4)),
    "cross": (
        *((-1.5, -4.5), (1.5, -4.5), (1.5, -1.5), (4.5, -1.5), (4.5, 1.5), (1.5, 1.5)),
        *((1.5, 4.5), (-1.5, 4.5), (-1.5, 1.5), (-4.5, 1.5), (-4.5, -1.5), (-1.5, -1.5)),
    ),
}


def legend(parent: Element, names: Sequence[str], y: float) -> float:
    """The names of the series, as many beside each other as fit; where it ends."""
    x = MARGIN
    for series, name in enumerate(names):
        text = fitted(name, WIDTH - 2 * MARGIN - 16)
        width = 16 + text_width(text) + 12
        if x > MARGIN and x + width > WIDTH:
            x, y = MARGIN, y + 17
        marker(parent, x + 6, y - 4, series, name)
        label(parent, x + 16, y, text)
        x += width
    return y + 8


@dataclass(frozen=True)
class Axis:
    """From values to places; values outside go to the nearer end."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def __call__(self, value: float) -> float:
        """The place of ``value``."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Round values inside, at most about ``most``, with their text."""
        values = self._decades(most) if self.logarithmic else self._steps(most)
        return [(value, _tick(value)) for value in values]

    def _decades(self, most: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for parts in ((1, 2, 5), (1, 3), (1,)):
            values = [part * 10.0**power for power in range(first, last + 1) for part in parts]
            inside = [v for v in values if self.low / 1.001 <= v <= self.high * 1.001]
            if len(inside) <= most:
                return inside
        return inside[:: math.ceil(len(inside) / most)]

    def _steps(self, most: int) -> list[float]:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * part for part in (1, 2, 5, 10) if power * part >= rough)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [(first + index) * step for index in range(count)]


def _tick(value: float) -> str:
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.10f}".rstrip("0").rstrip(".") if abs(value) < 1 else f"{value:.6g}"
    text = number(value, 1)
    return text if abs(value) < 1e5 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


def axis_for(
    values: Sequence[float], start: float, end: float, *, logarithmic: bool, zero: bool = False
) -> Axis:
    """An axis with room for all ``values``; with ``zero`` a linear one begins at 0."""
    known = [value for value in values if math.isfinite(value)]
    if logarithmic:
        known = [value for value in known if value > 0] or [1e-9, 1.0]
        low, high = min(known), max(known)
        if high / low < 4:
            low, high = low / 2, high * 2
        room = (high / low) ** 0.06
        return Axis(low / room, high * room, start, end, True)
    low, high = min(known, default=0.0), max(known, default=1.0)
    low = min(low, 0.0) if zero else low
    if high <= low:
        high = low + (abs(low) or 1.0)
    room = 0.06 * (high - low)
    return Axis(low if zero and low == 0 else low - room, high + room, start, end, False)


def beside(drawings: Sequence[Element], title: str, description: str, name: str) -> Element:
    """Several drawings next to each other as one, each under its own title."""
    head = 24.0
    sizes = [tuple(map(float, drawing.attrib["viewBox"].split()[2:])) for drawing in drawings]
    height = head + max(size[1] for size in sizes)
    svg = canvas(height, title, description, name)
    svg.set("viewBox", f"0 0 {WIDTH * len(drawings):g} {height:g}")
    for index, (drawing, size) in enumerate(zip(drawings, sizes, strict=True)):
        heading = drawing.findtext("title") or ""
        label(svg, WIDTH * index + MARGIN, 16, fitted(heading, WIDTH - 2 * MARGIN), "heading")
        place = {"x": _place(WIDTH * index), "y": _place(head)}
        inner = Element("svg", {**drawing.attrib, **place})
        inner.attrib |= {"width": _place(size[0]), "height": _place(size[1])}
        inner.extend(drawing)
        svg.append(inner)
    return svg
