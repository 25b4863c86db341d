"""Full TensorRT, version by version, on the fake: the same request, the right calls on each."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from tests.support import tiny_onnx
from tests.support.builds import build_engine_trt, prepare_trt
from tests.support.fake_tensorrt.registry import write_library
from tests.support.trt_builds import VERSIONS, half_scan_blocks, make_machine, save
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import read_record
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.request import TrtOptions


@pytest.fixture
def machine(request, monkeypatch, tmp_path):
    return make_machine(monkeypatch, tmp_path, request.param)


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda version, **behaviour: make_machine(monkeypatch, tmp_path, version, **behaviour)


on_all = pytest.mark.parametrize("machine", VERSIONS, indirect=True)


@pytest.fixture
def single(tmp_path) -> Path:
    return save(tiny_onnx.scan_blocks(3), tmp_path / "single.onnx")


@pytest.fixture
def half(tmp_path) -> Path:
    return save(half_scan_blocks(2), tmp_path / "half.onnx")


def error_of(model: Path, plan: Path, **arguments) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        build_engine_trt(model, plan, **arguments)
    assert caught.value.fix
    assert not plan.exists()
    assert not [path for path in plan.parent.iterdir() if path.name.startswith(".")]
    return caught.value


@on_all
def test_plan_record_and_plugin_layers(machine, single, tmp_path):
    before = single.read_bytes()
    record = build_engine_trt(single, tmp_path / "m.plan", command=("vim-deploy",))
    assert single.read_bytes() == before
    assert read_record(tmp_path / "m.plan") == record
    assert (tmp_path / "m.plan").read_bytes()[:4] == b"ftrt"
    assert record.plugin_layers == {"VimSelectiveScan": 3}
    assert record.plugin.sha256
    assert record.plugin.interface == ("V2" if record.runtime_version == "8.6.0" else "V3")
    assert (record.gpu, record.compute_capabilities) == ("NVIDIA H200", ("9.0",))
    assert (record.precision, record.later_gpus) == ("fp32", False)
    assert set(record.layer_types) == {"float32"}
    assert record.runtime_version == machine.module.__version__
    assert record.device_memory_bytes > 0
    assert record.inputs[0].shape == ("batch", 6, 8)
    assert record.profiles[0].shapes["tokens"].max == (32, 6, 8)
    assert not record.refittable


@on_all
def test_again_is_up_to_date(machine, single, tmp_path):
    first = build_engine_trt(single, tmp_path / "m.plan")
    again = build_engine_trt(single, tmp_path / "m.plan")
    assert again.up_to_date
    assert again == first
    assert len(machine.jobs) == 1
    with pytest.raises(VimDeployError, match=r"m\.plan") as caught:
        build_engine_trt(single, tmp_path / "m.plan", options=TrtOptions(opt_level=5))
    assert caught.value.code == "VIM-204"
    assert "options" in caught.value.why


@pytest.mark.parametrize(
    ("version", "flags", "typed"),
    [("8.6", ["EXPLICIT_BATCH"], False), ("10.3", ["STRONGLY_TYPED"], True),
     ("10.14", ["STRONGLY_TYPED"], True), ("11", [], True)],
)  # fmt: skip
def test_half_graph(make, half, tmp_path, version, flags, typed):
    machine = make(version)
    record = build_engine_trt(half, tmp_path / "m.plan", precision="fp16")
    creation = machine.module.NetworkDefinitionCreationFlag
    assert machine.fake.arguments("Builder.create_network") == [
        (sum(1 << int(creation[name]) for name in flags),)
    ]
    set_flags = [flag.name for (flag,) in machine.fake.arguments("IBuilderConfig.set_flag")]
    assert set_flags == ([] if typed else ["FP16", "OBEY_PRECISION_CONSTRAINTS"])
    assert record.precision == "fp16"
    assert record.layer_types["float16"] >= 6
    assert record.plugin_layers == {"VimSelectiveScan": 2}
    constrained = machine.fake.arguments("ILayer.precision=")
    assert bool(constrained) == (not typed)
    assert {value.name for (value,) in constrained} <= {"HALF"}


def test_fp32_islands_of_8_6_keep_their_type(make, tmp_path):
    model = half_scan_blocks(1)
    wide = onnx.helper.make_node("Relu", ["features"], ["out"], name="island")
    model.graph.node.append(wide)
    model.graph.output[0].name = "out"
    machine = make("8.6")
    record = build_engine_trt(save(model, tmp_path / "m.onnx"), tmp_path / "m.plan")
    chosen = [value.name for (value,) in machine.fake.arguments("ILayer.precision=")]
    assert chosen.count("FLOAT") == 1
    assert chosen.count("HALF") == 3
    assert record.precision == "fp16"


@on_all
def test_functions_never_reach_the_parser_when_the_plugin_is_used(machine, single, tmp_path):
    record = build_engine_trt(single, tmp_path / "m.plan")
    assert "functions dropped for the plugin: VimSelectiveScan" in record.lowering
    lowers = record.runtime_version == "8.6.0"
    assert ("opset 18 rewritten as 17" in record.lowering) == lowers
    assert not Path(machine.jobs[0]["model"]).exists()


@pytest.mark.parametrize("version", ["10.3", "10.14", "11"])
def test_without_the_plugin_the_functions_are_used(make, single, tmp_path, version):
    machine = make(version)
    record = build_engine_trt(single, tmp_path / "m.plan", options=TrtOptions(plugin="none"))
    assert record.plugin is None
    assert record.plugin_layers == {}
    assert record.lowering == ()
    assert not machine.fake.arguments("IPluginRegistry.load_library")
    assert machine.jobs[0]["plugin"] is None


def test_a_graph_without_our_ops_needs_no_plugin(make, tmp_path):
    machine = make("10.14")
    model = save(tiny_onnx.perceptron(), tmp_path / "m.onnx")
    assert build_engine_trt(model, tmp_path / "m.plan").plugin is None
    assert not machine.fake.creators
    error = error_of(
        model, tmp_path / "n.plan",
        options=TrtOptions(embed_plugin=True, version_compatible=True),
    )  # fmt: skip
    assert error.code == "VIM-203"


@on_all
def test_every_option_arrives(machine, single, tmp_path):
    options = TrtOptions(
        opt_level=4,
        workspace_mib=512,
        hardware_compat="ampere+",
        version_compatible=True,
        embed_plugin=True,
        refit=True,
        tf32=True,
        tactic_sources="-EDGE_MASK_CONVOLUTIONS",
        export_layers=tmp_path / "layers.json",
    )
    shapes = ProfileOptions(
        min_shapes=("tokens:1x6x8", "tokens:4x6x8"),
        opt_shapes=("tokens:2x6x8", "tokens:8x6x8"),
        max_shapes=("tokens:4x6x8", "tokens:64x6x8"),
    )
    record = build_engine_trt(single, tmp_path / "m.plan", options=options, profiles=shapes)
    fake = machine.fake
    assert fake.arguments("IBuilderConfig.builder_optimization_level=") == [(4,)]
    ((pool, size),) = fake.arguments("IBuilderConfig.set_memory_pool_limit")
    assert (pool.name, size) == ("WORKSPACE", 512 << 20)
    ((level,),) = fake.arguments("IBuilderConfig.hardware_compatibility_level=")
    assert level.name == "AMPERE_PLUS"
    assert fake.arguments("IBuilderConfig.plugins_to_serialize=") == [([str(machine.library)],)]
    assert [flag.name for (flag,) in fake.arguments("IBuilderConfig.set_flag")] == [
        "REFIT",
        "VERSION_COMPATIBLE",
    ]
    assert not fake.arguments("IBuilderConfig.clear_flag")
    assert fake.arguments("Runtime.engine_host_code_allowed=") == [(True,)]
    assert len(fake.arguments("IBuilderConfig.add_optimization_profile")) == 2
    assert len(record.profiles) == 2
    assert record.plugin.embedded
    assert (record.compute_capabilities, record.later_gpus) == (("8.0",), True)
    assert record.flags == ("REFIT", "VERSION_COMPATIBLE")
    assert record.refittable
    assert record.options["opt_level"] == 4
    assert json.loads((tmp_path / "layers.json").read_text())["Layers"]


@on_all
def test_tf32_is_off_unless_asked_for(machine, single, tmp_path):
    build_engine_trt(single, tmp_path / "m.plan")
    cleared = [flag.name for (flag,) in machine.fake.arguments("IBuilderConfig.clear_flag")]
    assert cleared == ["TF32"]


@pytest.mark.parametrize(
    ("version", "options", "word"),
    [
        ("8.6", TrtOptions(strip_weights=True), "10.0"),
        ("8.6", TrtOptions(hardware_compat="same-cc"), "10.9"),
        ("10.3", TrtOptions(hardware_compat="same-cc"), "10.9"),
        ("11", TrtOptions(tactic_sources="-CUDNN"), "EDGE_MASK"),
    ],
)
def test_what_a_version_lacks_is_an_error(make, single, tmp_path, version, options, word):
    make(version)
    error = error_of(single, tmp_path / "m.plan", options=options)
    assert error.code == "VIM-309"
    assert word in error.why


def test_bfloat16_on_8_6_is_an_error(make, tmp_path):
    make("8.6")
    cast = onnx.helper.make_node(
        "Cast", ["image"], ["wide"], name="c", to=onnx.TensorProto.BFLOAT16
    )
    model = tiny_onnx.perceptron()
    model.graph.node.append(cast)
    error = error_of(save(model, tmp_path / "m.onnx"), tmp_path / "m.plan")
    assert error.code == "VIM-309"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (TrtOptions(embed_plugin=True), "VIM-203"),
        (TrtOptions(embed_plugin=True, version_compatible=True, plugin="none"), "VIM-203"),
        (TrtOptions(inner_tensors=True, refit=True), "VIM-203"),
        (TrtOptions(inner_tensors=True, strip_weights=True), "VIM-203"),
        (TrtOptions(hardware_compat="hopper"), "VIM-202"),
        (TrtOptions(plugin="nowhere.so"), "VIM-401"),
    ],
)
def test_options_that_cannot_be(make, single, tmp_path, options, code):
    make("10.14")
    assert error_of(single, tmp_path / "m.plan", options=options).code == code


@pytest.mark.parametrize("given", [{"opt_level": 9}, {"workspace_mib": 0}])
def test_numbers_that_cannot_be_are_refused_at_once(given):
    with pytest.raises(VimDeployError) as caught:
        TrtOptions(**given)
    assert caught.value.code == "VIM-202"


@pytest.mark.parametrize("version", ["8.6", "10.3", "11"])
def test_a_library_for_another_tensorrt_is_refused(make, single, tmp_path, version):
    make(version)
    wrong = write_library(tmp_path / "other.so", "V3" if version == "8.6" else "V2")
    error = error_of(single, tmp_path / "m.plan", options=TrtOptions(plugin=str(wrong)))
    assert error.code == "VIM-903"
    assert "TensorRT in use" in error.why


def test_a_library_without_one_of_the_ops_is_refused(make, single, tmp_path):
    make("10.14")
    wrong = write_library(tmp_path / "other.so", "V3", ("VimBiCausalConv",))
    error = error_of(single, tmp_path / "m.plan", options=TrtOptions(plugin=str(wrong)))
    assert error.code == "VIM-903"
    assert "VimSelectiveScan" in error.why


def test_a_library_that_tensorrt_does_not_take(make, single, tmp_path):
    """Whatever goes wrong in load_library, TensorRT's Python gives None and no reason."""
    machine = make("10.14")
    machine.module.IPluginRegistry.load_library = lambda self, path: None
    assert error_of(single, tmp_path / "m.plan").code == "VIM-903"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_another_precision_than_the_graphs(make, tmp_path, precision):
    """A file that vim-deploy did not export cannot be typed here."""
    make("10.14")
    model = save(tiny_onnx.perceptron(), tmp_path / "m.onnx")
    error = error_of(model, tmp_path / "m.plan", precision=precision)
    assert error.code == "VIM-203"
    assert "fp32" in error.message


