"""Dense checkpoints on the command line: exit codes, sentences, and no traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import reference
from tests.support.detector_cases import detector_case
from vim_deploy.cli.main import run

E01 = str(reference.dense_case("E01").checkpoint)
D08 = str(reference.dense_case("D08").checkpoint)
F01 = str(detector_case("F01").checkpoint)
A01 = str(reference.load_case("A01_middle_cls").checkpoint)


@pytest.mark.parametrize(
    ("arguments", "status", "code", "said"),
    [
        ((A01, "--model", "upernet-vim-tiny"), 4, "VIM-404", "this checkpoint is a classifier"),
        ((E01, "--model", "vim-tiny"), 4, "VIM-404", "vim-tiny is a classifier"),
        ((D08, "--model", "upernet-vim-tiny"), 4, "VIM-404", "a detection backbone"),
        ((E01, "--model", "upernet-vim-tinny"), 2, "VIM-201", "upernet-vim-tiny"),
        (("upernet-vim-tiny",), 4, "VIM-401", "none was published"),
        ((E01, "--head", "topk:3"), 2, "VIM-202", "not valid for a dense model"),
        ((E01, "--head", "labels+aux"), 2, "VIM-203", "no auxiliary head here"),
        ((D08, "--head", "labels"), 2, "VIM-203", "needs a segmentation head"),
        ((F01, "--head", "labels"), 2, "VIM-203", "is a detector fix: --head detections"),
        ((E01, "--image-size", "8"), 4, "VIM-406", "not covered by the patches"),
        ((E01, "--image-size", "16"), 4, "VIM-406", "too small"),
        ((D08, "--image-size", "64x96"), 4, "VIM-408", "rope"),
    ],
)
def test_what_cannot_be_exported(
    arguments: tuple[str, ...],
    status: int,
    code: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "m.onnx"
    assert run(["export", *arguments, "-o", str(output)]) == status
    words = " ".join(capsys.readouterr().err.split())
    assert code in words
    assert said in words
    assert "fix:" in words
    assert "Traceback" not in words
    assert not output.exists()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"in_chans": "three"}, "VIM-408"),
        ({"out_indices": [0, 9]}, "VIM-408"),
        ({"embed_dims": 48}, "VIM-201"),
        ({"in_chans": 7}, "VIM-404"),
        ({"embed_dim": 64}, "VIM-404"),
    ],
)
def test_configurations_of_a_user(
    change: dict[str, Any], code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = reference.dense_case("D01")
    config = tmp_path / "seg.json"
    config.write_text(json.dumps({**case.kwargs, **change}))
    assert run(["export", str(case.checkpoint), "--config", str(config)]) in (2, 4)
    assert code in capsys.readouterr().err


def test_labels_of_another_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("wall\nfloor\n")
    assert run(["export", E01, "--labels", str(labels)]) == 4
    assert "2 labels for 7 classes" in " ".join(capsys.readouterr().err.split())


def test_inspect_of_dense_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", E01, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dense"]["decode_head"]["num_classes"] == 7
    assert run(["inspect", D08, "-v"]) == 0
    assert "dense.pyramid.out_channels" in capsys.readouterr().out
