"""Refit on the fake: every weight of another file, or nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support import tiny_onnx
from tests.support.builds import build_engine_trt
from tests.support.fake_tensorrt import worker as fake_worker
from tests.support.fake_tensorrt.plan import decode_plan
from tests.support.trt_builds import VERSIONS, half_scan_blocks, make_machine, save
from vim_deploy.artifact.record import read_record, record_path
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building import build as building
from vim_deploy.runtimes.building import process as build_process
from vim_deploy.runtimes.building.request import TrtOptions
from vim_deploy.runtimes.tensorrt.refit import refit_engine

REFIT = TrtOptions(refit=True)


def changed(model: onnx.ModelProto, factor: float = 2.0) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(
            numpy_helper.from_array((values * factor).astype(values.dtype), tensor.name)
        )
    return model


def hashes(plan: Path) -> dict[str, str]:
    weights = decode_plan(plan.read_bytes())["weights"]
    return {name: digest for name, (_, _, digest) in weights.items()}


def expected(model: onnx.ModelProto) -> dict[str, str]:
    return {
        tensor.name: hashlib.sha256(numpy_helper.to_array(tensor).tobytes()).hexdigest()
        for tensor in model.graph.initializer
    }


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda version, **behaviour: make_machine(monkeypatch, tmp_path, version, **behaviour)


@pytest.fixture
def plan(tmp_path) -> Path:
    return tmp_path / "m.plan"


def error_of(plan: Path, weights: Path, **arguments) -> VimDeployError:
    before = {path: path.read_bytes() for path in plan.parent.iterdir() if path.is_file()}
    with pytest.raises(VimDeployError) as caught:
        refit_engine(plan, weights, **arguments)
    assert caught.value.fix
    assert {path: path.read_bytes() for path in plan.parent.iterdir() if path.is_file()} == before
    return caught.value


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("blocks", [tiny_onnx.scan_blocks, half_scan_blocks])
def test_every_weight_is_exchanged(make, tmp_path, plan, version, blocks):
    make(version)
    built = build_engine_trt(save(blocks(2), tmp_path / "a.onnx"), plan, options=REFIT)
    assert hashes(plan) == expected(blocks(2))
    other = changed(blocks(2))
    record = refit_engine(plan, save(other, tmp_path / "b.onnx"))
    assert hashes(plan) == expected(other)
    assert read_record(plan) == record
    assert record.weights_from.name == "b.onnx"
    assert record.source == built.source
    assert record.plan.sha256 != built.plan.sha256
    assert record.refittable
    again = refit_engine(plan, tmp_path / "a.onnx", tmp_path / "c.plan")
    assert hashes(tmp_path / "c.plan") == expected(blocks(2))
    assert again.plan.name == "c.plan"


def test_a_refitted_engine_is_not_what_the_build_would_make(make, tmp_path, plan):
    make("10.14")
    model = save(tiny_onnx.scan_blocks(1), tmp_path / "a.onnx")
    build_engine_trt(model, plan, options=REFIT)
    refit_engine(plan, save(changed(tiny_onnx.scan_blocks(1)), tmp_path / "b.onnx"))
    with pytest.raises(VimDeployError) as caught:
        build_engine_trt(model, plan, options=REFIT)
    assert caught.value.code == "VIM-204"
    assert "weights" in caught.value.why


@pytest.mark.parametrize("version", ["10.3", "11"])
def test_a_stripped_engine_gets_its_weights(make, tmp_path, plan, version):
    machine = make(version)
    model = save(tiny_onnx.scan_blocks(1), tmp_path / "a.onnx")
    built = build_engine_trt(model, plan, options=TrtOptions(strip_weights=True))
    assert built.stripped
    assert built.flags == ("STRIP_PLAN", "REFIT_IDENTICAL")
    record = refit_engine(plan, model)
    assert not record.stripped
    assert not record.refittable
    ((flag,),) = machine.fake.arguments("ISerializationConfig.clear_flag")
    assert flag.name == "EXCLUDE_WEIGHTS"
    assert not decode_plan(plan.read_bytes())["stripped"]


@pytest.mark.parametrize("version", VERSIONS)
def test_weights_that_are_missing_are_named(make, tmp_path, plan, version):
    machine = make(version)
    model = save(tiny_onnx.scan_blocks(1), tmp_path / "a.onnx")
    build_engine_trt(model, plan, options=REFIT)
    machine.fake.missing_weights = ("layers.0.unheard_of",)
    error = error_of(plan, model)
    assert error.code == "VIM-607"
    assert "layers.0.unheard_of" in error.why


def test_weights_of_another_shape_are_refused(make, tmp_path, plan):
    make("10.14")
    build_engine_trt(save(tiny_onnx.scan_blocks(1), tmp_path / "a.onnx"), plan, options=REFIT)
    other = save(tiny_onnx.scan_blocks(1, width=16), tmp_path / "b.onnx")
    error = error_of(plan, other)
    assert error.code == "VIM-607"
    assert "layers.0.dt_w (float32, 256 values)" in error.why


def test_another_precision_is_refused(make, tmp_path, plan):
    make("10.14")
    build_engine_trt(save(tiny_onnx.scan_blocks(1), tmp_path / "a.onnx"), plan, options=REFIT)
    assert error_of(plan, save(half_scan_blocks(1), tmp_path / "b.onnx")).code == "VIM-203"


def test_an_engine_that_was_not_built_for_it(make, tmp_path, plan):
    make("10.14")
    model = save(tiny_onnx.scan_blocks(1), tmp_path / "a.onnx")
    build_engine_trt(model, plan)
    assert error_of(plan, model).code == "VIM-607"


def test_without_its_record_or_with_another_one(make, tmp_path, plan):
    make("10.14")
    model = save(tiny_onnx.scan_blocks(1), tmp_path / "a.onnx")
    build_engine_trt(model, plan, options=REFIT)
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-7])
    assert error_of(plan, model).code == "VIM-902"
    plan.write_bytes(whole)
    record_path(plan).unlink()
    assert error_of(plan, model).code == "VIM-902"


def test_an_engine_of_another_tensorrt(make, tmp_path, plan):
    make("10.3")
    model = save(tiny_onnx.scan_blocks(1), tmp_path / "a.onnx")
    build_engine_trt(model, plan, options=REFIT)
    make("10.14")
    error = error_of(plan, model)
    assert error.code == "VIM-607"
    assert "expecting library version 10.14" in error.why


def test_another_file_at_the_output(make, tmp_path, plan):
    make("10.14")
    model = save(tiny_onnx.scan_blocks(1), tmp_path / "a.onnx")
    build_engine_trt(model, plan, options=REFIT)
    there = tmp_path / "there.plan"
    there.write_bytes(b"something")
    assert error_of(plan, model, output=there).code == "VIM-204"
    refit_engine(plan, model, there, force=True)
    assert hashes(there) == hashes(plan)


def test_a_real_process_refits(make, monkeypatch, tmp_path, plan):
    make("10.14")
    build_engine_trt(save(tiny_onnx.scan_blocks(1), tmp_path / "a.onnx"), plan, options=REFIT)
    monkeypatch.setattr(building, "run_worker", build_process.run_worker)
    line = fake_worker.command("10.14", "refit_worker")
    monkeypatch.setattr(build_process, "worker_command", lambda _: line)
    other = changed(tiny_onnx.scan_blocks(1), 3.0)
    refit_engine(plan, save(other, tmp_path / "b.onnx"))
    assert hashes(plan) == expected(other)
    assert np.all([len(digest) == 64 for digest in hashes(plan).values()])
