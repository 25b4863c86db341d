"""``vim-deploy run`` on ONNX files: every head, pictures that are none, options that do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vim_deploy
from tests.support.reference import DIGITS, REPOSITORY, load_case
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.running import RunOptions

PICTURES = REPOSITORY / "tests" / "data" / "digits"
HEADS = {"logits": "logits", "softmax": "softmax", "topk": "topk:3", "features": "features"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model with every head, and with a fixed batch."""
    place = tmp_path_factory.mktemp("run")
    request = ModelRequest("vim-digits")
    for name, head in HEADS.items():
        options = ExportOptions(head=head, check=False)
        vim_deploy.export(request, place / f"{name}.onnx", options)
    vim_deploy.export(request, place / "fixed.onnx", ExportOptions(batch=2, check=False))
    return place


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, Any]:
    """The one JSON object that a command prints."""
    assert run(["run", *arguments, "--json"]) == status
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def best(value: dict[str, Any]) -> dict[str, str]:
    """The most probable label by file stem."""
    return {Path(item["file"]).stem: item["top"][0]["label"] for item in value["images"]}


@pytest.mark.parametrize("head", ["logits", "softmax", "topk"])
def test_every_head_names_the_digit(capsys: Any, folder: Path, head: str) -> None:
    value = answer(capsys, str(folder / f"{head}.onnx"), str(PICTURES), "--top", "3")
    found = best(value)
    assert sorted(found) == ["0", "3", "7"]
    labels = (REPOSITORY / "export/vim-digits.labels.txt").read_text().split()
    assert found == {stem: labels[int(stem)] for stem in found}
    for item in value["images"]:
        probabilities = [entry["probability"] for entry in item["top"]]
        assert len(probabilities) == 3
        assert probabilities == sorted(probabilities, reverse=True)
        assert probabilities[0] > 0.5
        assert sum(probabilities) <= 1 + 1e-6


def test_heads_agree_on_probabilities(capsys: Any, folder: Path) -> None:
    tops = {
        head: answer(capsys, str(folder / f"{head}.onnx"), str(PICTURES))["images"]
        for head in ("logits", "softmax")
    }
    for left, right in zip(*tops.values(), strict=True):
        assert [e["index"] for e in left["top"]] == [e["index"] for e in right["top"]]
        for a, b in zip(left["top"], right["top"], strict=True):
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_batches_do_not_change_results(folder: Path, batch: int) -> None:
    one = vim_deploy.run(folder / "logits.onnx", PICTURES, RunOptions(batch=1))
    some = vim_deploy.run(folder / "logits.onnx", PICTURES, RunOptions(batch=batch))
    for left, right in zip(one.images, some.images, strict=True):
        assert left.file == right.file
        assert [item.index for item in left.top] == [item.index for item in right.top]


def test_fixed_batch_is_filled_up(capsys: Any, folder: Path) -> None:
    found = answer(capsys, str(folder / "fixed.onnx"), str(PICTURES))
    assert best(found).keys() == {"0", "3", "7"}
    assert run(["run", str(folder / "fixed.onnx"), str(PICTURES), "--batch", "3"]) == 4
    assert "VIM-415" in capsys.readouterr().err


def test_raw_outputs_are_the_reference_ones(capsys: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.npz"
    arguments = [str(folder / "logits.onnx"), str(PICTURES), "-o", str(out)]
    assert answer(capsys, *arguments)["output"] == str(out)
    case = load_case(DIGITS)
    with np.load(out) as stored:
        for file, logits in zip(stored["image_files"], stored["logits"], strict=True):
            row = int(np.flatnonzero(case.extras["labels"] == int(Path(str(file)).stem))[0])
            # Pixels were rounded to bytes for the picture: half a step of 2 / 255.
            np.testing.assert_allclose(logits, case.output[row], atol=0.1)
    assert run(["run", *arguments]) == 2
    assert "VIM-204" in capsys.readouterr().err
    assert run(["run", *arguments, "--force"]) == 0


def test_features_need_a_file(capsys: Any, folder: Path, tmp_path: Path) -> None:
    arguments = ["run", str(folder / "features.onnx"), str(PICTURES / "7.png")]
    assert run(arguments) == 2
    assert "-o FILE.npz" in capsys.readouterr().err
    assert run([*arguments, "-o", str(tmp_path / "f.npz"), "--top", "2"]) == 2
    assert not (tmp_path / "f.npz").exists()
    assert run([*arguments, "-o", str(tmp_path / "f.npz")]) == 0
    with np.load(tmp_path / "f.npz") as stored:
        assert stored["features"].shape[0] == 1
        assert stored["image_files"].tolist() == [str(PICTURES / "7.png")]


def test_unreadable_pictures_are_named_and_the_others_run(
    capsys: Any, folder: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(PICTURES, pictures)
    whole = (PICTURES / "3.png").read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "empty.jpg").write_bytes(b"")
    value = answer(capsys, str(folder / "logits.onnx"), str(pictures), "--batch", "2", status=4)
    assert best(value).keys() == {"0", "3", "7"}
    assert [Path(item["file"]).name for item in value["failures"]] == ["cut.png", "empty.jpg"]
    assert value["error"]["code"] == "VIM-411"
    assert "2 of 5" in value["error"]["message"]
    assert run(["run", str(folder / "logits.onnx"), str(pictures)]) == 4
    printed = capsys.readouterr()
    assert "cut.png" in printed.err
    assert "0.png" in printed.out


def test_only_unreadable_pictures_leave_no_output(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    out = tmp_path / "o.npz"
    found = vim_deploy.run(folder / "logits.onnx", tmp_path, RunOptions(output=out))
    assert found.images == ()
    assert found.output is None
    assert not out.exists()
    with pytest.raises(VimDeployError, match="1 of 1"):
        found.require_complete()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["logits.onnx", "{pictures}", "--top", "11"], "VIM-202"),
        (["topk.onnx", "{pictures}", "--top", "4"], "VIM-202"),
        (["logits.onnx"], "VIM-202"),
        (["logits.onnx", "missing.png"], "VIM-401"),
        (["missing.onnx", "{pictures}"], "VIM-401"),
        (["logits.onnx", "{pictures}", "-o", "o.txt"], "VIM-202"),
        (["logits.onnx", "{pictures}", "--provider", "cuda"], "VIM-301"),
        (["logits.onnx", "{pictures}", "--provider", "tensorrt"], "VIM-301"),
        (["logits.onnx", "{pictures}", "--plugin", "p.so"], "VIM-203"),
    ],
)
def test_refused(
    capsys: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: str,
) -> None:
    monkeypatch.chdir(folder)
    status = run(["run", *(word.format(pictures=PICTURES) for word in arguments)])
    assert status == int(code[4])
    assert code in capsys.readouterr().err


def test_missing_provider_lists_those_that_are_there(capsys: Any, folder: Path) -> None:
    assert run(["run", str(folder / "logits.onnx"), str(PICTURES), "--provider", "cuda"]) == 3
    said = capsys.readouterr().err
    assert "CUDAExecutionProvider" in said
    assert "CPUExecutionProvider" in said


def test_a_picture_named_twice_runs_once(folder: Path) -> None:
    found = vim_deploy.run(folder / "logits.onnx", [PICTURES / "3.png", PICTURES])
    assert [Path(item.file).stem for item in found.images] == ["3", "0", "7"]
