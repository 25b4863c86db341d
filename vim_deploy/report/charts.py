"""The kinds of figure: dots on rows, bars on rows, curves, a map of cells.

Each takes plain values and gives a figure of a document. Names stand above their row, so that long
ones fit on a phone. What is exactly 0 or not comparable stands at the end of a logarithmic axis,
hollow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from vim_deploy.report.document import NOT_COMPARABLE, Figure, number
from vim_deploy.report.svg import (
    COLOURS,
    FONT,
    MARGIN,
    WIDTH,
    Axis,
    axis_for,
    canvas,
    fitted,
    label,
    legend,
    line,
    marker,
    path,
    rectangle,
    text_width,
)

_ROW = 36.0
_HEAD = 12.0
#: Steps of the map's colours, see the style sheet.
_SHADES = 7


@dataclass(frozen=True)
class Dot:
    """A value of a series, with its interval where it has one."""

    series: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class DotRow:
    """One row: its name, what stands at its right end, and its dots."""

    name: str
    text: str
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Limit:
    """A line across the figure, with its name."""

    value: float
    name: str


@dataclass(frozen=True)
class Captions:
    """Words of a figure: title, alternative text, name of the value axis, id."""

    title: str
    alt: str
    axis: str
    name: str


def told(rows: Sequence[DotRow | BarRow]) -> str:
    """What the rows show, for the text alternative."""
    return "; ".join(f"{row.name} {row.text}" for row in rows) + "."


def dots(
    captions: Captions,
    rows: Sequence[DotRow],
    series: Sequence[str],
    *,
    limit: Limit | None = None,
    logarithmic: bool = False,
) -> Figure:
    """Rows of dots with intervals over one axis; a legend where there are several series."""
    values = [value for row in rows for dot in row.dots for value in (dot.value, dot.low, dot.high)]
    drawable = [value for value in values if value is not None and abs(value) < NOT_COMPARABLE]
    if limit is not None:
        drawable.append(limit.value)
    axis = axis_for(drawable, MARGIN + 6, WIDTH - MARGIN - 6, logarithmic=logarithmic)
    top = _HEAD + (16 if limit else 0)
    svg = _frame(captions, rows, series, axis, top)
    if limit is not None:
        _limit_name(svg, axis, limit, top)
    for index, row in enumerate(rows):
        y = top + _ROW * index
        line(svg, axis.start - 6, y + 24, axis.end + 6, y + 24, "track")
        if limit is not None:
            # In pieces, which leave the rows' text alone.
            line(svg, axis(limit.value), y + 16, axis(limit.value), y + 34, "limit")
        for dot in row.dots:
            _dot(svg, axis, y + 24, dot, f"{row.name}: {series[dot.series]} {number(dot.value)}")
    return Figure(captions.title, captions.alt, svg)


def _dot(svg: Element, axis: Axis, y: float, dot: Dot, tip: str) -> None:
    if dot.low is not None and dot.high is not None:
        kind = f"interval s{dot.series % COLOURS}"
        line(svg, axis(dot.low), y, axis(dot.high), y, kind)
        for end in (dot.low, dot.high):
            line(svg, axis(end), y - 4, axis(end), y + 4, kind)
    off = abs(dot.value) >= NOT_COMPARABLE or (axis.logarithmic and dot.value <= 0)
    marker(svg, axis(dot.value), y, dot.series, tip, hollow=off)


@dataclass(frozen=True)
class BarRow:
    """One row of stacked bars: its name, what stands at its right end, one length per series."""

    name: str
    text: str
    lengths: Sequence[float]


def bars(captions: Captions, rows: Sequence[BarRow], series: Sequence[str]) -> Figure:
    """Rows of stacked bars from 0; a legend where there are several series."""
    axis = axis_for(
        [sum(row.lengths) for row in rows], MARGIN, WIDTH - MARGIN, logarithmic=False, zero=True
    )
    svg = _frame(captions, rows, series, axis, _HEAD)
    for index, row in enumerate(rows):
        total = 0.0
        for number_, length in enumerate(row.lengths):
            left, right = axis(total), axis(total + length)
            tip = f"{row.name}: {series[number_]} {number(length)}"
            place = (left, _HEAD + _ROW * index + 17)
            rectangle(svg, *place, right - left, 13, f"bar s{number_ % COLOURS}", tip)
            total += length
    return Figure(captions.title, captions.alt, svg)


def _frame(
    captions: Captions,
    rows: Sequence[DotRow | BarRow],
    series: Sequence[str],
    axis: Axis,
    top: float,
) -> Element:
    """A drawing of rows: their texts, the axis below with its lines, and the legend."""
    bottom = top + _ROW * len(rows)
    height = bottom + 40 + (_legend_height(series) if len(series) > 1 else 0)
    svg = canvas(height, captions.title, captions.alt, captions.name)
    for value, _ in axis.ticks():
        line(svg, axis(value), top - 4, axis(value), bottom, "grid")
    for index, row in enumerate(rows):
        y = top + _ROW * index + 12
        name = fitted(row.name, WIDTH - 2 * MARGIN - text_width(row.text) - 10)
        label(svg, MARGIN, y, name)
        label(svg, WIDTH - MARGIN, y, row.text, "value", "end")
    _value_axis(svg, axis, bottom, captions.axis)
    if len(series) > 1:
        legend(svg, series, bottom + 48)
    return svg


@dataclass(frozen=True)
class Curve:
    """A line through points, sorted by x."""

    name: str
    points: Sequence[tuple[float, float]]


def curves(
    captions: Captions,
    lines: Sequence[Curve],
    x_name: str,
    *,
    limit: Limit | None = None,
    x_ticks: Sequence[tuple[float, str]] = (),
    logarithmic_x: bool = False,
) -> Figure:
    """Curves over a logarithmic value axis.

    Args:
        x_ticks: places and names on the x axis; without them round numbers.
        logarithmic_x: whether x is spaced by its logarithm as well.
    """
    points = [point for curve in lines for point in curve.points]
    values = [y for _, y in points if y < NOT_COMPARABLE] + ([limit.value] if limit else [])
    top, bottom, left = 30.0, 250.0, 58.0
    vertical = axis_for(values, bottom, top, logarithmic=True)
    across = axis_for([x for x, _ in points], left, WIDTH - MARGIN - 8, logarithmic=logarithmic_x)
    height = bottom + 40 + _legend_height([curve.name for curve in lines])
    svg = canvas(height, captions.title, captions.alt, captions.name)
    label(svg, MARGIN, 14, captions.axis, "axis-name")
    for value, text in vertical.ticks():
        line(svg, left, vertical(value), across.end, vertical(value), "grid")
        label(svg, left - 6, vertical(value) + 4, text, "tick", "end")
    line(svg, left, bottom, across.end, bottom, "axis")
    for place, text in _apart(across, x_ticks or _whole(across.ticks())):
        line(svg, across(place), bottom, across(place), bottom + 4, "axis")
        label(svg, across(place), bottom + 16, text, "tick", "middle")
    label(svg, (left + across.end) / 2, bottom + 31, x_name, "axis-name", "middle")
    if limit is not None:
        y = vertical(limit.value)
        line(svg, left, y, across.end, y, "limit")
        label(svg, across.end, y - 5, limit.name, "limit-name", "end")
    for index, curve in enumerate(lines):
        places = [(across(x), vertical(y)) for x, y in curve.points]
        path(svg, places, f"curve s{index % COLOURS}")
        for (x, y), (place_x, place_y) in zip(curve.points, places, strict=True):
            off = not 0 < y < NOT_COMPARABLE
            tip = f"{curve.name}: {number(y)} at {number(x, 6)}"
            marker(svg, place_x, place_y, index, tip, hollow=off)
    legend(svg, [curve.name for curve in lines], bottom + 52)
    return Figure(captions.title, captions.alt, svg)


def _whole(ticks: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    """Ticks at whole numbers: blocks are counted."""
    return [(value, text) for value, text in ticks if float(value).is_integer()]


def _apart(axis: Axis, ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those ticks whose names do not run into the one before them."""
    kept: list[tuple[float, str]] = []
    free = -math.inf
    for value, text in sorted(ticks):
        half = text_width(text) / 2
        if axis(value) - half >= free:
            kept.append((value, text))
            free = axis(value) + half + 4
    return kept


