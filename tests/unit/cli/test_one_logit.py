"""A classifier with one logit: export with two labels, run, and accuracy on a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from tests.support.models import tiny_config
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.seeding import seed_weights

DARK, BRIGHT = 40, 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, and a data set of two pictures."""
    place = tmp_path_factory.mktemp("one")
    config = tiny_config(num_classes=1)
    model = VisionMamba(config)
    seed_weights(model, 0)
    torch.save({"model": model.state_dict()}, place / "one.pth")
    (place / "one.json").write_text(json.dumps(encode(config)))
    (place / "two.txt").write_text("night\nday\n")
    for name, level in (("night", DARK), ("Day", BRIGHT)):
        (place / "set" / name).mkdir(parents=True)
        pixels = np.full((20, 20, 3), level, np.uint8)
        PIL.Image.fromarray(pixels).save(place / "set" / name / "0.png")
    return place


def export(folder: Path, *more: object) -> int:
    words = ("export", folder / "one.pth", "--config", folder / "one.json", "-o", folder / "m.onnx")
    return run([str(word) for word in ("-q", *words, "--force", *more)])


def answer(capsys: Any, *words: object) -> dict[str, Any]:
    """The one JSON object that a command prints."""
    capsys.readouterr()
    assert run([*map(str, words), "--json"]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_the_sigmoid_is_the_probability_of_the_second_class(folder: Path, capsys: Any) -> None:
    assert export(folder, "--labels", folder / "two.txt") == 0
    raw = folder / "raw.npz"
    value = answer(capsys, "run", folder / "m.onnx", folder / "set", "-o", raw, "--force")
    with np.load(raw) as stored:
        logits = dict(zip(stored["image_files"], stored["logits"][:, 0], strict=True))
    for item in value["images"]:
        wanted = 1 / (1 + np.exp(-np.float64(logits[item["file"]])))
        found = {entry["label"]: entry for entry in item["top"]}
        assert found["day"]["index"] == 1
        assert found["day"]["probability"] == pytest.approx(wanted)
        assert found["night"]["probability"] == pytest.approx(1 - wanted)
        assert item["top"][0]["index"] == int(logits[item["file"]] > 0)


def test_accuracy_of_two_classes(folder: Path, capsys: Any) -> None:
    assert export(folder, "--labels", folder / "two.txt") == 0
    words = ("verify", folder / "m.onnx", "--against", folder / "one.pth")
    value = answer(capsys, *words, "--dataset", folder / "set", "--report", folder / "report")
    assert (value["dataset"]["images"], value["same_class"]) == (2, 2)
    assert value["dataset"]["classes_by"].startswith("folders are class names, 1 of 2 written")
    assert value["top5"] is None


def test_labels_of_one_logit(folder: Path, capsys: Any) -> None:
    (folder / "one.txt").write_text("day\n")
    assert export(folder, "--labels", folder / "one.txt") == 0
    tops = answer(capsys, "run", folder / "m.onnx", folder / "set")["images"][0]["top"]
    assert {entry["index"]: entry["label"] for entry in tops} == {0: "not day", 1: "day"}
    (folder / "three.txt").write_text("a\nb\nc\n")
    assert export(folder, "--labels", folder / "three.txt") == 4
    assert "3 labels for 2 classes" in capsys.readouterr().err


@pytest.mark.parametrize("head", ["softmax", "topk:1"])
def test_scores_of_one_logit_would_say_nothing(folder: Path, capsys: Any, head: str) -> None:
    assert export(folder, "--head", head) == 2
    assert "VIM-203" in capsys.readouterr().err
