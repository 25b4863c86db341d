"""``vim-deploy export`` of a model that is too large for one file, with the limit lowered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.models import perturbed, save_training_file, tiny_config
from vim_deploy.artifact import onnx_file
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.families.vim.network.vim import VisionMamba

Capture = pytest.CaptureFixture[str]
EXPORT = ("export", "x.pth", "--config", "x.json", "-o", "x.onnx")


@pytest.fixture(autouse=True)
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny checkpoint in an empty working folder; its weights are over the limit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_file, "WEIGHTS_LIMIT", 10_000)
    config = tiny_config(depth=1)
    save_training_file(perturbed(VisionMamba(config)), tmp_path / "x.pth")
    Path("x.json").write_text(json.dumps(encode(config)))


def called(capsys: Capture, *arguments: str) -> dict[str, object]:
    assert run(list(arguments)) == 0, capsys.readouterr().err
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_two_files_are_checked_written_named_and_up_to_date(capsys: Capture) -> None:
    found = called(capsys, *EXPORT, "--json")
    assert found["files"] == ["x.onnx", "x.onnx.data"]
    assert found["parity"]["passed"]
    described = called(capsys, "inspect", "x.onnx", "--graph", "--json")
    assert found["parity"]["artifact_sha256"] == described["sha256"]
    (data,) = described["external_data"]
    assert data["file"] == "x.onnx.data"
    assert data["bytes"] == Path("x.onnx.data").stat().st_size > 10_000
    before = Path("x.onnx.data").read_bytes()
    again = called(capsys, *EXPORT, "--json")
    assert again["up_to_date"]
    assert again["files"] == ["x.onnx", "x.onnx.data"]
    assert called(capsys, "verify", "x.onnx", "--against", "x.pth", "--json")["passed"]
    assert not called(capsys, *EXPORT, "--force", "--json")["up_to_date"]
    assert Path("x.onnx.data").read_bytes() == before
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_missing_weights_are_not_up_to_date(capsys: Capture) -> None:
    called(capsys, *EXPORT, "--no-check", "--json")
    Path("x.onnx.data").unlink()
    assert run([*EXPORT, "--no-check"]) != 0
    assert "VIM-204" in capsys.readouterr().err
    assert run([*EXPORT, "--no-check", "--force"]) == 0
    assert "x.onnx.data: the weights" in capsys.readouterr().err


def test_a_file_of_somebody_else_is_not_overwritten(capsys: Capture) -> None:
    Path("x.onnx.data").write_text("precious")
    assert run([*EXPORT, "--no-check"]) != 0
    assert "is not part of an export" in capsys.readouterr().err
    assert Path("x.onnx.data").read_text() == "precious"
    assert not Path("x.onnx").exists()


def test_dumps_of_large_graphs(capsys: Capture) -> None:
    called(capsys, *EXPORT, "--no-check", "--dump-passes", "steps", "--json")
    assert Path("steps/00_base.onnx.data").exists()
    assert run(["inspect", "steps/00_base.onnx"]) == 0
