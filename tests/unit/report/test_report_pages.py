"""Pages and their Markdown twins, without a browser: form, escaping, contents."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support import reports
from tests.support.reports import HOSTILE
from vim_deploy.report.write import write_pages
from vim_deploy.text import printable

SVG = "{http://www.w3.org/2000/svg}"
_NAMES = (
    *("parity", "parity-deep", "parity-many", "parity-hostile", "parity-incomparable"),
    *(
        "parity-not-made",
        "parity-nothing",
        "accuracy",
        "accuracy-top1",
        "bisect",
        "compare",
        "compare-pixels",
        "compare-detections",
        "bench",
        "bench-hostile",
        "bench-one",
    ),
    *("deploy", "deploy-failed"),
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """HTML and Markdown of every sample."""
    pytest.importorskip(
        "jinja2", reason="jinja2 is not installed: pip install 'vim-deploy[report]'"
    )
    root = tmp_path_factory.mktemp("reports")
    found = {}
    for name, (kind, value) in reports.samples(root).items():
        folder = root / name
        folder.mkdir()
        # As read from the file: a report has to be possible from the JSON alone.
        stored = json.loads(json.dumps(value))
        markdown, html = write_pages(kind, stored, folder, with_html=True)
        found[name] = (html.read_text("utf-8"), markdown.read_text("utf-8"))
    return found


def tree(text: str) -> ElementTree.Element:
    """The page as XML: every element closed, every attribute quoted, every sign escaped."""
    return ElementTree.fromstring(text)


def test_every_sample_is_tried(pages: dict[str, tuple[str, str]]) -> None:
    assert tuple(pages) == _NAMES


@pytest.mark.parametrize("name", _NAMES)
def test_form(pages: dict[str, tuple[str, str]], name: str) -> None:
    page = tree(pages[name][0])
    ids = [element.attrib["id"] for element in page.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    for element in page.iter():
        for reference in element.get("aria-labelledby", "").split():
            assert reference in ids
        if element.get("href", "").startswith("#"):
            assert element.attrib["href"][1:] in ids
    assert page.find("head/title").text
    assert any("width=device-width" in meta.get("content", "") for meta in page.iter("meta"))
    boxes = [box for box in page.iter("div") if box.get("class") == "scroll"]
    assert len(boxes) == len(list(page.iter("table")))
    for table in page.iter("table"):
        columns = len(table.findall("thead/tr/th"))
        assert all(len(row) == columns for row in table.iterfind("tbody/tr"))


@pytest.mark.parametrize("name", _NAMES)
def test_every_figure_says_what_it_shows(pages: dict[str, tuple[str, str]], name: str) -> None:
    page = tree(pages[name][0])
    drawings = list(page.iter(f"{SVG}svg"))
    figures = list(page.iter("figure"))
    assert len(figures) == len(drawings)
    if name != "parity-nothing":
        assert drawings
    for drawing in drawings:
        assert drawing.get("role") == "img"
        assert drawing.find(f"{SVG}title").text
        assert len(drawing.find(f"{SVG}desc").text) > 20


@pytest.mark.parametrize("name", _NAMES)
def test_figures_stay_in_their_frame(pages: dict[str, tuple[str, str]], name: str) -> None:
    for drawing in tree(pages[name][0]).iter(f"{SVG}svg"):
        _, _, width, height = map(float, drawing.attrib["viewBox"].split())
        places = {"x": width, "x1": width, "x2": width, "cx": width, "y": height}
        places |= {"y1": height, "y2": height, "cy": height}
        for element in drawing.iter():
            for key, most in places.items():
                assert 0 <= float(element.get(key, 0)) <= most, ElementTree.tostring(element)
            for corner in element.get("points", "").split():
                x, y = map(float, corner.split(","))
                assert 0 <= x <= width
                assert 0 <= y <= height


@pytest.mark.parametrize("name", _NAMES)
def test_nothing_from_outside(pages: dict[str, tuple[str, str]], name: str) -> None:
    text = pages[name][0]
    page = tree(text)
    own = {"{http://www.w3.org/2000/svg}"}
    assert {tag[: tag.find("}") + 1] for tag in (e.tag for e in page.iter())} <= {"", *own}
    assert not {"script", "iframe", "object", "embed", "video"} & {e.tag for e in page.iter()}
    for element in page.iter():
        assert not [key for key in element.attrib if key.startswith("on")]
        for key in ("src", "href", "action", "style"):
            value = element.get(key, "")
            own_picture = element.tag == "img" and value.startswith("data:image/png;base64,")
            assert not value or own_picture or value.startswith(("#", "data:,")), value
    styles = "".join(style.text or "" for style in page.iter("style"))
    assert not re.search(r"url\(|@import|@font-face", styles)
    (policy,) = [m for m in page.iter("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.attrib["content"].startswith("default-src 'none'")


def test_pictures_stand_in_the_page_or_nowhere(pages: dict[str, tuple[str, str]]) -> None:
    shots = [
        item for item in tree(pages["compare"][0]).iter("li") if item.find("p/strong") is not None
    ]
    named = {item.findtext("p/strong"): item.find("img") for item in shots}
    assert [name for name, image in named.items() if image is not None] == [printable(HOSTILE[0])]
    assert {printable(HOSTILE[1]), printable(HOSTILE[2]).strip("\n"), "nan.png", "c/0.png"} <= {
        *named
    }
    assert "data:image" not in pages["compare"][1]


def words(page: ElementTree.Element) -> str:
    return "\n".join(page.itertext())


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_are_shown_and_do_nothing(pages: dict[str, tuple[str, str]], hostile: str) -> None:
    page = tree(pages["parity-hostile"][0])
    cells = [cell.text for cell in page.iter("td")]
    assert printable(hostile) in [cell and cell.strip("\n") for cell in cells]


@pytest.mark.parametrize(
    "name",
    ["parity-hostile", "bench-hostile", "accuracy", "compare", "compare-pixels", "deploy-failed"],
)
def test_names_in_markdown_do_nothing(pages: dict[str, tuple[str, str]], name: str) -> None:
    text = pages[name][1]
    outside_code = re.sub(r"^```\n.*?\n```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for sign in ("<", "](", "://"):
        assert not re.search(rf"(?<!\\){re.escape(sign)}", outside_code), sign
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(counts) == 1


def test_a_command_with_backticks_stays_in_its_fence(tmp_path: Path) -> None:
    value = reports.parity(command=["vim-deploy", "verify", "```\n# injected"])
    (path,) = write_pages("parity", value, tmp_path, with_html=False)
    assert "\n````\nvim-deploy verify '```\n# injected'\n````\n" in path.read_text("utf-8")


@pytest.mark.parametrize("name", ["parity", "accuracy", "bench", "deploy"])
def test_what_is_needed_to_repeat_the_run(pages: dict[str, tuple[str, str]], name: str) -> None:
    html, markdown = pages[name]
    page = tree(html)
    command = page.findall(".//pre")[-1].text
    assert shlex.split(command)[:2] == ["vim-deploy", "bench" if name == "bench" else "verify"]
    assert "my model.onnx" in shlex.split(command)
    for text in (words(page), markdown.replace("\\", "")):
        assert "numpy" in text
        assert "python" in text
        if name != "bench":
            assert reports.SHA in text


def test_verdicts(pages: dict[str, tuple[str, str]]) -> None:
    badges = {}
    for name, (html, markdown) in pages.items():
        badge = tree(html).find(".//div[@class='badge passed']")
        other = tree(html).find(".//div[@class='badge failed']")
        badges[name] = badge is not None
        if badge is None and other is None:
            assert name == "bench-one"
        else:
            assert f"**{'passed' if badge is not None else 'failed'}**" in markdown
    good = {"parity", "parity-hostile", "accuracy", "accuracy-top1", "bisect", "deploy"}
    assert {name for name, passed in badges.items() if passed} == good


def test_depth_and_ladder(pages: dict[str, tuple[str, str]]) -> None:
    page = tree(pages["parity-deep"][0])
    ids = {drawing.attrib["id"] for drawing in page.iter(f"{SVG}svg")}
    assert {"figure-ladder", "figure-blocks-depth", "figure-blocks-parts"} <= ids
    assert {"figure-ladder-depth", "figure-ladder-parts"} <= ids
    (depth,) = [d for d in page.iter(f"{SVG}svg") if d.get("id") == "figure-blocks-depth"]
    assert len(list(depth.iter(f"{SVG}polyline"))) == 4  # residual, out_proj, 2 scans
    (cells,) = [d for d in page.iter(f"{SVG}svg") if d.get("id") == "figure-ladder-parts"]
    framed = [c for c in cells.iter(f"{SVG}rect") if "beyond" in c.attrib["class"]]
    assert len(framed) == 2 * 9  # blocks 2 and 3, nine parts each
    assert "first broken rung is fused ONNX" in words(page)


def test_bench_figures(pages: dict[str, tuple[str, str]]) -> None:
    page = tree(pages["bench"][0])
    ids = [drawing.attrib["id"] for drawing in page.iter(f"{SVG}svg")]
    expected = [*(f"figure-latency-{n}" for n in range(3)), "figure-ratio", "figure-memory"]
    curves = [f"figure-curve-{name}" for name in ("time", "space", "gpu")]
    assert ids == [*expected, *curves, "figure-comparison"]
    assert "needs about 90 GB" in words(page)
    assert "vim, onnxruntime, device clock" in words(page)
    assert "22.0 MB" in words(page)  # an engine, two contexts and buffers
    assert "6 of 8 measurements made." in words(page)


def test_numbers_of_the_figures_are_in_the_tables(pages: dict[str, tuple[str, str]]) -> None:
    value: dict[str, Any] = reports.parity()
    html, markdown = pages["parity"]
    for entry in (o for result in value["results"] for o in result["outputs"]):
        text = f"{entry['cosine']:.7f}"
        assert text in html
        assert text in markdown


def test_bisection(pages: dict[str, tuple[str, str]]) -> None:
    page = tree(pages["bisect"][0])
    assert "3 of 96 parts have to stay in float32; the search was cut short" in words(page)
    rows = [[cell.text for cell in row] for row in page.findall(".//tbody/tr")]
    assert rows[0] == ["A", "3", "0.0500"]
    assert rows[2] == [HOSTILE[0], "1", "not tried"]
    assert "not finite (NaN)" in words(page)
    assert "largest KL" in words(page)


def test_a_rung_that_could_not_be_made(pages: dict[str, tuple[str, str]]) -> None:
    page = tree(pages["parity-not-made"][0])
    (row,) = [row for row in page.findall(".//tbody/tr") if row.get("class") == "failed"]
    cells = [cell.text for cell in row]
    assert cells[0] == "base ONNX"
    assert cells[-1] == f"broken: VIM-501: {HOSTILE[0]}"
    (figure,) = [d for d in page.iter(f"{SVG}svg") if d.get("id") == "figure-ladder"]
    assert "not comparable" in words(figure)
