"""Weights beside an ONNX file: where they may lie, and what an ONNX file says of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tests.support.onnx_door import read
from vim_deploy.artifact.onnx_file import read_onnx
from vim_deploy.errors import VimDeployError


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../beside",
        "a/../../b",
        "..\\b",
        "",
        ".",
        "absent.data",
        "short.data",
        "link.data",
        "linked/w.data",
        "folder",
        "pipe",
        "c:w.data",
        "w.data\0",
    ],
)
def test_weights_from_elsewhere(tmp_path: Path, location: str) -> None:
    (tmp_path.parent / "beside").write_bytes(bytes(24))
    (tmp_path / "short.data").write_bytes(bytes(4))
    (tmp_path / "w.data").write_bytes(bytes(24))
    (tmp_path / "link.data").symlink_to(tmp_path / "w.data")
    (tmp_path / "linked").symlink_to(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    def change(changed: onnx.ModelProto) -> None:
        tensor = changed.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    with pytest.raises(VimDeployError) as caught:
        read(tmp_path, change)
    assert caught.value.code == "VIM-409"


def outside(tmp_path: Path, copies: int = 0, **entries: str) -> onnx.ModelProto:
    """The model with its weight in ``w.data``, described by ``entries``, and copies of it."""
    (tmp_path / "w.data").write_bytes(np.arange(6, dtype=np.float32).tobytes())

    def change(changed: onnx.ModelProto) -> None:
        tensor = changed.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.data", **entries}.items():
            tensor.external_data.add(key=key, value=value)
        for number in range(copies):
            changed.graph.initializer.add().CopyFrom(tensor)
            changed.graph.initializer[-1].name = f"copy{number}"

    return read(tmp_path, change)


@pytest.mark.parametrize(
    "entries", [{}, {"offset": "0"}, {"offset": "0", "length": "24"}, {"checksum": "x"}]
)
def test_weights_beside_the_model(tmp_path: Path, entries: dict[str, str]) -> None:
    (weight,) = outside(tmp_path, **entries).graph.initializer
    np.testing.assert_array_equal(
        numpy_helper.to_array(weight), np.arange(6, dtype=np.float32).reshape(3, 2)
    )
    path = tmp_path / "m.onnx"
    assert list(read_onnx(path, outside=False).beside) == ["w.data"]
    assert len(outside(tmp_path, copies=2).graph.initializer) == 3


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"offset": "-1"}, "offset"),
        ({"offset": "x"}, "offset"),
        ({"offset": "9" * 5000}, "offset"),
        ({"length": "\u0662\u0664"}, "length"),
        ({"offset": "4"}, "do not hold"),
        ({"length": "23"}, "do not hold"),
        ({"length": "25"}, "do not hold"),
        ({"key": "value"}, "says 'key'"),
    ],
)
def test_places_that_the_weights_do_not_have(
    tmp_path: Path, entries: dict[str, str], why: str
) -> None:
    with pytest.raises(VimDeployError, match=why) as caught:
        outside(tmp_path, **entries)
    assert caught.value.code == "VIM-409"


def test_a_file_that_very_many_tensors_share(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError, match="ask for 264 bytes of files that have 24"):
        outside(tmp_path, copies=10)


def test_weights_beside_a_model_whose_name_is_no_text(tmp_path: Path) -> None:
    """Runtimes would look for them in the working folder, where another model's may lie."""
    outside(tmp_path)
    path = tmp_path / os.fsdecode(b"\xe9.onnx")
    (tmp_path / "m.onnx").rename(path)
    with pytest.raises(VimDeployError, match="rename it") as caught:
        read_onnx(path)
    assert caught.value.code == "VIM-409"
