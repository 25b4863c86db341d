"""Reports in headless Chromium, as wide as a desktop and as a phone: every figure is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.support import reports
from tests.support.browser import NAMES, Browser, browser, find_browser
from vim_deploy.report.write import write_pages

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason=f"no browser on the PATH ({', '.join(NAMES)})"
)

SHOWN = (
    *("parity-deep", "parity-hostile", "parity-many", "accuracy", "bisect"),
    *("compare", "compare-pixels", "compare-detections"),
    *("bench", "bench-one", "deploy"),
)
#: Width and height of the window in CSS pixels.
SIZES = {"desktop": (1200, 900), "phone": (390, 844)}
#: A colour counts as another one from this difference of a channel on.
_OTHER = 24
#: Smallest height of a figure's letters in CSS pixels.
_READABLE = 9.0

_FIGURES = """
[...document.querySelectorAll("figure svg")].map(svg => {
  const box = svg.getBoundingClientRect();
  const outside = [...svg.querySelectorAll("text")].filter(text => {
    const own = text.getBoundingClientRect();
    return own.left < box.left - 1 || own.right > box.right + 1
      || own.top < box.top - 1 || own.bottom > box.bottom + 1 || own.width === 0;
  }).map(text => text.textContent);
  const shapes = [...svg.querySelectorAll(".mark, .bar, [class^=h]")];
  return {
    name: svg.id, x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height,
    letters: box.width / svg.viewBox.baseVal.width * parseFloat(getComputedStyle(svg).fontSize),
    shapes: shapes.length, outside,
    unpainted: shapes.filter(shape => getComputedStyle(shape).fill === "none").length,
  };
})
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Samples of every kind of report."""
    pytest.importorskip(
        "jinja2", reason="jinja2 is not installed: pip install 'vim-deploy[report]'"
    )
    root = tmp_path_factory.mktemp("reports")
    found = {}
    for name, (kind, value) in reports.samples(root).items():
        (root / name).mkdir()
        found[name] = write_pages(kind, json.loads(json.dumps(value)), root / name, with_html=True)[
            1
        ]
    return found


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """One browser for all tests."""
    program = find_browser()
    assert program is not None
    with browser(program) as running:
        yield running


def drawn_share(picture: PIL.Image.Image, figure: dict[str, Any]) -> float:
    """Share of a figure's box that has another colour than most of it."""
    left, top = int(figure["x"]), int(figure["y"])
    right, bottom = int(left + figure["width"]), int(top + figure["height"])
    pixels = np.asarray(picture.crop((left, top, right, bottom)), np.int16)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    return float((np.abs(pixels - background).max(axis=2) > _OTHER).mean())


def faults(window: Browser, room: int) -> list[str]:
    """What is wrong with the page in a window that is ``room`` wide.

    A phone's browser makes room for a page that is too wide, so its own width says nothing.
    """
    found = []
    window.ask("document.querySelectorAll('details').forEach(part => { part.open = true })")
    wide = window.ask("document.documentElement.scrollWidth")
    if wide > room:
        found.append(f"the page is {wide} wide in a window of {room}")
    picture = window.picture()
    figures = window.ask(_FIGURES)
    found += [] if figures else ["there is no figure"]
    for figure in figures:
        name = figure["name"]
        if min(figure["width"], figure["height"]) < 60:
            found.append(f"{name} is {figure['width']} by {figure['height']}")
            continue
        if drawn_share(picture, figure) < 0.01:
            found.append(f"{name} is blank")
        if not figure["shapes"] or figure["unpainted"]:
            found.append(f"{name}: {figure['unpainted']} of {figure['shapes']} marks unpainted")
        if figure["outside"]:
            found.append(f"{name}: outside its frame: {figure['outside']}")
        if figure["letters"] < _READABLE:
            found.append(f"{name}: letters of {figure['letters']:.1f} px")
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SHOWN)
def test_every_figure_is_drawn(
    window: Browser, pages: dict[str, Path], name: str, size: str
) -> None:
    window.open(pages[name], *SIZES[size], phone=size == "phone")
    assert faults(window, SIZES[size][0]) == []
    assert [url for url in window.requests if not url.startswith(("file:", "data:"))] == []
    assert window.messages == []


def test_dark_page(window: Browser, pages: dict[str, Path]) -> None:
    brightness = {}
    for dark in (False, True):
        window.open(pages["bench"], *SIZES["phone"], phone=True, dark=dark)
        assert faults(window, SIZES["phone"][0]) == []
        brightness[dark] = float(np.asarray(window.picture()).mean())
    assert brightness[True] < 80 < 180 < brightness[False]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("document.querySelector('figure svg').replaceChildren()", "is blank"),
        ("document.querySelector('figure svg').style.height = '5px'", " by 5"),
        ("document.querySelector('h1').style.width = '2000px'", "in a window of 390"),
        ("document.querySelector('figure text').setAttribute('x', 355)", "outside its frame"),
        ("document.querySelector('.mark').style.fill = 'none'", "marks unpainted"),
    ],
)
def test_the_check_can_fail(
    window: Browser, pages: dict[str, Path], change: str, fault: str
) -> None:
    window.open(pages["parity-many"], *SIZES["phone"], phone=True)
    window.ask(f"{change}; null")
    assert fault in " ".join(faults(window, SIZES["phone"][0]))
