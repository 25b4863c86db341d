"""``bench --plot``: the paper's figure 1 as an SVG file."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.bench import bench_report, measured
from vim_deploy.bench.report import BenchReport
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.report.plot import check_plot, draw, require_sizes

SVG = "{http://www.w3.org/2000/svg}"


def scaled(*sizes: tuple[int, int]) -> BenchReport:
    """Vim linear and DeiT quadratic in tokens, at (pixels, tokens)."""
    items = []
    for group, (side, tokens) in enumerate(sizes):
        place = {"group": group, "image": (side, side), "tokens": tokens}
        items.append(measured("vim", tokens / 10, **place))
        items.append(measured("deit", tokens**2 / 1e4, memory=tokens**2 * 12, **place))
    return bench_report(*items)


def test_time_and_memory_of_every_model_at_every_size(tmp_path: Path) -> None:
    path = tmp_path / "figure.svg"
    report = scaled((224, 197), (738, 2117), (1248, 6085))
    assert draw(encode(report), path)
    figure = ElementTree.parse(path).getroot()
    time, memory = figure.findall(f"{SVG}svg")
    assert time.findtext(f"{SVG}title") == "Time for one image"
    assert memory.findtext(f"{SVG}title") == "Memory above the empty runtime"
    for panel in (time, memory):
        words = [item.text for item in panel.iter(f"{SVG}text")]
        assert {"224", "738", "1248"} <= set(words)
        assert "deit, onnxruntime, batch 1" in words
    tips = [item.text or "" for item in time.iter(f"{SVG}title")]
    assert sum(tip.startswith("deit, onnxruntime, batch 1: ") for tip in tips) == 3
    machine = str(report.machine["cpu_model"])
    assert machine in (figure.findtext(f"{SVG}desc") or "")


def test_the_gpus_memory_is_drawn_where_engines_ran(tmp_path: Path) -> None:
    value = encode(scaled((224, 197), (738, 2117)))
    for result in value["results"]:
        if result["label"] == "vim":
            size = result["tokens"] * 1000
            result["memory"]["device"] = {
                "engine": size, "context": size, "contexts": 2, "buffers": size
            }  # fmt: skip
    assert draw(value, tmp_path / "figure.svg")
    panels = ElementTree.parse(tmp_path / "figure.svg").getroot().findall(f"{SVG}svg")
    assert [panel.findtext(f"{SVG}title") for panel in panels] == [
        "Time for one image",
        "Memory above the empty runtime",
        "GPU memory of engine, contexts and buffers",
    ]
    tips = [item.text or "" for item in panels[2].iter(f"{SVG}title")]
    assert "vim, onnxruntime, batch 1: 8.47 at 2117.00" in tips
    assert not any(tip.startswith("deit") for tip in tips)


def test_nothing_is_drawn_from_one_size(tmp_path: Path) -> None:
    assert not draw(encode(scaled((224, 197))), tmp_path / "figure.svg")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_drawn_is_said_before() -> None:
    with pytest.raises(VimDeployError, match="VIM-202") as caught:
        check_plot(Path("x.png"))
    assert ".svg" in caught.value.fix
    with pytest.raises(VimDeployError, match="VIM-203") as caught:
        require_sizes(1)
    assert "--image-sizes" in caught.value.fix
