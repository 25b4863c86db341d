"""fp32 or fp16? The exported toy in both precisions, and its checkpoint, on pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import vim_deploy
from tests.support.reference import DIGITS, load_case
from vim_deploy.cli.main import run
from vim_deploy.stages.export_options import ExportOptions

pytest.importorskip("onnxruntime")
pytest.importorskip("jinja2", reason="jinja2 is not installed: pip install 'vim-deploy[report]'")

#: A ninth of the test split.
COUNT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``single.onnx``, ``half.onnx`` and ``set`` with a folder of pictures for each digit."""
    made = tmp_path_factory.mktemp("compare")
    case = load_case(DIGITS)
    pixels = np.rint((case.image[::9] * 0.5 + 0.5) * 255).astype(np.uint8)
    for number, (image, label) in enumerate(zip(pixels, case.extras["labels"][::9], strict=True)):
        place = made / "set" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image[0]).save(place / f"{number:03d}.png")
    vim_deploy.export("vim-digits", made / "single.onnx", ExportOptions(check=False))
    half = ExportOptions(check=False, precision="fp16")
    vim_deploy.export("vim-digits", made / "half.onnx", half)
    return made


@pytest.mark.slow
def test_half_precision_takes_the_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / name) for name in ("single.onnx", "half.onnx")]
    words += ["--images", str(folder / "set"), "--report", str(folder / "page"), "--json"]
    words += ["--duration", "0.1", "--warmup", "0", "--time-batches", "1", "--max-loss", "10%"]
    assert run(["compare", *words]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    found = value["found"]
    assert (found["images"], found["same_class"]) == (COUNT, COUNT)
    assert 0 < found["median_difference"] <= found["largest_difference"] < 0.02
    assert 0.5 < value["size_ratio"] < 0.7
    # By time on this machine: the answers are the same, and the file is smaller.
    assert value["advice"]["rule"] in ("take B", "trade")
    assert "the same class on all 40 pictures" in value["advice"]["sentence"]
    assert (value["a"]["precision"], value["b"]["precision"]) == ("fp32", "fp16")
    (timed,) = value["time"]["batches"]
    assert timed["ratio"]["value"] == pytest.approx(
        timed["b"]["latency"]["p50_ms"]["value"] / timed["a"]["latency"]["p50_ms"]["value"]
    )
    page = (folder / "page" / "compare.html").read_text(encoding="utf-8")
    assert page.count("<img") == len(found["nearest"]) == 12


@pytest.mark.slow
def test_a_checkpoint_is_one_side(folder: Path, digits_checkpoint: Path) -> None:
    options = vim_deploy.CompareOptions(time=False, batch=COUNT)
    report = vim_deploy.compare(digits_checkpoint, folder / "half.onnx", folder / "set", options)
    assert report.a.kind == "checkpoint"
    assert report.a.runtime.startswith("PyTorch")
    assert report.a.bytes == digits_checkpoint.stat().st_size
    assert report.found.disagreement == 0
    assert report.pictures.labelled
    assert report.advice.rule == "more pictures"