@dataclass(frozen=True)
class MapRow:
    """One row of cells: its name, and a value for each column (None: there is none)."""

    name: str
    cells: Sequence[float | None]


def cell_map(
    captions: Captions, rows: Sequence[MapRow], columns: Sequence[str], limit: float
) -> Figure:
    """Cells shaded by the logarithm of their value; those above ``limit`` are framed."""
    left = MARGIN + max((text_width(row.name) for row in rows), default=0) + 8
    width = (WIDTH - MARGIN - left) / max(len(columns), 1)
    depth = 20.0
    bottom = _HEAD + depth * len(rows)
    svg = canvas(bottom + 74, captions.title, captions.alt, captions.name)
    known = [
        value
        for row in rows
        for value in row.cells
        if value is not None and 0 < value < NOT_COMPARABLE
    ]
    shades = axis_for([*known, limit], 0, _SHADES, logarithmic=True)
    framed = []
    for index, row in enumerate(rows):
        y = _HEAD + depth * index
        label(svg, left - 8, y + 14, row.name, anchor="end")
        for column, value in enumerate(row.cells):
            if value is None:
                continue
            place = (left + width * column, y)
            tip = f"{columns[column]} {row.name}: {number(value)}"
            shade = f"h{_shade(shades, value)}"
            if value > limit:
                framed.append((place, f"{shade} beyond", tip))
                continue
            rectangle(svg, *place, width - 1, depth - 1, shade, tip)
    # Last, so that no neighbour covers a frame.
    for place, kind, tip in framed:
        rectangle(svg, *place, width - 1, depth - 1, kind, tip)
    step = max(math.ceil(24 / width), 1)
    for column in range(0, len(columns), step):
        x = left + width * (column + 0.5) - 0.5
        label(svg, x, bottom + 14, columns[column], "tick", "middle")
    label(svg, (left + WIDTH) / 2, bottom + 29, captions.axis, "axis-name", "middle")
    _shade_key(svg, shades, bottom + 42)
    return Figure(captions.title, captions.alt, svg)


