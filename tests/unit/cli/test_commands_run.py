"""Commands on good input: what they print, and where options come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import save_tiny
from vim_deploy.cli.main import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and its config."""
    place = tmp_path_factory.mktemp("work")
    save_tiny(place)
    (place / "labels.txt").write_text("\n".join("abcdefg"))
    return place


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The JSON object that a successful command prints."""
    status = run([*arguments, "--json"])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    value: dict[str, Any] = json.loads(captured.out)
    return value


def test_export_with_a_users_own_config(capsys: Any, folder: Path) -> None:
    value = answer(
        capsys, "export", "tiny.pth", "--config", "tiny.json", "--labels", "labels.txt",
        "--mean", "0.1,0.2,0.3", "--std", "1,1,1", "--crop-ratio", "1",
    )  # fmt: skip
    assert value["path"] == "tiny.onnx"
    assert value["scans"] == 4
    assert value["parity"]["passed"] is True
    info = value["export"]
    assert info["model"] == "custom"
    assert info["labels"] == list("abcdefg")
    assert info["image"]["mean"] == [0.1, 0.2, 0.3]
    assert len(info["checkpoint"]["sha256"]) == 64
    assert info["model_config"]["embed_dim"] == 16


def test_inspect_checkpoint_and_file(capsys: Any, folder: Path) -> None:
    checkpoint = answer(capsys, "inspect", "tiny.pth")
    assert checkpoint["kind"] == "checkpoint"
    assert checkpoint["architecture"]["depth"] == 2
    answer(capsys, "export", "tiny.pth", "--config", "tiny.json", "-o", "i.onnx")
    model = answer(capsys, "inspect", "i.onnx")
    assert model["kind"] == "onnx"
    assert model["runs_without_plugin"] is True
    assert model["graph"]["scans"] == 4
    assert model["inputs"][0]["shape"] == ["batch", 3, 16, 16]


def test_results_go_to_standard_output_and_notes_do_not(capsys: Any, folder: Path) -> None:
    assert run(["inspect", "tiny.pth"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "all that is known: vim-deploy inspect -v tiny.pth\n"
    assert "checkpoint" in captured.out
    assert run(["export", "tiny.pth", "--config", "tiny.json", "-o", "n.onnx", "--no-check"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "n.onnx\n"
    assert "wrote n.onnx" in captured.err


def test_quiet_leaves_the_result(capsys: Any, folder: Path) -> None:
    assert run(["-q", "inspect", "tiny.pth"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "checkpoint" in captured.out


def test_quiet_says_what_was_made_and_nothing_else(capsys: Any, folder: Path) -> None:
    arguments = ["export", "tiny.pth", "--config", "tiny.json", "-o", "q.onnx", "--no-check"]
    for words in (["-q", *arguments], [*arguments, "-q"]):
        assert run(words) == 0
        captured = capsys.readouterr()
        assert captured.out == "q.onnx\n"
        assert captured.err == ""


def test_options_have_environment_defaults(
    capsys: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIM_DEPLOY_EXPORT_PREPROCESS", "uint8")
    monkeypatch.setenv("VIM_DEPLOY_EXPORT_OUTPUT", "env.onnx")
    value = answer(capsys, "export", "tiny.pth", "--config", "tiny.json")
    assert value["path"] == "env.onnx"
    assert value["export"]["preprocess"] == "uint8"


def test_json_log(capsys: Any, folder: Path) -> None:
    arguments = ["export", "tiny.pth", "--config", "tiny.json", "-o", "l.onnx", "--use-ema"]
    assert run(["--log-format", "json", *arguments]) != 0
    capsys.readouterr()
    arguments[-1] = "--no-check"
    assert run(["--log-format", "json", *arguments]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert all(json.loads(line)["level"] == "info" for line in lines)
    said = [json.loads(line)["message"] for line in lines]
    assert said[0] == "reading tiny.pth"
    assert said[2].startswith("pictures: ")
    assert said[3:5] == ["tracing", "fusing"]
    assert said[-1].startswith("next: vim-deploy verify l.onnx --against tiny.pth; ")


def test_other_resolution(capsys: Any, folder: Path) -> None:
    value = answer(
        capsys, "export", "tiny.pth", "--config", "tiny.json", "--image-size", "24x32",
        "-o", "large.onnx",
    )  # fmt: skip
    assert value["export"]["pos_embed"] == "grid 2x2 to 3x4"
    assert value["export"]["image"]["height"] == 24
    report = answer(
        capsys, "verify", "large.onnx", "--against", "tiny.pth", "--random", "2",
        "--batches", "1,2", "--report", ".",
    )  # fmt: skip
    assert report["passed"] is True


def test_random_weights_of_a_named_variant(capsys: Any, folder: Path) -> None:
    value = answer(
        capsys, "export", "tiny", "--config", "tiny.json", "--random-weights", "3",
        "-o", "seeded.onnx",
    )  # fmt: skip
    assert value["export"]["checkpoint"] == {
        "name": "seed:3", "part": "seeded", "sha256": "", "source": "",
    }  # fmt: skip
    report = answer(
        capsys, "verify", "seeded.onnx", "--against", "seed:3", "--random", "1", "--batches", "1"
    )
    assert report["passed"] is True
    assert run(["verify", "seeded.onnx", "--against", "seed:4"]) == 4


def test_deploy_numbers_its_folders(capsys: Any, folder: Path) -> None:
    arguments = ("deploy", "tiny.pth", "--config", "tiny.json", "--no-engine", "--work", "w")
    first, second = answer(capsys, *arguments), answer(capsys, *arguments)
    assert (first["folder"], second["folder"]) == ("w/001-tiny", "w/002-tiny")
    names = sorted(path.name for path in Path(first["folder"]).iterdir())
    pages = ["deploy.html", "deploy.json", "deploy.md"]
    assert names == [*pages, "model.onnx", "parity.json"]
    assert first["seconds"].keys() == {"export", "verify"}


def test_doctor_names_a_fix_for_whatever_is_missing(capsys: Any, folder: Path) -> None:
    findings = answer(capsys, "doctor")["findings"]
    assert len(findings) > 5
    assert all(item["fix"] for item in findings if not item["ok"])
