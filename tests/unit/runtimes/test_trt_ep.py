"""The form for ONNX Runtime's TensorRT provider: plugin nodes instead of local functions."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import vim_deploy
from tests.support.tiny_onnx import perceptron, scan_blocks
from tests.unit.ops.test_region_ops import add_nms
from vim_deploy.errors import VimDeployError
from vim_deploy.ops import SELECTIVE_SCAN, SORTED_NMS, contract
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.onnxruntime import capability as ort
from vim_deploy.runtimes.onnxruntime.trt_ep import PLUGIN_DOMAIN, to_plugin_domain
from vim_deploy.stages.export_options import ExportOptions


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model with fused scans."""
    path = tmp_path_factory.mktemp("trt_ep") / "digits.onnx"
    return vim_deploy.export(ModelRequest("vim-digits"), path, ExportOptions(check=False)).path


def test_every_custom_node_becomes_a_typed_plugin(exported: Path) -> None:
    model = onnx.load(exported)
    before = model.SerializeToString()
    lowered = to_plugin_domain(model)
    assert model.SerializeToString() == before
    custom = [node for node in model.graph.node if node.domain == contract.DOMAIN]
    plugins = [node for node in lowered.graph.node if node.domain == PLUGIN_DOMAIN]
    assert len(plugins) == len(custom) == 12
    for node, plugin in zip(custom, plugins, strict=True):
        assert (node.op_type, list(node.input), list(node.output)) == (
            plugin.op_type, list(plugin.input), list(plugin.output),
        )  # fmt: skip
        assert list(node.attribute) == list(plugin.attribute)
    assert not any(item.domain == contract.DOMAIN for item in lowered.functions)
    domains = {item.domain: item.version for item in lowered.opset_import}
    assert contract.DOMAIN not in domains
    assert domains[PLUGIN_DOMAIN] == 1
    typed = {value.name: value.type.tensor_type for value in lowered.graph.value_info}
    for plugin in plugins:
        for name in plugin.output:
            assert typed[name].elem_type == onnx.TensorProto.FLOAT
            assert len(typed[name].shape.dim) in (3, 4)
    # Metadata and everything else are as before.
    assert lowered.metadata_props == model.metadata_props
    assert len(lowered.graph.node) == len(model.graph.node)
    onnx.checker.check_model(lowered)


def test_one_direction_as_well() -> None:
    lowered = to_plugin_domain(scan_blocks(layers=2))
    plugins = [node for node in lowered.graph.node if node.domain == PLUGIN_DOMAIN]
    assert [node.op_type for node in plugins] == [SELECTIVE_SCAN.name] * 2
    assert list(lowered.functions) == []
    assert {value.name for value in lowered.graph.value_info} == {"layers.0.y", "layers.1.y"}


def test_a_model_without_custom_nodes_stays() -> None:
    model = perceptron()
    assert to_plugin_domain(model) == model


def test_output_of_unknown_type_is_refused() -> None:
    model = scan_blocks()
    del model.functions[:]
    with pytest.raises(VimDeployError) as caught:
        to_plugin_domain(model)
    assert caught.value.code == "VIM-409"


def test_ops_without_a_plugin_stay_functions() -> None:
    model = scan_blocks()
    add_nms(model)
    lowered = to_plugin_domain(model)
    assert [(node.domain, node.op_type) for node in lowered.graph.node if node.domain] == [
        (PLUGIN_DOMAIN, SELECTIVE_SCAN.name),
        (contract.DOMAIN, SORTED_NMS.name),
    ]
    assert [item.name for item in lowered.functions] == [SORTED_NMS.name]
    domains = {item.domain for item in lowered.opset_import}
    assert {contract.DOMAIN, PLUGIN_DOMAIN} <= domains
    onnx.checker.check_model(lowered)


def test_other_functions_are_kept() -> None:
    model = scan_blocks()
    other = onnx.helper.make_function(
        "other", "Twice", ["x"], ["y"],
        [onnx.helper.make_node("Add", ["x", "x"], ["y"])], [onnx.helper.make_opsetid("", 18)],
    )  # fmt: skip
    model.functions.append(other)
    model.opset_import.append(onnx.helper.make_opsetid("other", 1))
    assert [item.name for item in to_plugin_domain(model).functions] == ["Twice"]


def test_it_is_for_that_provider_only(exported: Path) -> None:
    lowered = to_plugin_domain(onnx.load(exported)).SerializeToString()
    with pytest.raises(VimDeployError, match=r"does not load lowered") as caught:
        ort.create_session(lowered, ort.SessionSettings(), "lowered")
    assert PLUGIN_DOMAIN in caught.value.why
