"""Axes, marks and texts of the figures."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from vim_deploy.parity.paired import wilson
from vim_deploy.report import charts
from vim_deploy.report.charts import BarRow, Captions, Curve, Dot, DotRow, Limit
from vim_deploy.report.document import number, size_of
from vim_deploy.report.svg import axis_for, fitted, standalone

WORDS = Captions("title", "what it shows", "axis", "name")


def marks(drawing: ElementTree.Element) -> list[ElementTree.Element]:
    return [e for e in drawing.iter() if e.get("class", "").startswith("mark")]


def test_dots_stand_where_their_values_are() -> None:
    rows = [DotRow("a", "1", [Dot(0, 1.0, 0.5, 2.0)]), DotRow("b", "100", [Dot(0, 100.0)])]
    drawing = charts.dots(
        WORDS, rows, ["value"], limit=Limit(10.0, "limit"), logarithmic=True
    ).drawing
    first, second = (float(mark.attrib["cx"]) for mark in marks(drawing))
    line, _ = [e for e in drawing.iter("line") if e.get("class") == "limit"]
    # 10 is in the middle between 1 and 100, by the logarithm.
    assert float(line.attrib["x1"]) == pytest.approx((first + second) / 2, abs=0.1)
    intervals = [e for e in drawing.iter("line") if e.attrib["class"].startswith("interval")]
    assert len(intervals) == 3
    assert float(intervals[0].attrib["x1"]) < first < float(intervals[0].attrib["x2"])


@pytest.mark.parametrize("value", [0.0, 1.7e308])
def test_what_has_no_place_on_a_logarithmic_axis_is_hollow(value: float) -> None:
    rows = [DotRow("a", "", [Dot(0, value)]), DotRow("b", "", [Dot(0, 3.0)])]
    odd, plain = marks(charts.dots(WORDS, rows, ["value"], logarithmic=True).drawing)
    assert "hollow" in odd.attrib["class"]
    assert "hollow" not in plain.attrib["class"]
    assert (float(odd.attrib["cx"]) < float(plain.attrib["cx"])) == (value == 0)


def test_bars_are_stacked_and_as_long_as_their_values() -> None:
    drawing = charts.bars(
        WORDS, [BarRow("a", "", [10, 30]), BarRow("b", "", [20, 0])], ["x", "y"]
    ).drawing
    bars = [e for e in drawing.iter("rect") if e.attrib["class"].startswith("bar")]
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.3)
    assert widths[2] == pytest.approx(2 * widths[0], abs=0.3)
    assert float(bars[1].attrib["x"]) == pytest.approx(
        float(bars[0].attrib["x"]) + widths[0], abs=0.11
    )


def test_curves_rise_upwards() -> None:
    lines = [Curve("a", [(1, 1.0), (2, 10.0)]), Curve("b", [(1, 5.0)])]
    drawing = charts.curves(WORDS, lines, "x").drawing
    low, high, _ = (
        float(mark.attrib["cy"]) for mark in marks(drawing) if "s0" in mark.get("class", "")
    )
    assert high < low


@pytest.mark.parametrize(
    ("values", "logarithmic", "expected"),
    [
        ((0.0, 50.0), False, ["0", "10", "20", "30", "40", "50"]),
        ((0.5, 2.0), False, ["0.5", "1", "1.5", "2"]),
        ((1.0, 1000.0), True, ["1", "3", "10", "30", "100", "300", "1000"][::2]),
        ((1e-7, 1e-3), True, ["1e-7", "1e-6", "1e-5", "1e-4", "0.001"]),
        ((2.0, 2.0), False, None),
        ((0.0,), True, None),
        ((), False, None),
    ],
)
def test_ticks(values: tuple[float, ...], logarithmic: bool, expected: list[str] | None) -> None:
    axis = axis_for(values, 0, 100, logarithmic=logarithmic)
    found = [text for _, text in axis.ticks()]
    assert 2 <= len(found) <= 8
    assert len(set(found)) == len(found)
    if expected is not None:
        assert found == expected


def test_more_series_than_colours_are_told_apart() -> None:
    lines = [Curve(str(number), [(1, number + 1.0)]) for number in range(9)]
    drawn = charts.curves(WORDS, lines, "x").drawing
    assert len({(mark.attrib["class"], shape(mark)) for mark in marks(drawn)}) == 9


def shape(mark: ElementTree.Element) -> tuple[str, ...]:
    """The corners of a mark, from its first one."""
    places = [tuple(map(float, pair.split(","))) for pair in mark.get("points", "").split()]
    return tuple(f"{x - places[0][0]:.0f},{y - places[0][1]:.0f}" for x, y in places)


def test_long_names_keep_both_ends() -> None:
    text = fitted("a-very-long-name-of-a-checkpoint-that-goes-on.onnx", 120)
    assert text.startswith("a-very")
    assert text.endswith("onnx")
    assert len(text) < 22
    assert fitted("short", 120) == "short"


def test_numbers() -> None:
    values = (0, 1, 0.04124, 1234.5, 4.12e-4, 2.5e7, 1.7e308, float("inf"), None)
    texts = ["0", "1.00", "0.0412", "1234", "4.12e-4", "2.50e7", *["not comparable"] * 2, "-"]
    assert [number(value) for value in values] == texts
    assert [size_of(v) for v in (None, 12, 25_300_000)] == ["-", "12 bytes", "25.3 MB"]


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval(right: int, images: int, low: float, high: float) -> None:
    assert wilson(right, images) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_a_figure_as_a_file_has_its_style_and_a_size() -> None:
    text = standalone(charts.curves(WORDS, [Curve("a", [(1, 1.0), (2, 2.0)])], "x").drawing)
    svg = ElementTree.fromstring(text)
    assert float(svg.attrib["width"]) > 500
    assert "prefers-color-scheme: dark" in next(
        e.text or "" for e in svg.iter() if "style" in e.tag
    )
