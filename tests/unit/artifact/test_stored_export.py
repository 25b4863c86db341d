"""What ONNX metadata says: what no export writes is refused before anything uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.support.engines import EXPORT
from tests.support.packages import classifier
from tests.support.reference import REPOSITORY
from vim_deploy.artifact import metadata
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import find
from vim_deploy.model.reference import reference_model

PICTURES = str(REPOSITORY / "tests" / "data" / "digits")


def model_with(tmp_path: Path, text: str) -> onnx.ModelProto:
    model = onnx.load(classifier(tmp_path / "m.onnx"))
    (entry,) = model.metadata_props
    entry.value = text
    onnx.save(model, tmp_path / "m.onnx")
    return model


def changed(*keys: Any, by: Any) -> str:
    value = json.loads(json.dumps(encode(EXPORT)))
    place = value
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = by
    return json.dumps(value)


def test_round_trip(tmp_path: Path) -> None:
    model = model_with(tmp_path, changed("later", by={"more": [1]}))
    assert metadata.find(model) == EXPORT


def test_an_architecture_of_a_later_version_is_no_reference(tmp_path: Path) -> None:
    """The file still runs; only the PyTorch model that it came from cannot be made here."""
    info = metadata.find(model_with(tmp_path, changed("model_config", "if_hydra", by=True)))
    assert info is not None
    assert info.unread == ("model_config.if_hydra",)
    assert encode(info) == encode(EXPORT)
    with pytest.raises(VimDeployError) as caught:
        reference_model("seed:0", info)
    assert caught.value.code == "VIM-201"
    assert "model_config.if_hydra" in caught.value.message


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "truncated"),
        ("[]", "object"),
        ("{}", "missing"),
        ("[" * 100_000, "levels deep"),
        (changed("image", "std", by=[float("nan")]), "invalid"),
        (changed("image", "std", by=[0]), "positive numbers"),
        (changed("image", "std", by=[-1.0]), "positive numbers"),
        (changed("image", "std", by=[1e-300]), "no numbers"),
        (changed("image", "std", by=[1e300]), "no numbers"),
        (changed("image", "mean", by=[1e300]), "no numbers"),
        (changed("image", "mean", by=[]), "0 numbers for 1 channels"),
        (changed("image", "std", by=[1, 1, 1]), "3 numbers for 1 channels"),
        (changed("image", "mean", by="0.5"), "mean"),
        (changed("image", "height", by=0), "image size"),
        (changed("image", "height", by=2.5), "height"),
        (changed("image", "width", by=1 << 40), "image size"),
        (changed("image", "channels", by=-1), "channels"),
        (changed("image", "crop_ratio", by=0), "crop ratio"),
        (changed("image", "crop_ratio", by=5e-324), "crop ratio"),
        (changed("image", "crop_ratio", by="1"), "crop_ratio"),
        (changed("image", "interpolation", by="bicubik"), "did you mean 'bicubic'?"),
        (changed("image", "interpolation", by=["bicubic"]), "interpolation"),
        (changed("image", by=None), "image"),
        (changed("preprocess", by={}), "preprocess"),
        (changed("preprocess", by="uint9"), "preprocess"),
        (changed("precision", by="fp4"), "precision"),
        (changed("head", by=None), "head"),
        (changed("head", by="topk:0"), "head"),
        (changed("head", by="topk:" + "9" * 5000), "head"),
        (changed("opset", by=0), "opset"),
        (changed("opset", by="18"), "opset"),
        (changed("labels", by="north"), "labels"),
        (changed("labels", by=[1, 2]), "labels"),
        (changed("model_config", by=[]), "model_config"),
        (changed("dense", by={"task": "depth"}), "'depth' - at `$.dense.task`"),
        (changed("dense", by={"out_indices": [1]}), "missing required field `task`"),
        (changed("checkpoint", "sha256", by=0), "sha256"),
    ],
)
def test_what_no_export_writes(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        metadata.find(model_with(tmp_path, text))
    assert caught.value.code == "VIM-410"
    assert why in caught.value.why


def test_a_head_without_its_outputs_gives_no_classes() -> None:
    shapes = {"probabilities": (3, 2), "classes": (3, 2)}
    assert find("topk:2", dense=False).has_classes(shapes)
    assert not find("topk:2", dense=False).has_classes({"probabilities": (3, 2)})
    assert not find("logits", dense=False).has_classes(shapes)


@pytest.mark.parametrize("command", [["inspect"], ["run"], ["package"]])
def test_commands_say_so(tmp_path: Path, capsys: Any, command: list[str]) -> None:
    model_with(tmp_path, changed("image", "std", by=[0]))
    picture = [PICTURES] if command == ["run"] else []
    assert run([*command, str(tmp_path / "m.onnx"), *picture]) == 4
    assert "error VIM-410" in capsys.readouterr().err
