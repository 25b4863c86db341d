"""Engines that give out their inner tensors: built on the fake TensorRT, verified part by part.

The fake's runtime computes the engine's own graph, with a fault where one is planted, and gives out
only what was marked when the engine was built.
"""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.support import plant
from tests.support.builds import build_engine_trt, install_only
from tests.support.engines import use_fake_gpu
from tests.support.fake_cudart import FakeCudart
from tests.support.fake_tensorrt.onnx_engine import KIND
from tests.support.fake_tensorrt.runtime import plan_bytes
from tests.support.inner_engines import INNER, build
from tests.support.trt_builds import VERSIONS, make_machine
from vim_deploy.artifact.marked_tensors import DEBUG, OUTPUT, OWN_OUTPUT
from vim_deploy.artifact.record import FileIdentity, record_path
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import write_json
from vim_deploy.onnx_graph import element_types
from vim_deploy.packaging.cpp import plan_cpp
from vim_deploy.packaging.servable import read_servable
from vim_deploy.runtimes.building.request import TrtOptions
from vim_deploy.runtimes.tensorrt.runner import TrtRunner
from vim_deploy.stages import verify
from vim_deploy.stages.laddering import verify_ladder
from vim_deploy.stages.verifying import VerifyOptions

torch = pytest.importorskip("torch", reason="not checked here: torch is not installed")

ON_ALL = pytest.mark.parametrize("version", VERSIONS)
PART_BY_PART = VerifyOptions(random=2, batches=(2,), per_block=True)


class Files(NamedTuple):
    """A checkpoint of two layers and its exports."""

    checkpoint: Path
    fp32: Path
    fp16: Path
    base: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    from tests.support.models import perturbed, save_training_file, tiny_config
    from vim_deploy.families.vim.network.vim import VisionMamba
    from vim_deploy.recipe.schema import ModelRequest
    from vim_deploy.stages.export_options import ExportOptions
    from vim_deploy.stages.exporting import export

    folder = tmp_path_factory.mktemp("exported")
    config = tiny_config()
    checkpoint = save_training_file(perturbed(VisionMamba(config)), folder / "tiny.pth")
    request = ModelRequest(str(checkpoint), config=encode(config))
    forms = {
        "fp32": ExportOptions(graph="fused", check=False),
        "fp16": ExportOptions(graph="fused", precision="fp16", check=False),
        "base": ExportOptions(graph="base", check=False),
    }
    made = {
        name: export(request, folder / f"{name}.onnx", options).path
        for name, options in forms.items()
    }
    return Files(checkpoint, **made)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCudart]:
    """A pretended GPU on which nothing may be left."""
    fake = use_fake_gpu(monkeypatch, total=1 << 26, name="NVIDIA H200")
    yield fake
    gc.collect()
    assert fake.leaks() == {}


@ON_ALL
def test_the_record_says_which_tensors_and_how(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, files: Files, version: str
) -> None:
    built = build(monkeypatch, gpu, tmp_path, files.fp32, version)
    found = {str(item.place): item for item in built.record.inner_tensors}
    assert {"tokens", "block 0 norm", "block 1 scan bwd", "block 1 out_proj", "norm_f"} <= set(
        found
    )
    how = {item.how for item in built.record.inner_tensors}
    if version == "8.6":
        assert how == {OUTPUT, OWN_OUTPUT}
        assert built.marked == []
    else:
        # The scans of single directions lead nowhere: TensorRT would leave them out.
        assert how == {DEBUG, OUTPUT, OWN_OUTPUT}
        leaves = {place for place, item in found.items() if item.how == OUTPUT}
        assert leaves == {f"block {i} scan {way}" for i in (0, 1) for way in ("fwd", "bwd")}
        debug = {item.name for item in built.record.inner_tensors if item.how == DEBUG}
        assert set(built.marked) == debug
    assert found["head"].how == OWN_OUTPUT
    assert built.record.options["inner_tensors"] is True
    assert any(step.startswith("inner tensors given out") for step in built.record.lowering)
    outputs = {item.name for item in built.record.inner_tensors if item.how == OUTPUT}
    assert {spec.name for spec in built.record.outputs} == outputs | {"logits"}


@pytest.mark.parametrize(
    ("file", "version"),
    [*(("fp32", version) for version in VERSIONS), ("fp16", "8.6"), ("fp16", "10.14"),
     ("base", "8.6"), ("base", "10.14")],
)  # fmt: skip
def test_the_right_engine_passes_part_by_part(
    monkeypatch: pytest.MonkeyPatch,
    gpu: FakeCudart,
    tmp_path: Path,
    files: Files,
    file: str,
    version: str,
) -> None:
    built = build(monkeypatch, gpu, tmp_path, getattr(files, file), version)
    report = verify(built.plan, str(files.checkpoint), PART_BY_PART)
    assert report.passed
    assert report.blocks is not None
    assert report.blocks.passed
    assert report.blocks.missing == ()
    assert len(report.blocks.growth("out_proj")) == 2
    outputs = encode(report)["results"][0]["outputs"]
    assert [entry["output"] for entry in outputs] == ["logits"]


