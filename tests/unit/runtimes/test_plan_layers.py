"""Reading TensorRT's inspector, and comparing what it says with the graph."""

from __future__ import annotations

import json

import pytest

from tests.support import tiny_onnx
from tests.support.trt_builds import half_scan_blocks
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.tensorrt.plan_layers import (
    EngineLayer,
    Findings,
    findings,
    float_types,
    read_layers,
    require_plugins,
    require_precision,
)


def layer_text(**tensor: str) -> str:
    layer = {
        "Name": "n",
        "LayerType": "PluginV3",
        "Inputs": [],
        "Outputs": [{"Name": "t", **tensor}],
    }
    return json.dumps({"Layers": [layer], "Bindings": []})


@pytest.mark.parametrize(
    ("tensor", "dtype"),
    [
        ({"Format/Datatype": "Half"}, "float16"),
        ({"Format/Datatype": "Float"}, "float32"),
        ({"Format/Datatype": "Row major linear FP16 format"}, "float16"),
        ({"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}, "float16"),
        ({"Format/Datatype": "Row major linear FP32"}, "float32"),
        ({"Format/Datatype": "BFloat16"}, "bfloat16"),
        ({"Format": "Row major linear", "Datatype": "BF16"}, "bfloat16"),
        ({"Format": "Row major linear", "Datatype": "FP16"}, "float16"),
        ({"Format/Datatype": "Int64"}, ""),
        ({}, ""),
    ],
)
def test_words_for_types(tensor, dtype):
    (layer,) = read_layers(layer_text(**tensor))
    assert layer.is_plugin
    assert layer.outputs == (("t", dtype),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"Layers": ["only a name"]}',
        '{"Layers": 3}',
        '{"Layers": [{"Outputs": 3}]}',
        '{"Layers": [{"Outputs": ["t"]}]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_detailed_description(text):
    with pytest.raises(ValueError, match=r".*"):
        read_layers(text)


def test_types_of_the_graph():
    types = float_types(half_scan_blocks(1))
    assert types["tokens_half"] == types["layers.0.dt"] == types["layers.0.y"] == "float16"
    assert types["features"] == "float32"
    assert set(float_types(tiny_onnx.scan_blocks(1)).values()) == {"float32"}


def layer(name: str, dtype: str, tensor: str = "", kind: str = "Gemm", **more: str) -> EngineLayer:
    outputs = ((tensor or name, dtype),)
    return EngineLayer(name, kind, more.get("plugin", ""), more.get("origin", ""), outputs)


def test_plugin_layers_are_counted_by_whatever_names_them():
    nodes = {"a": "VimBiCausalConv", "b": "VimBiCausalConv", "c": "VimBiSelectiveScan"}
    layers = [
        layer("a", "float16", kind="PluginV2"),
        layer("other", "float16", kind="PluginV3", origin="[ONNX Layer: b]"),
        layer("another", "float16", kind="PluginV3", plugin="VimBiSelectiveScan"),
        layer("d", "float16", kind="PluginV3", plugin="Foreign"),
    ]
    found = findings(layers, {}, nodes)
    assert found.plugins == {"Foreign": 1, "VimBiCausalConv": 2, "VimBiSelectiveScan": 1}
    require_plugins(found, {"VimBiCausalConv": 2, "VimBiSelectiveScan": 1})
    with pytest.raises(VimDeployError, match="plugin layers") as caught:
        require_plugins(found, {"VimBiCausalConv": 3})
    assert caught.value.code == "VIM-606"


def test_a_tensor_of_another_type_is_named_with_its_layer():
    types = {"x": "float16", "y": "float32"}
    good = findings([layer("x", "float16"), layer("y", "float32")], types, {})
    assert (good.compared, good.types) == (2, {"float16": 1, "float32": 1})
    require_precision(good, "fp16")
    bad = findings([layer("gemm", "float32", "x"), layer("y", "float32")], types, {})
    with pytest.raises(VimDeployError, match="fp16") as caught:
        require_precision(bad, "fp16")
    assert caught.value.code == "VIM-801"
    assert caught.value.why == "layer 'gemm': x is float32, asked float16"


@pytest.mark.parametrize(
    ("precision", "types", "compared", "fine"),
    [
        ("fp32", {"float32": 9}, 3, True),
        ("fp32", {"float32": 9, "float16": 1}, 3, False),
        ("fp16", {"float32": 9, "float16": 1}, 3, True),
        ("fp16", {"float32": 9}, 3, False),
        ("bf16", {"float32": 9, "float16": 4}, 3, False),
        ("bf16", {"bfloat16": 4}, 3, True),
        ("fp32", {"float32": 9}, 0, False),
    ],
)
def test_an_engine_without_what_was_asked(precision, types, compared, fine):
    found = Findings(9, types, {}, compared, ())
    if fine:
        require_precision(found, precision)
        return
    with pytest.raises(VimDeployError) as caught:
        require_precision(found, precision)
    assert caught.value.exit_code == 8


def test_many_offenders_are_counted():
    types = {f"t{i}": "float16" for i in range(30)}
    found = findings([layer(f"t{i}", "float32") for i in range(30)], types, {})
    with pytest.raises(VimDeployError) as caught:
        require_precision(found, "fp16")
    assert caught.value.why.splitlines()[-1] == "and 18 more"
