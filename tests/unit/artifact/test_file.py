"""What a file is: kinds, facts of either kind, and one read of one file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from tests.support.onnx_door import model
from vim_deploy.artifact import Artifact, file
from vim_deploy.artifact.file import Kind, named
from vim_deploy.artifact.onnx_file import OnnxFile, read_onnx
from vim_deploy.errors import VimDeployError


def _written(path: Path) -> Path:
    path.write_bytes(model().SerializeToString())
    return path


@pytest.mark.parametrize(
    ("name", "start", "kind"),
    [
        ("m.onnx", b"", "onnx"),
        ("m", b"\x08\x09", "onnx"),
        ("m.plan", b"", "engine"),
        ("m.engine", b"", "engine"),
        ("m.bin", b"ftrt", "engine"),
        ("m.onnx", b"vtrt", "engine"),
        ("m.toml", b"", "recipe"),
        ("m.pth", b"", "checkpoint"),
        ("m.safetensors", b"", "checkpoint"),
        ("m", b"PK\x03\x04", "checkpoint"),
        ("m", b"\x80\x02", "checkpoint"),
    ],
)
def test_kind_by_name_and_first_bytes(tmp_path: Path, name: str, start: bytes, kind: Kind) -> None:
    path = tmp_path / name
    path.write_bytes(start)
    assert Artifact.open(path).kind == kind


def test_a_folder_is_a_package_where_folders_are_asked_for(tmp_path: Path) -> None:
    assert Artifact.open(tmp_path, folders=True).kind == "package"
    with pytest.raises(VimDeployError, match="it is a folder") as caught:
        Artifact.open(tmp_path)
    assert caught.value.code == "VIM-401"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("a/m.onnx", "onnx"),
        ("m.plan", "engine"),
        ("m.engine", "engine"),
        ("m.npz", "stored"),
        ("m.pth", "checkpoint"),
        ("vim-digits", "checkpoint"),
        ("hf:hustvl/Vim-tiny-midclstok", "checkpoint"),
    ],
)
def test_what_a_name_says(source: str, what: str) -> None:
    assert named(source) == what


def test_everything_about_a_model_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []

    def counted(path: Path) -> OnnxFile:
        loads.append(path)
        return read_onnx(path)

    monkeypatch.setattr(file, "read_onnx", counted)
    artifact = Artifact.open(_written(tmp_path / "m.onnx"))
    assert loads == []
    assert isinstance(artifact.model, onnx.ModelProto)
    assert [spec.name for spec in artifact.inputs] == ["image"]
    assert [spec.name for spec in artifact.outputs] == ["logits"]
    assert (artifact.info, artifact.record, artifact.companions) == (None, None, ())
    assert artifact.precision == "fp32"
    assert len(loads) == 1
    artifact.forget_model()
    assert artifact.inputs[0].name == "image"
    assert len(loads) == 1
    assert artifact.model.graph.node
    assert len(loads) == 2


def test_the_hash_is_of_the_file_that_was_opened(tmp_path: Path) -> None:
    path = _written(tmp_path / "m.onnx")
    artifact = Artifact.open(path)
    other = _written(tmp_path / "other.onnx")
    other.replace(path)
    with pytest.raises(VimDeployError) as caught:
        _ = artifact.sha256
    assert caught.value.code == "VIM-439"


def test_what_a_foreign_file_does_not_say(tmp_path: Path) -> None:
    artifact = Artifact.open(_written(tmp_path / "m.onnx"))
    with pytest.raises(VimDeployError, match=r"m\.onnx does not say how pictures") as caught:
        artifact.require_info()
    assert caught.value.code == "VIM-410"
    with pytest.raises(VimDeployError, match="no image input of a fixed size") as caught:
        _ = artifact.image_size
    assert caught.value.code == "VIM-415"


def test_an_engine_without_record_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.plan"
    path.write_bytes(b"ftrt" + bytes(60))
    artifact = Artifact.open(path)
    assert (artifact.record, artifact.info, artifact.inputs) == (None, None, ())
    with pytest.raises(VimDeployError, match=r"nothing says which images m\.plan takes"):
        _ = artifact.image_size


def test_reading_needs_no_runtime() -> None:
    code = (
        "import sys; from vim_deploy.artifact import Artifact; print([name for name in "
        "('torch', 'onnxruntime', 'tensorrt', 'onnxscript') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