@pytest.mark.parametrize("version", ["10.3", "11"])
def test_bfloat16_is_read_too(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, files: Files, version: str
) -> None:
    built = build(monkeypatch, gpu, tmp_path, files.fp32, version, precision="bf16")
    model = onnx.load(tmp_path / "computed.onnx")
    types = element_types(model)
    assert TensorProto.BFLOAT16 in {types[name] for name in built.marked}
    scans = [item for item in built.record.inner_tensors if item.part == "scan"]
    assert {types[item.name] for item in scans} == {TensorProto.FLOAT}
    report = verify(built.plan, str(files.checkpoint), PART_BY_PART)
    assert report.blocks is not None
    assert report.blocks.passed


def one_weight(graph: onnx.ModelProto) -> None:
    def change(values: plant.Values) -> plant.Values:
        values[(1, 0, *(0,) * (values.ndim - 2))] += 0.5
        return values

    plant.change_weight(graph, "layers.1.mixer.x_proj_pair.weight_packed", change)


def a_of_one_direction(graph: onnx.ModelProto) -> None:
    scan = plant.node_of(graph, "block_00/mixer/scan/VimBiSelectiveScan")

    def backward(values: plant.Values) -> plant.Values:
        return np.stack([values[0], plant.lay_out_wrongly(values[1])])

    names = [name for name in scan.input if name.endswith("A") or ".A" in name]
    plant.change_weight(graph, names[0], backward)


@pytest.mark.parametrize("version", ["8.6", "10.14"])
@pytest.mark.parametrize(
    ("fault", "place"),
    [(one_weight, "block 1 x_proj bwd"), (a_of_one_direction, "block 0 scan bwd")],
)
def test_a_fault_of_one_block_is_named(
    monkeypatch: pytest.MonkeyPatch,
    gpu: FakeCudart,
    tmp_path: Path,
    files: Files,
    version: str,
    fault: Callable[[onnx.ModelProto], None],
    place: str,
) -> None:
    built = build(monkeypatch, gpu, tmp_path, files.fp32, version, fault=fault)
    report = verify(built.plan, str(files.checkpoint), PART_BY_PART)
    assert report.blocks is not None
    assert str(report.blocks.first and report.blocks.first.place) == place
    with pytest.raises(VimDeployError, match="VIM-702") as caught:
        report.require_passed()
    assert place in caught.value.message


def test_the_ladder_looks_into_the_engine(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, files: Files
) -> None:
    built = build(monkeypatch, gpu, tmp_path, files.fp32, "10.14", fault=one_weight)
    options = VerifyOptions(random=1, batches=(1,))
    ladder = verify_ladder(str(built.plan), str(files.checkpoint), options).ladder
    assert ladder is not None
    assert ladder.broken is not None
    assert ladder.broken.name == "model.plan"
    assert ladder.blocks is not None
    assert str(ladder.blocks.first and ladder.blocks.first.place) == "block 1 x_proj bwd"


def test_with_the_plugin_every_scan_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: Files
) -> None:
    make_machine(monkeypatch, tmp_path, "10.14")
    record = build_engine_trt(
        files.fp32, tmp_path / "m.plan", options=TrtOptions(inner_tensors=True)
    )
    # Each fused scan once as it is and once for each direction.
    assert record.plugin_layers == {"VimBiCausalConv": 2, "VimBiSelectiveScan": 6}


def test_the_engine_is_another_one_than_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: Files
) -> None:
    make_machine(monkeypatch, tmp_path, "10.14")
    plan = tmp_path / "m.plan"
    plain = build_engine_trt(files.fp32, plan, options=TrtOptions(plugin="none"))
    assert plain.inner_tensors == ()
    with pytest.raises(VimDeployError, match="VIM-204"):
        build_engine_trt(files.fp32, plan, options=INNER)
    assert json.loads(record_path(plan).read_text())["inner_tensors"] == []


@pytest.mark.parametrize("version", ["10.3", "10.14", "11"])
def test_only_what_was_marked_is_given_out(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, files: Files, version: str
) -> None:
    built = build(monkeypatch, gpu, tmp_path, files.fp32, version)
    image = np.zeros((2, 3, 16, 16), np.float32)
    with TrtRunner(built.plan) as runner:
        assert runner.outputs == ("logits",)
        assert set(runner.run(image)) == {"logits"}
        engine = runner._engine.engine
        # Turned off, a debug tensor reaches nobody.
        assert engine.emitted == []
        assert runner.parts is not None
        runner.parts(image)
        assert engine.emitted == built.marked
        runner.run(image)
        assert engine.emitted == built.marked
        lane = runner._free[0]
        with pytest.raises(VimDeployError, match="is not a debug tensor"):
            lane.run_inner(image, ["logits"])
    del engine, lane


