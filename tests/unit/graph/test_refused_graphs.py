"""Graphs that the fusion passes could mistake: refused as a whole, before anything is changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.unit.families.vim.test_passes import copy_of, exported, fused
from tests.unit.graph.test_hostile_graphs import (
    Edit,
    Model,
    assert_same,
    node,
    outputs,
    value,
)
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.fusion.run import run_passes


@pytest.fixture(scope="module")
def base() -> Model:
    """Two v2 blocks, one node a direction."""
    return exported("base")[1].model


@pytest.fixture
def model(base: Model) -> Model:
    return copy_of(base)


def _opset_16(model: Model) -> None:
    next(entry for entry in model.opset_import if entry.domain == "").version = 16


def _opset_of_the_future(model: Model) -> None:
    next(entry for entry in model.opset_import if entry.domain == "").version = 99


def _no_opset(model: Model) -> None:
    kept = [entry for entry in model.opset_import if entry.domain]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _hidden_scan(model: Model) -> None:
    scan = onnx.NodeProto()
    scan.CopyFrom(node(model, "block_00/mixer/fwd/scan/VimSelectiveScan"))
    scan.output[0] = "hidden"
    branch = helper.make_graph([scan], "b", [], [value("hidden", 3)])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    chosen = helper.make_node("If", ["yes"], ["a"], then_branch=branch, else_branch=branch)
    model.graph.node.append(chosen)


def _made_twice(model: Model) -> None:
    name = "block_00/mixer/in_proj/MatMul_output_0"
    model.graph.node.append(helper.make_node("Neg", [name], [name], name="again"))


def _wrong_order(model: Model) -> None:
    first = onnx.NodeProto()
    first.CopyFrom(model.graph.node[0])
    del model.graph.node[0]
    model.graph.node.append(first)


def _two_weights_of_one_name(model: Model) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_opset_16, "opset 16"),
        (_opset_of_the_future, "opset 99"),
        (_no_opset, "opset none"),
        (_hidden_scan, "VimSelectiveScan stands inside a subgraph"),
        (_made_twice, "is made twice"),
        (_wrong_order, "which nothing before it makes"),
        (_two_weights_of_one_name, "two initialisers are named"),
    ],
)
def test_a_graph_the_passes_could_mistake_is_refused_untouched(
    model: Model, edit: Edit, reason: str
) -> None:
    edit(model)
    before = copy_of(model)
    with pytest.raises(VimDeployError) as caught:
        run_passes(model)
    assert caught.value.code == "VIM-504"
    assert reason in caught.value.why
    assert model == before


def test_weights_that_were_not_loaded_are_refused(base: Model, tmp_path: Path) -> None:
    onnx.save(copy_of(base), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin")
    with pytest.raises(VimDeployError) as caught:
        run_passes(onnx.load(tmp_path / "m.onnx", load_external_data=False))
    assert caught.value.code == "VIM-504"
    assert "were not loaded" in caught.value.why
    assert_same(fused(onnx.load(tmp_path / "m.onnx"), expected=2), outputs(base))


def test_names_that_the_passes_would_give_are_taken(model: Model) -> None:
    taken = "block_01/mixer/x_proj/packed_0"
    model.graph.node.append(helper.make_node("Neg", ["logits"], [taken], name="neg"))
    model.graph.output.append(value(taken, 2))
    with pytest.raises(VimDeployError) as caught:
        run_passes(model)
    assert caught.value.code == "VIM-504"
    assert f"{taken} is made twice" in caught.value.why
