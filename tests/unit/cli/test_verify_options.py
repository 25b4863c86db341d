"""``vim-deploy verify``: options that belong together, and what says no to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support import plant
from tests.support.models import perturbed, save_training_file, tiny_config
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, its float32 export, and files that look like an engine and stored outputs."""
    place = tmp_path_factory.mktemp("options")
    save_training_file(perturbed(VisionMamba(tiny_config(depth=1))), place / "tiny.pth")
    request = ModelRequest(str(place / "tiny.pth"), config=encode(tiny_config(depth=1)))
    export(request, place / "tiny.onnx", ExportOptions(check=False))
    (place / "tiny.plan").write_bytes(b"ftrt" + bytes(60))
    np.savez(place / "stored.npz", image=np.zeros(1))
    (place / "policy.toml").write_text("format = 1\n")
    return place


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


TRUE = ("--against", "tiny.pth")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["tiny.onnx"], "VIM-203", "--against CHECKPOINT"),
        (["tiny.onnx", *TRUE, "--ladder", "--bisect"], "VIM-203", "two comparisons"),
        (["tiny.onnx", *TRUE, "--ladder", "--dataset", "x"], "VIM-203", "two comparisons"),
        (["tiny.onnx", *TRUE, "--max-loss", "1%"], "VIM-203", "--max-loss has no effect"),
        (["tiny.onnx", *TRUE, "-o", "x.toml"], "VIM-203", "--output has no effect"),
        (["tiny.onnx", *TRUE, "--force"], "VIM-203", "--force has no effect"),
        (["tiny.onnx", *TRUE, "--precision", "fp16"], "VIM-203", "--precision has no effect"),
        (["tiny.onnx", *TRUE, "--model", "vim-tiny"], "VIM-203", "how a checkpoint is read"),
        (["tiny.onnx", *TRUE, "--dataset", "x", "--per-block"], "VIM-203", "--per-block"),
        (["tiny.onnx", *TRUE, "--dataset", "x", "--kl", "1"], "VIM-203", "--kl"),
        (["tiny.onnx", *TRUE, "--ladder", "--force"], "VIM-203", "--force has no effect"),
        (["tiny.onnx", *TRUE, "--ladder", "--max-trials", "9"], "VIM-203", "--max-trials"),
        (["tiny.onnx", *TRUE, "--ladder", "--twin"], "VIM-203", "--twin"),
        (["tiny.onnx", *TRUE, "--ladder", "--model", "vim-tiny"], "VIM-203", "says itself"),
        (["tiny.onnx", *TRUE, "--ladder", "--precision", "fp16"], "VIM-203", "leads to it"),
        (["tiny.onnx", "--ladder"], "VIM-203", "add --against CHECKPOINT"),
        (["tiny.onnx", "--ladder", "--against", "stored.npz"], "VIM-203", "CHECKPOINT"),
        (["tiny.pth", "--ladder", "--against", "tiny.pth"], "VIM-203", "a checkpoint itself"),
        (["tiny.pth", "--ladder", "--provider", "cpu"], "VIM-203", "--provider"),
        (["tiny.onnx", *TRUE, "--bisect"], "VIM-203", "float32 already"),
        (["tiny.onnx", *TRUE, "--bisect", "--per-block"], "VIM-203", "--per-block"),
        (["tiny.onnx", *TRUE, "--bisect", "--provider", "cpu"], "VIM-203", "--provider"),
        (
            ["tiny.onnx", *TRUE, "--bisect", "--precision", "fp16", "--precision-policy",
             "policy.toml"],
            "VIM-203", "--precision-policy",
        ),
        (["tiny.pth", "--ladder", "--precision-policy", "policy.toml"], "VIM-203", "nothing to"),
        (["tiny.plan", *TRUE, "--per-block"], "VIM-422", "verify the ONNX file"),
        (["tiny.plan", *TRUE, "--ladder", "--per-block"], "VIM-422", "verify the ONNX file"),
        (["tiny.onnx", "--against", "stored.npz", "--per-block"], "VIM-422", "outputs only"),
        (["tiny.onnx", "--against", "tiny.plan", "--per-block"], "VIM-422", "is an engine"),
        (
            ["tiny.onnx", *TRUE, "--per-block", "--provider", "tensorrt"],
            "VIM-422", "gives out no inner tensors",
        ),
        (["absent.pth", "--ladder"], "VIM-401", "absent.pth"),
        (["absent.onnx", *TRUE, "--ladder"], "VIM-401", "absent.onnx"),
    ],
)  # fmt: skip
def test_refused(arguments: list[str], code: str, says: str, capsys: Any) -> None:
    assert run(["verify", *arguments]) == int(code[4])
    error = capsys.readouterr().err
    assert error.startswith(f"error {code}"), error
    assert says in error
    assert not Path("parity.json").exists()


def test_a_file_whose_names_were_changed_shows_no_inner_tensors(capsys: Any) -> None:
    graph = onnx.load("tiny.onnx")
    for node in graph.graph.node:
        node.name = f"node_{node.name.replace('/', '_')}"
    onnx.save(graph, "renamed.onnx")
    assert run(["verify", "renamed.onnx", *TRUE, "--per-block", "--random", "1"]) == 4
    error = capsys.readouterr().err
    assert "VIM-422" in error
    assert "none of its nodes is named after a block" in error
    # A ladder says which rung is broken all the same.
    plant.change_weight(graph, "head.weight", lambda values: values + 1)
    onnx.save(graph, "renamed.onnx")
    assert run(["verify", "renamed.onnx", *TRUE, "--ladder", "--random", "1"]) == 7
    error = capsys.readouterr().err
    assert "the first broken rung is renamed.onnx" in error
    assert "named after a block" in error


def test_two_files_are_compared_part_by_part_without_pytorch(capsys: Any) -> None:
    arguments = ["--against", "tiny.onnx", "--per-block", "--random", "1", "--batches", "1"]
    assert run(["verify", "tiny.onnx", *arguments, "--report", "."]) == 0
    shown = capsys.readouterr().out
    Path("parity.json").unlink()
    assert "part by part (relative L2, limit 0.0001): random (seed 0), image 1 of 1" in shown
    assert "patch_embed" in shown
    assert "parts are within 0.0001" in shown