@ON_ALL
def test_the_context_goes_before_its_engine(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, files: Files, version: str
) -> None:
    built = build(monkeypatch, gpu, tmp_path, files.fp32, version)
    gc.disable()
    try:
        with TrtRunner(built.plan) as runner:
            assert runner.parts is not None
            runner.parts(np.zeros((1, 3, 16, 16), np.float32))
        released = list(built.module.state.released)
    finally:
        gc.enable()
    # TensorRT's order, and without waiting for the garbage collector.
    assert released == ["context", "engine", "runtime"]


def test_what_does_not_arrive_is_an_error(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, files: Files
) -> None:
    built = build(monkeypatch, gpu, tmp_path, files.fp32, "10.14")
    lost = next(item.name for item in built.record.inner_tensors if str(item.place) == "norm_f")
    data = {"kind": KIND, "model": str(tmp_path / "computed.onnx"), "debug": built.marked}
    outputs = [spec.name for spec in built.record.outputs]
    built.plan.write_bytes(
        plan_bytes(built.record.runtime_version, outputs=outputs, lost=[lost], **data)
    )
    record = dataclasses.replace(built.record, plan=FileIdentity.of(built.plan))
    write_json(record_path(built.plan), encode(record))
    with pytest.raises(VimDeployError, match="VIM-904") as caught:
        verify(built.plan, str(files.checkpoint), PART_BY_PART)
    assert lost in caught.value.message


def test_a_copy_that_fails_is_the_error(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, files: Files
) -> None:
    built = build(monkeypatch, gpu, tmp_path, files.fp32, "10.14")
    image = np.zeros((1, 3, 16, 16), np.float32)
    with TrtRunner(built.plan) as runner:
        runner.run(image)
        assert runner.parts is not None
        gpu.failing["cudaMallocHost"] = 2
        with pytest.raises(VimDeployError, match="VIM-906"):
            runner.parts(image)
        gpu.failing.clear()
        assert set(runner.run(image)) == {"logits"}


def test_an_engine_for_diagnosis_is_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, files: Files
) -> None:
    from vim_deploy.stages.benchmarking import BenchOptions, benchmark

    built = build(monkeypatch, gpu, tmp_path, files.fp32, "10.14")
    image = np.zeros((1, 3, 16, 16), np.float32)
    attempts: list[Callable[[], object]] = [
        lambda: benchmark([built.plan], BenchOptions()),
        lambda: read_servable(built.plan),
        lambda: plan_cpp(built.plan),
        lambda: TrtRunner(built.plan, cuda_graph=True),
    ]
    for attempt in attempts:
        with pytest.raises(VimDeployError, match="VIM-435"):
            attempt()
    with TrtRunner(built.plan) as runner, pytest.raises(VimDeployError, match="VIM-435"):
        runner.run_device(image)


def test_engines_without_them_say_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, files: Files
) -> None:
    built = build(
        monkeypatch, gpu, tmp_path, files.fp32, "10.14", options=TrtOptions(plugin="none")
    )
    with TrtRunner(built.plan) as runner:
        assert runner.parts is None
    with pytest.raises(VimDeployError, match="VIM-422") as caught:
        verify(built.plan, str(files.checkpoint), PART_BY_PART)
    assert "--inner-tensors" in caught.value.fix


def test_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, files: Files, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    install_only(monkeypatch, "tensorrt", "onnxruntime")
    make_machine(monkeypatch, tmp_path, "10.14")
    command = ["build-engine", str(files.fp32), "-o", "m.plan", "--runtime", "tensorrt"]
    assert run([*command, "--inner-tensors", "--plugin", "none"]) == 0
    assert "for diagnosis only: it gives out 30 inner tensors" in capsys.readouterr().err
    assert run(["inspect", "m.plan"]) == 0
    shown = capsys.readouterr().out
    assert "30 inner tensors" in shown
    assert "inner_tensors[" not in shown
    assert run(["inspect", "m.plan", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["record"]["inner_tensors"]) == 30
    built = build(monkeypatch, gpu, tmp_path, files.fp32, "10.14", fault=one_weight)
    verify_command = ["verify", str(built.plan), "--against", str(files.checkpoint)]
    assert run([*verify_command, "--per-block", "--random", "1", "--batches", "1"]) == 7
    said = capsys.readouterr().err
    assert "error VIM-702" in said
    assert "block 1 x_proj bwd" in said


def test_a_file_of_another_exporter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.support import tiny_onnx
    from tests.support.trt_builds import save

    make_machine(monkeypatch, tmp_path, "10.14")
    model = save(tiny_onnx.scan_blocks(2), tmp_path / "other.onnx")
    with pytest.raises(VimDeployError, match="VIM-434"):
        build_engine_trt(model, tmp_path / "m.plan", options=INNER)
    assert not (tmp_path / "m.plan").exists()
