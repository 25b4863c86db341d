"""What a model asks of kernels for our ops, and what kernels of this contract do not know."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from onnx import helper

from tests.support.fake_tensorrt import personality
from tests.support.tiny_onnx import perceptron, scan_blocks
from vim_deploy.errors import VimDeployError
from vim_deploy.ops import contract
from vim_deploy.ops.functions import AskedOps, asked_ops
from vim_deploy.runtimes.onnxruntime.trt_ep import to_plugin_domain
from vim_deploy.runtimes.tensorrt.capability import capabilities_of
from vim_deploy.runtimes.tensorrt.lower import lower


def later(model: onnx.ModelProto) -> None:
    """The next version of our domain."""
    (entry,) = [item for item in model.opset_import if item.domain == contract.DOMAIN]
    entry.version = contract.DOMAIN_VERSION + 1


def later_in_a_function(model: onnx.ModelProto) -> None:
    version = contract.DOMAIN_VERSION + 1
    model.functions[0].opset_import.append(helper.make_opsetid(contract.DOMAIN, version))


def another_attribute(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.domain == contract.DOMAIN)
    node.attribute.append(helper.make_attribute("gain", 2.0))


def another_default(model: onnx.ModelProto) -> None:
    model.functions[0].attribute_proto.append(helper.make_attribute("gain", 2.0))


#: What a file of a later vim-deploy may say, and how it is told.
BEYOND: dict[Callable[[onnx.ModelProto], None], str] = {
    later: "version 2 of the domain vim_deploy, not 1",
    later_in_a_function: "version 2 of the domain vim_deploy, not 1",
    another_attribute: "node 'layers.0.scan' says 'gain'",
    another_default: "function 'VimSelectiveScan' says 'gain'",
}


def test_a_model_of_this_contract() -> None:
    assert asked_ops(scan_blocks(2)) == AskedOps(frozenset({"VimSelectiveScan"}))
    assert asked_ops(perceptron()) == AskedOps()


def test_ops_within_subgraphs_and_functions_count() -> None:
    model = perceptron()
    node = helper.make_node("VimBiCausalConv", ["x"], ["y"], domain=contract.DOMAIN)
    branch = helper.make_graph([node], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch))
    other = helper.make_node("VimSelectiveScan", ["x"], ["y"], domain=contract.DOMAIN)
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], [other], []))
    assert asked_ops(model).names == {"VimBiCausalConv", "VimSelectiveScan"}


@pytest.mark.parametrize("change", BEYOND, ids=lambda change: change.__name__)
def test_what_the_contract_does_not_have(change: Callable[[onnx.ModelProto], None]) -> None:
    model = scan_blocks()
    change(model)
    asked = asked_ops(model)
    assert asked.names == {"VimSelectiveScan"}
    assert BEYOND[change] in asked.beyond


@pytest.mark.parametrize("change", BEYOND, ids=lambda change: change.__name__)
def test_plugins_of_tensorrt_are_refused_it_too(
    change: Callable[[onnx.ModelProto], None],
) -> None:
    model, release = scan_blocks(), capabilities_of(personality("10.14"))
    change(model)
    for lowering in (to_plugin_domain, lambda it: lower(it, release, use_plugin=True)):
        with pytest.raises(VimDeployError) as caught:
            lowering(model)
        assert caught.value.code == "VIM-903"
        assert BEYOND[change] in caught.value.why
    assert not lower(model, release, use_plugin=False).plugin_nodes
