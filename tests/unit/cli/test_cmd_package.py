"""``vim-deploy package``: options, JSON, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.packages import classifier, engine
from tests.support.source import PACKAGE
from vim_deploy.cli.main import run

pytest.importorskip("onnxruntime")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return classifier(tmp_path / "toy.onnx")


def test_make_then_check(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    words = ["package", str(toy), "--runtime", "python", "--max-batch", "4", "--json"]
    assert run([*words, "-o", str(made)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["target"], said["runtime"], said["name"]) == ("triton", "python", "toy")
    assert said["up_to_date"] is False
    assert run([*words, "-o", str(made)]) == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out)["up_to_date"] is True
    assert "is up to date" in answer.err
    assert run(["package", "--check", str(made), "--json"]) == 0
    answer = capsys.readouterr()
    checks = {item["name"]: item["checked"] for item in json.loads(answer.out)["checks"]}
    assert checks["manifest"]
    assert checks["golden output"]
    assert not checks["server"]
    assert "not checked" in answer.err


def test_ops_is_declared_in_one_place() -> None:
    sources = (PACKAGE / "cli").glob("*.py")
    declared = [path.name for path in sources if '"--ops"' in path.read_text(encoding="utf-8")]
    assert declared == ["options.py"]


def test_the_folder_is_named_after_the_artifact(toy: Path, tmp_path: Path) -> None:
    assert run(["-q", "package", str(toy)]) == 0
    assert (tmp_path / "toy-triton" / "manifest.json").is_file()


def test_inspect_a_package(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    assert run(["-q", "package", str(toy), "-o", str(made)]) == 0
    capsys.readouterr()
    assert run(["inspect", str(made), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "package"
    (made / "client.py").unlink()
    (made / "notes.txt").write_text("mine")
    assert run(["inspect", str(made)]) == 4
    said = capsys.readouterr().err
    assert "VIM-425" in said
    assert "missing: client.py" in said
    assert "extra: notes.txt" in said
    assert run(["inspect", str(tmp_path)]) == 4
    assert "VIM-427" in capsys.readouterr().err
    assert run(["inspect", str(made), "--graph"]) == 2


def test_check_takes_no_other_option(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["package", "--check", str(tmp_path), "--max-batch", "4", "--force"]) == 2
    said = capsys.readouterr().err
    assert "--max-batch" in said
    assert "--force" in said


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["--runtime", "tensorrt"], 2, "VIM-203"),
        (["--name", "a/b"], 2, "VIM-202"),
        (["--cuda-graphs"], 2, "VIM-203"),
        (["--target", "elsewhere"], 2, "elsewhere"),
        (["--instances", "0"], 2, "--instances"),
    ],
)
def test_refused(
    toy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    code: str,
) -> None:
    made = tmp_path / "made"
    assert run(["package", str(toy), *words, "-o", str(made)]) == status
    assert code in capsys.readouterr().err
    assert not made.exists()


def test_an_image_of_another_tensorrt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = "nvcr.io/nvidia/tritonserver:25.01-trtllm-python-py3"
    made = tmp_path / "made"
    assert run(["package", str(engine(tmp_path)), "--image", image, "-o", str(made)]) == 9
    said = capsys.readouterr().err
    assert "VIM-907" in said
    assert "compatibility.md" in said
    assert not made.exists()


def test_missing_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["package", str(tmp_path / "no.onnx")]) == 4
    assert "VIM-401" in capsys.readouterr().err
