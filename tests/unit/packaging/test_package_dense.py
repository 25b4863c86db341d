"""Packages of dense models: what is stored, served and printed, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.engines import EXPORT
from tests.support.packages import SERVED, engine, names_of
from vim_deploy.artifact import metadata
from vim_deploy.errors import VimDeployError
from vim_deploy.packaging import golden
from vim_deploy.packaging.golden import read_golden
from vim_deploy.packaging.manifest import read_manifest
from vim_deploy.parity.metrics import tolerance_for
from vim_deploy.recipe.dense_config import DenseConfig, UperHeadConfig
from vim_deploy.stages import check_package, package
from vim_deploy.stages.packaging import PackageOptions

pytest.importorskip("onnxruntime")

DENSE = DenseConfig("segmentation", (0, 1, 2, 3), decode_head=UperHeadConfig(8, 4))
LABELS = ("wall", "sky", "tree", "road")


def segmentor(path: Path, head: str) -> Path:
    """Four channels of pixels, [batch, 4, 2, 3], from one; or the largest of them."""
    weight = np.array([1, -1, 0.5, -0.5], np.float32).reshape(4, 1, 1, 1)
    nodes = [helper.make_node("Conv", ["image", "w"], ["logits"])]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 4, 2, 3))
    if head == "labels":
        nodes.append(helper.make_node("ArgMax", ["logits"], ["labels"], axis=1, keepdims=0))
        output = helper.make_tensor_value_info("labels", TensorProto.INT64, ("batch", 2, 3))
    graph = helper.make_graph(
        nodes,
        "segmentor",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("batch", 1, 2, 3))],
        [output],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    metadata.attach(model, dataclasses.replace(EXPORT, head=head, dense=DENSE, labels=LABELS))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("head", "dims", "dtype"), [("labels", "2, 3", "INT64"), ("upsampled", "4, 2, 3", "FP32")]
)
def test_a_segmentation_network_is_packaged_whole(
    tmp_path: Path, head: str, dims: str, dtype: str
) -> None:
    result = package(segmentor(tmp_path / "seg.onnx", head), tmp_path / "made")
    config = (result.folder / "models/seg/config.pbtxt").read_text()
    assert f"dims: [ {dims} ]" in config
    assert f"TYPE_{dtype}" in config
    # Labels of pixels are no columns of an output: Triton's own ranking does not fit.
    assert "label_filename" not in config
    given, outputs = read_golden(result.folder / "golden.npz")
    assert [len(value) for value in outputs.values()] == [len(given.images)]
    facts = read_manifest(result.folder).about
    assert facts["golden"]["tolerance"]["label_agreement"] == 0.9998
    checks = {item.name: item.checked for item in check_package(result.folder).checks}
    assert checks["golden output"]


def test_stored_answers_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One picture's logits are 96 bytes.
    monkeypatch.setattr(golden, "_MOST_BYTES", 200)
    result = package(segmentor(tmp_path / "seg.onnx", "upsampled"), tmp_path / "made")
    assert len(read_golden(result.folder / "golden.npz")[0].images) == 2
    monkeypatch.setattr(golden, "_MOST_BYTES", 1)
    result = package(segmentor(tmp_path / "seg.onnx", "upsampled"), tmp_path / "other")
    assert len(read_golden(result.folder / "golden.npz")[0].images) == 1


def test_no_classifier_program_for_a_dense_engine(tmp_path: Path) -> None:
    export = dataclasses.replace(EXPORT, head="labels", dense=DENSE)
    with pytest.raises(VimDeployError) as caught:
        package(engine(tmp_path, export=export), tmp_path / "cpp", PackageOptions(target="cpp"))
    assert caught.value.code == "VIM-431"
    assert "--target triton" in caught.value.fix
    assert not (tmp_path / "cpp").exists()


@pytest.fixture(scope="module")
def client() -> SimpleNamespace:
    return names_of(SERVED / "client.py")


def shown(
    client: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
    outputs: dict[str, Any],
    as_json: bool,
    head: str = "labels",
) -> str:
    options = SimpleNamespace(top=2, json=as_json)
    facts = {"head": head, "labels": list(LABELS)}
    client.show("photo.jpg", outputs, 0, facts, options)
    return capsys.readouterr().out


def test_the_client_prints_the_largest_areas(
    client: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.array([[[1, 1, 1], [3, 3, 0]]])
    said = shown(client, capsys, {"labels": labels}, False)
    assert said.splitlines() == [
        "photo.jpg\t1 sky\t50.00 % of the pixels",
        "photo.jpg\t3 road\t33.33 % of the pixels",
    ]
    logits = np.moveaxis(np.eye(4)[labels], -1, 1)
    assert shown(client, capsys, {"logits": logits}, False, "logits") == said
    value = json.loads(shown(client, capsys, {"labels": labels}, True))
    assert value["top"] == []
    assert value["areas"][0] == [1, "sky", 0.5]


def test_the_client_describes_feature_maps(
    client: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = {"p2": np.full((1, 2, 4, 4), 3.0), "p3": np.zeros((1, 2, 2, 2))}
    said = shown(client, capsys, maps, False, "features").splitlines()
    assert said[0] == "photo.jpg\tp2 [2, 4, 4]\tmean 3, rms 3"
    assert len(said) == 2
    value = json.loads(shown(client, capsys, maps, True, "features"))
    assert value["outputs"]["p3"] == {"shape": [2, 2, 2], "mean": 0.0, "rms": 0.0}


def test_pixels_that_differ(client: SimpleNamespace) -> None:
    limits = dataclasses.asdict(tolerance_for("fp16"))
    labels = np.zeros((1, 10, 10), np.int64)
    other = labels.copy()
    other[0, 0, :2] = 1
    assert client.difference("labels", labels, other, limits) == []
    other[0, 0, 2] = 1
    assert client.difference("labels", labels, other, limits) == ["labels: 3 of 100 pixels differ"]
