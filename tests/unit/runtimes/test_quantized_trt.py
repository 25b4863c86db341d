"""Quantized files and full TensorRT, version by version, on the fake; refits and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from tests.support import tiny_onnx
from tests.support.builds import build_engine_trt
from tests.support.quantized import scan_blocks
from tests.support.trt_builds import VERSIONS, make_machine, save
from vim_deploy.artifact.record import read_record
from vim_deploy.cuda.driver import Gpu
from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_quantized import around_quantization
from vim_deploy.runtimes.building.request import NONE, TrtOptions
from vim_deploy.runtimes.tensorrt import build as trt_build
from vim_deploy.runtimes.tensorrt.lower import lower
from vim_deploy.runtimes.tensorrt.plan_layers import (
    EngineLayer,
    findings,
    float_types,
    read_layers,
    require_precision,
)
from vim_deploy.runtimes.tensorrt.quantized_8_6 import widen_constants
from vim_deploy.runtimes.tensorrt.refit import refit_engine


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda version, **behaviour: make_machine(monkeypatch, tmp_path, version, **behaviour)


@pytest.fixture
def int8(tmp_path) -> Path:
    return save(scan_blocks(layers=2), tmp_path / "int8.onnx")


@pytest.fixture
def fp8(tmp_path) -> Path:
    return save(scan_blocks("fp8", opset=19), tmp_path / "fp8.onnx")


def refusal(model: Path, plan: Path, **arguments) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        build_engine_trt(model, plan, **arguments)
    assert caught.value.fix
    assert not plan.exists()
    return caught.value


@pytest.mark.parametrize("version", VERSIONS)
def test_int8(make, int8, tmp_path, version):
    machine = make(version)
    record = build_engine_trt(int8, tmp_path / "m.plan")
    assert record.precision == "int8"
    assert record.layer_types["int8"] >= 4
    assert record.plugin_layers == {"VimSelectiveScan": 2}
    flags = [flag.name for (flag,) in machine.fake.arguments("IBuilderConfig.set_flag")]
    # Strongly typed networks take types from the graph, and refuse the flag.
    assert flags == (["INT8"] if version == "8.6" else [])
    assert not [name for name in machine.fake.names() if "dynamic_range" in name]
    assert not machine.fake.arguments("ILayer.precision=")
    assert read_record(tmp_path / "m.plan") == record


def test_8_6_gets_no_constants_in_8_bits(make):
    """Weights of products keep their values and scales; others are floats."""
    model, wide, steps = scan_blocks(), scan_blocks(), []
    # As in a pair that is to look unlike another.
    wide.graph.node[0].attribute.append(onnx.helper.make_attribute("axis", 0))
    widen_constants(wide, steps)
    assert not wide.graph.node[0].attribute
    assert "2 of quantized products, 1 others" in steps[0]
    narrow = [item for item in wide.graph.initializer if item.data_type == TensorProto.INT8]
    assert all(item.name.endswith("zero") for item in narrow)
    for version, changed in (("8.6", True), ("10.14", False)):
        here = trt_build.trt.capabilities_of(make(version).module)
        lowered = lower(model, here, use_plugin=True)
        assert (steps[0] in lowered.steps) == changed
    image = np.random.default_rng(0).standard_normal((2, 6, 8), np.float32)
    # As the graph says: ONNX Runtime rounds activations of ``head``, too, where it may.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    first, second = (
        onnxruntime.InferenceSession(item.SerializeToString(), options).run(None, {"tokens": image})
        for item in (model, wide)
    )
    assert np.abs(first[0] - second[0]).max() <= 1e-5


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_fp8(make, fp8, tmp_path, version):
    make(version)
    record = build_engine_trt(fp8, tmp_path / "m.plan")
    assert record.precision == "fp8"
    assert record.layer_types["float8_e4m3fn"] >= 2


def test_fp8_where_it_is_not(make, fp8, tmp_path, monkeypatch):
    """An old TensorRT, an old GPU, and an engine for old GPUs: each is refused before the build."""
    plan = tmp_path / "m.plan"
    machine = make("8.6")
    error = refusal(fp8, plan)
    assert (error.code, "--precision int8" in error.fix) == ("VIM-309", True)
    machine = make("10.14")
    options = TrtOptions(hardware_compat="ampere+")
    assert refusal(fp8, plan, options=options).code == "VIM-203"
    monkeypatch.setattr(trt_build.cuda_driver, "gpu", lambda: Gpu("NVIDIA A10", 8, 6, 72))
    error = refusal(fp8, plan)
    assert (error.code, "8.9" in error.why) == ("VIM-302", True)
    assert "Builder.build_serialized_network" not in machine.fake.names()


@pytest.mark.parametrize(
    ("precision", "words"),
    [("fp16", "--precision int8 --high-precision fp16"), ("fp32", "leave --precision out")],
)
def test_no_build_types_a_quantized_graph(make, int8, tmp_path, precision, words):
    make("10.14")
    error = refusal(int8, tmp_path / "m.plan", precision=precision)
    assert error.code == "VIM-203"
    assert words in error.fix


def test_no_build_quantizes(make, tmp_path):
    make("10.14")
    plain = save(tiny_onnx.scan_blocks(1), tmp_path / "plain.onnx")
    error = refusal(plain, tmp_path / "m.plan", precision="int8")
    assert (error.code, "--calibration" in error.fix) == ("VIM-203", True)


def test_bfloat16_around_int8_on_8_6(make):
    here = trt_build.trt.capabilities_of(make("8.6").module)
    with pytest.raises(VimDeployError) as caught:
        trt_build.check_options(TrtOptions(), here, "int8", "bf16")
    assert caught.value.code == "VIM-309"
    assert "--high-precision bf16" in caught.value.message
    flags, _ = trt_build.builder_flags(TrtOptions(), here, "int8", "fp16")
    assert flags == ("INT8", "FP16", "OBEY_PRECISION_CONSTRAINTS")


def test_other_weights_need_other_scales(make, int8, tmp_path):
    """--refit is refused; an engine without weights takes those of its own file alone."""
    make("10.14")
    plan = tmp_path / "m.plan"
    options = TrtOptions(refit=True, plugin=NONE)
    assert refusal(int8, plan, options=options).code == "VIM-203"
    build_engine_trt(int8, plan, options=TrtOptions(strip_weights=True))
    other = save(scan_blocks(layers=2, opset=19), tmp_path / "other.onnx")
    with pytest.raises(VimDeployError) as caught:
        refit_engine(plan, other)
    assert caught.value.code == "VIM-607"
    assert "scales" in caught.value.why
    assert not refit_engine(plan, int8).stripped


def layer(dtype: str, tensor: str) -> EngineLayer:
    return EngineLayer("n", "Gemm", "", "", ((tensor, dtype),))


def test_what_moves_values_may_move_8_bits():
    """TensorRT quantizes before a Split what the graph quantizes behind it."""
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["r"], name="r"),
        onnx.helper.make_node("Split", ["r"], ["a", "b"], name="s", axis=0, num_outputs=2),
        onnx.helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["q"], name="q"),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="d"),
        onnx.helper.make_node("MatMul", ["d", "w"], ["y"], name="y"),
        onnx.helper.make_node("Relu", ["y"], ["z"], name="z"),
    ]
    value = onnx.helper.make_tensor_value_info
    constants = {"scale": np.float32(1), "zero": np.int8(0), "w": np.eye(2, dtype=np.float32)}
    graph = onnx.helper.make_graph(
        nodes, "g", [value("x", 1, [2, 2])], [value("z", 1, [1, 2]), value("b", 1, [1, 2])],
        [onnx.numpy_helper.from_array(np.asarray(item), name) for name, item in constants.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    assert around_quantization(model) == {"a", "d", "y"}
    types = float_types(model)
    assert types == {"r": "float32", "b": "float32", "q": "int8", "z": "float32"}
    good = findings([layer("int8", "a"), layer("float32", "z")], types, {})
    require_precision(good, "int8", "fp32")
    # Nothing but products may be in 8 bits, and nothing in a half type that was not asked for.
    for dtype, tensor in (("int8", "z"), ("float16", "other")):
        found = findings([layer(dtype, tensor), layer("float32", "r")], types, {})
        with pytest.raises(VimDeployError, match="not what was asked"):
            require_precision(found, "int8", "fp32")
    with pytest.raises(VimDeployError):
        require_precision(good, "fp32")


def test_unsigned_bytes_are_no_int8():
    """Pictures as bytes go into engines of every precision."""
    said = {"Name": "image", "Format/Datatype": "Row major linear UInt8 format"}
    text = json.dumps({"Layers": [{"Name": "n", "LayerType": "Cast", "Outputs": [said]}]})
    (found,) = read_layers(text)
    assert found.outputs == (("image", ""),)
    said["Format/Datatype"] = "Thirty-two wide channel vectorized row major Int8 format"
    text = json.dumps({"Layers": [{"Name": "n", "LayerType": "Gemm", "Outputs": [said]}]})
    assert read_layers(text)[0].outputs == (("image", "int8"),)
