"""Files whose names are no UTF-8: run, described, packaged, measured, and all of it read back."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.builds import needs_rtx
from tests.support.engines import EXPORT
from tests.support.packages import classifier
from vim_deploy.cli.main import run
from vim_deploy.text import json_text

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of such a name in such a folder, which is the working folder."""
    folder = tmp_path / os.fsdecode(b"f\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    config = EXPORT.model_config.replace(patch_size=1, stride=1, num_classes=4)
    info = dataclasses.replace(EXPORT, model_config=config)
    path = classifier(folder / os.fsdecode(b"caf\xe9.onnx"), info=info)
    Image.new("L", (10, 6)).save(folder / os.fsdecode(b"\xff.png"))
    return path.name


def read_back(path: Path) -> str:
    text = path.read_text("utf-8")
    json.loads(text)
    return text


def test_json_of_ours_holds_whole_characters_only() -> None:
    value = {os.fsdecode(b"\xe9"): [os.fsdecode(b"a\xff"), 1.5, None, True, ("x",)]}
    text = json_text(value)
    assert json.loads(text) == {"\\udce9": ["a\\udcff", 1.5, None, True, ["x"]]}
    text.encode()
    assert json_text({"b": 1, "a": [2]}, compact=True) == '{"a":[2],"b":1}'


def test_run_inspect_and_verify(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", model, os.fsdecode(b"\xff.png")]) == 0
    assert run(["inspect", model, "--json"]) == 0
    out = capsys.readouterr().out
    out.encode()
    assert "caf\\\\udce9.onnx" in out
    assert run(["verify", model, "--against", model, "--random", "1", "--batches", "1"]) == 0
    assert "caf\\\\udce9" in read_back(Path("parity.json"))


def test_a_package_of_it_is_whole(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It has a name of its own in Triton; what it was made from is in its manifest."""
    assert run(["package", model, "--runtime", "python", "-o", "p"]) == 2
    assert "--name" in capsys.readouterr().err
    arguments = ["package", model, "--name", "toy", "--runtime", "python", "-o", "p"]
    assert run(arguments) == 0
    assert run(["package", "--check", "p"]) == 0
    assert "caf\\\\udce9.onnx" in read_back(Path("p", "manifest.json"))
    assert run(arguments) == 0
    assert "up to date" in capsys.readouterr().err


def test_a_benchmark_of_it_is_known_again(model: str) -> None:
    arguments = ["bench", model, "--duration", "0.05", "--warmup", "0"]
    assert run(arguments) == 0
    assert run(arguments) == 0
    assert "caf\\\\udce9" in read_back(Path("bench.json"))


@pytest.mark.slow
@needs_rtx
def test_an_engine_of_it(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = os.fsdecode(b"caf\xe9.plan")
    assert run(["build-engine", model, "--runtime", "tensorrt-rtx", "-o", plan]) == 0
    read_back(Path(plan + ".json"))
    assert run(["inspect", plan]) == 0
    assert "caf\\udce9.plan" in capsys.readouterr().out
