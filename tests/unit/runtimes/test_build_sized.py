"""Engines of models that are told the sizes of pictures: what is built, recorded, and checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest
from onnx import helper

from tests.support import detectors
from tests.support.builds import build_engine_rtx, build_engine_trt, needs_rtx
from tests.support.trt_builds import VERSIONS, make_machine
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.passport import Machine, check_passport
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import read_record
from vim_deploy.errors import VimDeployError
from vim_deploy.specs import TensorSpec

SIDE = 16


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return detectors.stand_in(tmp_path / "d.onnx", SIDE)


def in_opset_17(path: Path) -> None:
    """The stand-in as an export for TensorRT 8.6 would be."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type in ("ReduceMean", "ReduceMin"):
            axes = [1] if node.input.pop() == "one_axis" else [1, 2, 3]
            node.attribute.append(helper.make_attribute("axes", axes))
        if node.op_type == "Split":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("axis", 1))
    model.opset_import[0].version = 17
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@pytest.mark.parametrize("version", VERSIONS)
def test_both_inputs_and_all_outputs_are_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, version: str
) -> None:
    machine = make_machine(monkeypatch, tmp_path, version)
    if version == "8.6":
        in_opset_17(model)
    options = ProfileOptions(2, 3, 4)
    record = build_engine_trt(model, tmp_path / "d.plan", profiles=options)
    assert read_record(tmp_path / "d.plan") == record
    # TensorRT 8.6 knows no 64-bit integers, and its parser says so by making others.
    integer = "int32" if version == "8.6" else "int64"
    assert record.inputs == (
        TensorSpec("image", "float32", ("batch", 3, SIDE, SIDE)),
        TensorSpec("size", integer, ("batch", 2)),
    )
    assert [(spec.name, spec.dtype) for spec in record.outputs] == [
        ("boxes", "float32"),
        ("scores", "float32"),
        ("classes", integer),
        ("masks", "float32"),
        ("count", integer),
    ]
    (profile,) = record.profiles
    assert profile.shapes["image"].max == (4, 3, SIDE, SIDE)
    sizes = profile.shapes["size"]
    assert (sizes.min, sizes.opt, sizes.max) == ((2, 2), (3, 2), (4, 2))
    given = machine.fake.arguments("IOptimizationProfile.set_shape")
    assert [name for name, *_ in given] == ["image", "size"]

    engine = Artifact.open(tmp_path / "d.plan")
    assert engine.image_size == (SIDE, SIDE)
    here = Machine("tensorrt", record.runtime_version, "9.0", record.gpu)
    assert check_passport(engine, here, batch=4).plugin is None
    with pytest.raises(VimDeployError, match="VIM-905"):
        check_passport(engine, here, batch=5)


@needs_rtx
@pytest.mark.rtx
def test_tensorrt_rtx_takes_both_inputs(tmp_path: Path, model: Path) -> None:
    record = build_engine_rtx(model, tmp_path / "d.plan", profiles=ProfileOptions(1, 2, 4))
    onnx_file = Artifact.open(model)
    assert record.inputs == onnx_file.inputs
    assert record.outputs == onnx_file.outputs
    assert record.profiles[0].shapes["size"].max == (4, 2)


def test_a_batch_that_only_one_input_takes_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    make_machine(monkeypatch, tmp_path, "11")
    record = build_engine_trt(model, tmp_path / "d.plan", profiles=ProfileOptions(1, 2, 4))
    shapes = dict(record.profiles[0].shapes)
    shapes["size"] = dataclasses.replace(shapes["size"], min=(2, 2))
    profile = dataclasses.replace(record.profiles[0], shapes=shapes)
    engine = Artifact.open(tmp_path / "d.plan")
    # As a record would be whose engine another tool has built.
    other = dataclasses.replace(record, profiles=(profile,))
    monkeypatch.setitem(engine.__dict__, "record", other)
    monkeypatch.setattr(Artifact, "require_own_record", lambda _self, record: record)
    here = Machine("tensorrt", record.runtime_version, "9.0", record.gpu)
    for batch, taken in ((1, False), (2, True), (4, True)):
        if taken:
            check_passport(engine, here, batch=batch)
            continue
        with pytest.raises(VimDeployError, match="VIM-905") as caught:
            check_passport(engine, here, batch=batch)
        assert "2 to 4" in caught.value.why