def _shade(shades: Axis, value: float) -> int:
    return min(int(shades(max(value, shades.low))), _SHADES - 1)


def _shade_key(svg: Element, shades: Axis, y: float) -> None:
    side = 26.0
    left = WIDTH - MARGIN - side * _SHADES
    label(svg, left - 8, y + 10, "framed: above the limit", "tick", "end")
    for shade in range(_SHADES):
        rectangle(svg, left + side * shade, y, side - 1, 12, f"h{shade}")
    label(svg, left, y + 25, number(shades.low, 2), "tick")
    label(svg, WIDTH - MARGIN, y + 25, number(shades.high, 2), "tick", "end")


def _value_axis(svg: Element, axis: Axis, bottom: float, name: str) -> None:
    line(svg, axis.start - 6, bottom, axis.end + 6, bottom, "axis")
    for value, text in _apart(axis, axis.ticks()):
        half = text_width(text) / 2
        x = min(max(axis(value), half), WIDTH - half)
        label(svg, x, bottom + 14, text, "tick", "middle")
    label(svg, WIDTH / 2, bottom + 29, name, "axis-name", "middle")


def _limit_name(svg: Element, axis: Axis, limit: Limit, top: float) -> None:
    x = axis(limit.value)
    right = x + text_width(limit.name) < WIDTH - MARGIN
    label(
        svg,
        x + (4 if right else -4),
        top - 8,
        limit.name,
        "limit-name",
        "start" if right else "end",
    )


def _legend_height(names: Sequence[str]) -> float:
    """Room for ``legend``: as many rows as it will take, and what lies below the last."""
    scratch = Element("g")
    return legend(scratch, names, 8.0) + FONT / 2