@on_all
def test_an_engine_of_another_precision_is_refused(machine, half, tmp_path):
    machine.fake.ignore_types = True
    error = error_of(half, tmp_path / "m.plan", precision="fp16")
    assert error.code == "VIM-801"
    assert error.exit_code == 8
    assert "layers.0.dt_proj" in error.why
    assert "asked float16" in error.why


@on_all
def test_an_engine_without_its_plugin_layers_is_refused(machine, single, tmp_path):
    machine.fake.lose_plugins = True
    error = error_of(single, tmp_path / "m.plan")
    assert error.code == "VIM-606"
    assert "3 in the graph, 0 in the engine" in error.why


def test_what_the_function_hides_is_known_before_the_build(make, single, tmp_path, monkeypatch):
    """On 10.3 a function left in the file wins over the plugin."""
    machine = make("10.3")
    monkeypatch.setattr("vim_deploy.runtimes.tensorrt.lower._drop_functions", lambda *_: None)
    assert error_of(single, tmp_path / "m.plan").code == "VIM-606"
    assert "Builder.build_serialized_network" not in machine.fake.names()


@on_all
def test_dry_run_decides_everything_and_builds_nothing(machine, half, tmp_path):
    decided = prepare_trt(half, precision="fp16").plan_of_work()
    assert json.loads(json.dumps(decided))["runtime"] == "tensorrt"
    assert decided["plugin_layers"] == {"VimSelectiveScan": 2}
    assert decided["precision"] == "fp16"
    assert decided["gpu"] == "NVIDIA H200"
    assert "Builder.build_serialized_network" not in machine.fake.names()
    assert not list(tmp_path.glob("*.plan"))
