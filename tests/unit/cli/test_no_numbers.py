"""NaN and Inf in a model's outputs: a coded error and an exit code wherever they are judged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.support.packages import classifier
from tests.support.sick_models import INFO, nan_classifier, overflowing_classifier
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.packaging.golden import Pictures, differences, golden_outputs
from vim_deploy.parity.metrics import tolerance_for
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner

pytest.importorskip("onnxruntime")


def no_constant(text: str) -> float:
    raise AssertionError(f"{text} is no JSON")


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=no_constant)
    return value


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Grey (near zero once normalised), white, and grey again."""
    names = []
    for name, level in (("a", 128), ("b", 255), ("c", 127)):
        path = tmp_path / f"{name}.png"
        PIL.Image.fromarray(np.full((2, 3), level, np.uint8)).save(path)
        names.append(str(path))
    return names


@pytest.mark.parametrize("batch", ["1", "3"])
def test_run_gives_the_others_and_vim_430(
    capsys: Any, tmp_path: Path, pictures: list[str], batch: str
) -> None:
    model = overflowing_classifier(tmp_path / "m.onnx")
    out = tmp_path / "raw.npz"
    words = ["run", str(model), *pictures, "--top", "1", "--batch", batch, "-o", str(out)]
    assert run([*words, "--json"]) == 4
    value = printed(capsys)
    assert [item["file"] for item in value["images"]] == [pictures[0], pictures[2]]
    assert value["error"]["code"] == "VIM-430"
    assert [(item["file"], item["code"]) for item in value["failures"]] == [
        (pictures[1], "VIM-430")
    ]
    with np.load(out) as stored:
        assert list(stored["image_files"]) == [pictures[0], pictures[2]]
        assert np.isfinite(stored["logits"]).all()
    assert run([*words, "--force"]) == 4
    shown = capsys.readouterr()
    assert "nan" not in shown.out + shown.err
    assert "b.png" in shown.err


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_run_of_a_model_that_only_gives_nan_has_no_result(
    capsys: Any, tmp_path: Path, pictures: list[str], value: float
) -> None:
    model = nan_classifier(tmp_path / "m.onnx", value)
    out = tmp_path / "raw.npz"
    assert run(["run", str(model), *pictures, "--json", "-o", str(out)]) == 4
    assert printed(capsys)["images"] == []
    assert not out.exists()


def test_verify_against_itself_another_and_stored_outputs(capsys: Any, tmp_path: Path) -> None:
    sick, well = nan_classifier(tmp_path / "s.onnx"), classifier(tmp_path / "w.onnx", info=INFO)
    images = np.zeros((2, 1, 2, 3), np.float32)
    np.savez(tmp_path / "nan.npz", image=images, logits=np.full((2, 4), np.nan, np.float32))
    pairs = [(sick, sick), (sick, well), (well, sick), (sick, "nan.npz"), (well, "nan.npz")]
    for artifact, against in pairs:
        words = ["verify", str(artifact), "--against", str(tmp_path / against), "--json"]
        words += [] if str(against).endswith(".npz") else ["--random", "2"]
        assert run([*words, "--batches", "1,2", "--report", str(tmp_path / "r")]) == 7, words
        value = json.loads((tmp_path / "r/parity.json").read_text(), parse_constant=no_constant)
        assert not value["passed"]
        assert "NaN or Inf" in str(value["results"][0]["outputs"][0]["failures"])
        answer = json.loads(capsys.readouterr().out, parse_constant=no_constant)
        assert answer.pop("error")["code"] == "VIM-701"
        assert answer == value


def test_verify_on_a_data_set_finds_no_agreement_of_nan(capsys: Any, tmp_path: Path) -> None:
    sick, well = nan_classifier(tmp_path / "s.onnx"), classifier(tmp_path / "w.onnx", info=INFO)
    images = np.random.default_rng(0).standard_normal((8, 1, 2, 3)).astype(np.float32)
    np.savez(tmp_path / "set.npz", image=images, labels=np.arange(8) % 4)
    for artifact, against in ((sick, sick), (sick, well), (well, sick)):
        words = ["verify", str(artifact), "--against", str(against), "--report", str(tmp_path)]
        assert run([*words, "--dataset", str(tmp_path / "set.npz")]) == 7
        assert "NaN or Inf for 8 of 8 images" in capsys.readouterr().err
        assert not json.loads((tmp_path / "accuracy.json").read_text())["passed"]


def test_package_is_not_made_of_nan(capsys: Any, tmp_path: Path) -> None:
    sick = nan_classifier(tmp_path / "s.onnx")
    words = ["package", str(sick), "--target", "triton", "--runtime", "python"]
    assert run([*words, "-o", str(tmp_path / "made")]) == 4
    assert "VIM-430" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_stored_outputs_of_a_package_are_judged(tmp_path: Path) -> None:
    images = np.zeros((2, 1, 2, 3), np.float32)
    sick = OrtRunner(nan_classifier(tmp_path / "s.onnx"))
    with pytest.raises(VimDeployError, match="VIM-430"):
        golden_outputs(sick, Pictures(images))
    limits = tolerance_for("fp32")
    values = {"logits": np.full((2, 4), np.nan, np.float32)}
    assert "NaN or Inf" in differences(values, values, limits)[0]
    assert differences({}, {}, limits)
    well = {"logits": np.zeros((2, 4), np.float32)}
    assert differences(well, well, limits) == []
    assert differences(well, well, dataclasses.replace(limits, atol=None))


def test_bench_reports_and_refuses_nan(capsys: Any, tmp_path: Path) -> None:
    sick = nan_classifier(tmp_path / "s.onnx")
    words = ["bench", str(sick), "--duration", "0.05", "--warmup", "0", "--threads", "1"]
    assert run([*words, "--report", str(tmp_path / "r")]) == 4
    assert "VIM-430" in capsys.readouterr().err
    report = json.loads((tmp_path / "r/bench.json").read_text())
    assert [item["outputs_finite"] for item in report["results"]] == [False]
