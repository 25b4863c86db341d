"""The screen that ``inspect`` prints first, of every kind of file; -v has all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.detectors import stand_in
from tests.support.engines import record_of, write_engine, write_record
from tests.support.models import perturbed, save_training_file, tiny_config
from tests.support.packages import classifier
from vim_deploy.cli.inspect_summary import summary
from vim_deploy.cli.main import run
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.recipe.catalog import recipe_names, recipes_folder
from vim_deploy.stages.inspecting import inspect

Captured = pytest.CaptureFixture[str]
#: Lines of a terminal.
_SCREEN = 40


def rows(path: Path) -> dict[str, str]:
    """The summary of a file, the last of rows that share a name."""
    return dict(summary(inspect(path)))


def test_of_an_exported_file(tmp_path: Path) -> None:
    found = rows(classifier(tmp_path / "toy.onnx"))
    assert found["input"] == "image: float32 batch x 1 x 2 x 3"
    assert found["output"] == "logits: float32 batch x 4"
    assert found["head"] == "logits"
    assert found["operators"] == "1 Flatten, 1 MatMul"
    assert found["parameters"] == "24"
    assert found["precision"] == "fp32, fp32 in and out"
    for name in ("model", "architecture", "preparation", "graph", "size", "SHA-256"):
        assert name in found


def test_of_another_exporters_file(tmp_path: Path) -> None:
    found = rows(classifier(tmp_path / "foreign.onnx", info=None))
    assert found["made by"].startswith("another exporter")
    assert found["input"].startswith("image: ")
    assert "head" not in found


def test_of_an_engine(tmp_path: Path) -> None:
    plan = write_engine(tmp_path)
    alone = rows(plan)
    assert alone["record"] == "none beside it: nothing else is known"
    write_record(plan, record_of(plan))
    found = rows(plan)
    assert found["built from"]
    assert found["input"]
    assert found["layers"]


def test_of_a_checkpoint(tmp_path: Path) -> None:
    save_training_file(perturbed(VisionMamba(tiny_config())), tmp_path / "tiny.pth")
    found = rows(tmp_path / "tiny.pth")
    assert found["holds"] == "classifier"
    assert found["architecture"].startswith("2 blocks of width 16, patches of ")


@pytest.mark.parametrize("name", recipe_names())
def test_of_every_recipe(name: str) -> None:
    found = rows(recipes_folder() / f"{name}.toml")
    assert found["name"] == name
    assert found["preparation"]


def test_of_a_package(tmp_path: Path, capsys: Captured) -> None:
    made = tmp_path / "made"
    model = classifier(tmp_path / "toy.onnx")
    assert run(["-q", "package", str(model), "--runtime", "python", "-o", str(made)]) == 0
    assert capsys.readouterr().out == f"{made}\n"
    found = rows(made)
    assert found["package for"] == "triton"
    assert found["input"] == "image: float32 batch x 1 x 2 x 3"
    assert found["precision"] == "fp32"
    assert found["files"].endswith("as the manifest says")


def test_it_is_one_screen_and_verbose_says_all(tmp_path: Path, capsys: Captured) -> None:
    model = str(classifier(tmp_path / "toy.onnx"))
    assert run(["inspect", model]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) <= _SCREEN
    assert err == f"all that is known: vim-deploy inspect -v {model}\n"
    assert "export.model_config.depth" not in out
    for words in (["-v", "inspect", model], ["inspect", model, "-v"]):
        assert run(words) == 0
        out, err = capsys.readouterr()
        assert "export.model_config.depth" in out
        assert err == ""


def test_of_a_detector(tmp_path: Path) -> None:
    found = rows(stand_in(tmp_path / "det.onnx"))
    assert found["dense model"] == "detection"
    assert found["detector"] == "a cascade of 3 stages, 3 classes, one box for all classes"
    assert found["proposals"].startswith("1000 of the best 1000 of each level")
    assert found["box head"] == "4 convolutions, then 1024"
    assert found["mask head"] == "4 convolutions"
    assert found["detections"].startswith("at most 5 with a score above 0.05")
    assert found["input"] == "size: int64 batch x 2"
    assert "the longer side fitted" in found["preparation"]
    assert found["left to the caller"].endswith("the size of each picture")
    without = stand_in(tmp_path / "boxes.onnx", masks=False)
    assert rows(without)["mask head"] == "none"
