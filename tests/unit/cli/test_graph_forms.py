"""``vim-deploy export --graph`` and ``--dump-passes``: what they record, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.support.models import perturbed, save_training_file, tiny_config
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.graph.verify import form_for
from vim_deploy.specs import GraphForm

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``export`` of a tiny checkpoint to x.onnx in an empty folder, unchecked, as JSON."""
    return _arguments(tmp_path, monkeypatch, bimamba_type="v2")


def _arguments(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> list[str]:
    monkeypatch.chdir(folder)
    config = tiny_config(depth=1, **changes)
    save_training_file(perturbed(VisionMamba(config)), folder / "x.pth")
    Path("x.json").write_text(json.dumps(encode(config)))
    return ["export", "x.pth", "--config", "x.json", "-o", "x.onnx", "--no-check", "--json"]


def exported(capsys: Capture, *arguments: str) -> dict[str, object]:
    assert run(list(arguments)) == 0, capsys.readouterr().err
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_low_rank_is_the_default_of_a_narrow_model_and_another_form_replaces_nothing(
    arguments: list[str], capsys: Capture
) -> None:
    found = exported(capsys, *arguments)
    assert (found["fused_scans"], found["fused_convolutions"], found["scans"]) == (1, 1, 2)
    assert found["export"]["graph"] == "fused-low-rank"
    assert [report["name"] for report in found["passes"]][-1] == "bi_selective_scan"
    assert exported(capsys, *arguments, "--graph", "fused-low-rank")["up_to_date"]
    assert run([*arguments, "--graph", "fused"]) != 0
    assert "differs in graph" in capsys.readouterr().err
    assert run([*arguments, "--graph", "base"]) != 0
    assert "differs in graph" in capsys.readouterr().err
    base = exported(capsys, *arguments, "--graph", "base", "--force")
    assert (base["fused_scans"], base["scans"], base["passes"]) == (0, 2, [])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"embed_dim": 192}, "fused-low-rank"),  # Vim-Ti: rank 12
        ({"embed_dim": 384}, "fused"),  # Vim-S
        ({"embed_dim": 768}, "fused"),  # Vim-B
        ({"embed_dim": 192, "ssm_cfg": {"dt_rank": 13}}, "fused"),
        ({"embed_dim": 384, "ssm_cfg": {"dt_rank": 12}}, "fused-low-rank"),
        ({"embed_dim": 192, "bimamba_type": "v1"}, "fused"),  # nothing to fuse
    ],
)
def test_auto_goes_by_the_rank_of_dt(changes: dict[str, Any], expected: str) -> None:
    config = VimConfig(**changes)
    assert form_for("auto", config) == expected
    for form in get_args(GraphForm):
        assert form_for(form, config) == form


def test_scan_body_is_recorded_and_another_one_replaces_nothing(
    arguments: list[str], capsys: Capture
) -> None:
    found = exported(capsys, *arguments, "--scan-body", "unrolled")
    assert (found["export"]["scan_body"], found["loops"]) == ("unrolled", 0)
    assert exported(capsys, *arguments, "--scan-body", "unrolled")["up_to_date"]
    assert run(arguments) != 0
    assert "differs in scan_body" in capsys.readouterr().err
    assert exported(capsys, "inspect", "x.onnx", "--json")["export"]["scan_body"] == "unrolled"
    assert run(["inspect", "x.onnx", "-v"]) == 0
    table = capsys.readouterr().out
    assert "export.scan_body" in table
    assert "graph.loops" in table
    assert exported(capsys, *arguments, "--force")["loops"] == 1


def test_unrolled_and_typed(arguments: list[str], capsys: Capture) -> None:
    # Checked against PyTorch: what is typed is the body without a loop.
    arguments.remove("--no-check")
    found = exported(capsys, *arguments, "--scan-body", "unrolled", "--precision", "fp16")
    assert (found["export"]["scan_body"], found["export"]["precision"]) == ("unrolled", "fp16")
    assert found["loops"] == 0
    assert found["parity"]["passed"]


def test_dump_of_an_export_that_is_up_to_date(arguments: list[str], capsys: Capture) -> None:
    exported(capsys, *arguments)
    before = Path("x.onnx").read_bytes()
    assert not exported(capsys, *arguments, "--dump-passes", "steps")["up_to_date"]
    names = sorted(path.name for path in Path("steps").iterdir())
    assert names[0] == "00_base.onnx"
    assert names[-1] == "passes.json"
    assert len(names) == 7
    assert Path("x.onnx").read_bytes() == before


def test_dump_of_a_base_graph_is_refused(arguments: list[str], capsys: Capture) -> None:
    assert run([*arguments, "--graph", "base", "--dump-passes", "steps"]) == 2
    assert "nothing to dump" in capsys.readouterr().err
    assert not Path("steps").exists()
    assert not Path("x.onnx").exists()


def test_dump_into_a_place_that_takes_no_folder(arguments: list[str], capsys: Capture) -> None:
    Path("steps").write_text("a file")
    assert run([*arguments, "--dump-passes", "steps/inside"]) == 3
    assert "VIM-304" in capsys.readouterr().err
    assert not Path("x.onnx").exists()


def test_what_is_not_fused_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    arguments = _arguments(tmp_path, monkeypatch, bimamba_type="v1")
    assert run(arguments) == 0
    printed = capsys.readouterr()
    said = "not fused: the directions share one convolution"
    assert said in printed.err
    assert any(note.startswith(said) for note in json.loads(printed.out)["notes"])
