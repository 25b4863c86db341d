"""Base graphs changed by hand or by other tools: fused rightly, or left whole with the reason."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.families.vim.test_passes import (
    CLOSE,
    FUSED_BLOCK,
    block_ops,
    copy_of,
    exported,
    fused,
)
from tests.unit.graph.test_export_graph import session
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.fusion.run import run_passes
from vim_deploy.graph.opset import OPSETS
from vim_deploy.graph.verify import summarize
from vim_deploy.ops import SELECTIVE_SCAN
from vim_deploy.ops.functions import attach_functions

Model = onnx.ModelProto
Edit = Callable[[Model], None]


@pytest.fixture(scope="module")
def base() -> Model:
    """Two v2 blocks, one node a direction."""
    return exported("base")[1].model


@pytest.fixture
def model(base: Model) -> Model:
    return copy_of(base)


def outputs(model: Model) -> dict[str, np.ndarray]:
    runtime = session(model)
    image = np.random.default_rng(3).random((3, 3, 16, 16), dtype=np.float32)
    names = [item.name for item in runtime.get_outputs()]
    return dict(zip(names, runtime.run(None, {"image": image}), strict=True))


def assert_same(found: Model, expected: dict[str, np.ndarray]) -> None:
    values = outputs(found)
    assert values.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(values[name], array, rtol=0, atol=CLOSE, err_msg=name)


def node(model: Model, name: str) -> onnx.NodeProto:
    return next(item for item in model.graph.node if item.name == name)


def initializer(model: Model, name: str) -> TensorProto:
    return next(item for item in model.graph.initializer if item.name == name)


def value(name: str, rank: int) -> onnx.ValueInfoProto:
    """A float32 tensor of unknown sizes."""
    return helper.make_tensor_value_info(name, 1, [f"{name}_{axis}" for axis in range(rank)])


def replace_weight(model: Model, name: str, array: np.ndarray) -> None:
    initializer(model, name).CopyFrom(numpy_helper.from_array(array, name))


def insert(model: Model, before: str, position: int, *nodes: onnx.NodeProto) -> None:
    """Put ``nodes``, which end in a tensor ``edited``, in front of an input of node ``before``."""
    copies = [onnx.NodeProto() for _ in model.graph.node]
    for copy, item in zip(copies, model.graph.node, strict=True):
        copy.CopyFrom(item)
    place = next(index for index, item in enumerate(copies) if item.name == before)
    copies[place].input[position] = "edited"
    del model.graph.node[:]
    model.graph.node.extend([*copies[:place], *nodes, *copies[place:]])


# --- what is fused all the same


@pytest.mark.parametrize(
    "role", ["scan{}.A", "mixer.D{}", "x_proj{}.weight_t", "dt_proj{}.weight_t", "dt_proj{}.bias"]
)
def test_initialisers_shared_between_the_directions(model: Model, role: str) -> None:
    names = {tensor.name for tensor in model.graph.initializer}
    forward, backward = (
        next(name for name in names if name.startswith("layers.1.") and name.endswith(end))
        for end in (role.format(""), role.format("_b"))
    )
    for item in model.graph.node:
        item.input[:] = [forward if name == backward else name for name in item.input]
    expected = outputs(model)
    assert_same(fused(model, expected=2), expected)


@pytest.mark.parametrize("seed", range(3))
def test_nodes_in_another_topological_order(model: Model, seed: int) -> None:
    generator = random.Random(seed)
    waiting = [*model.graph.node]
    known = {item.name for item in model.graph.input} | {""}
    known |= {tensor.name for tensor in model.graph.initializer}
    ordered = []
    while waiting:
        ready = [item for item in waiting if known.issuperset(item.input)]
        ordered.append(generator.choice(ready))
        waiting.remove(ordered[-1])
        known.update(ordered[-1].output)
    assert [item.name for item in ordered] != [item.name for item in model.graph.node]
    expected = outputs(model)
    copies = [onnx.NodeProto() for _ in ordered]
    for copy, item in zip(copies, ordered, strict=True):
        copy.CopyFrom(item)
    del model.graph.node[:]
    model.graph.node.extend(copies)
    assert_same(fused(model, expected=2), expected)


def test_a_replaced_weight_of_one_direction_is_the_one_that_is_fused(model: Model) -> None:
    name = "layers.1.mixer.x_proj_b.weight_t"
    shape = tuple(initializer(model, name).dims)
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    before = outputs(model)
    replace_weight(model, name, values)
    expected = outputs(model)
    assert np.abs(expected["logits"] - before["logits"]).max() > 100 * CLOSE
    assert_same(fused(model, expected=2), expected)


def test_a_mixers_result_that_is_a_graph_output_as_well(model: Model) -> None:
    name = node(model, "block_00/mixer/Mul").output[0]
    model.graph.output.append(value(name, 3))
    expected = outputs(model)
    assert_same(fused(model, expected=2), expected)


def test_a_factor_for_each_channel_behind_the_mixer_stays(model: Model) -> None:
    values = np.linspace(0.5, 2, 32, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "gain"))
    name = node(model, "block_00/mixer/Mul").output[0]
    extra = helper.make_node("Mul", [name, "gain"], ["edited"], name="extra")
    insert(model, "block_00/mixer/out_proj/MatMul", 0, extra)
    expected = outputs(model)
    assert_same(fused(model, expected=2), expected)
    assert node(model, "extra").op_type == "Mul"


def test_nodes_nobody_knows_outside_of_the_mixers_stay(model: Model) -> None:
    magic = helper.make_node("Magic", ["logits"], ["m"], domain="com.example", name="magic", k=1)
    model.graph.node.append(magic)
    model.graph.output.append(value("m", 2))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    foreign = helper.make_function(
        "com.example", "Magic", ["a"], ["b"],
        [helper.make_node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 18)], ["k"],
    )  # fmt: skip
    model.functions.append(foreign)
    expected = outputs(model)
    assert_same(fused(model, expected=2), expected)
    assert node(model, "magic") == magic
    assert foreign in model.functions


def test_a_weight_that_a_subgraph_reads_as_well_stays(model: Model) -> None:
    name = "layers.1.mixer.scan.A"
    branch = helper.make_graph(
        [helper.make_node("Identity", [name], ["inner"])], "b", [],
        [value("inner", 2)],
    )  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    chosen = helper.make_node("If", ["yes"], ["a"], then_branch=branch, else_branch=branch)
    model.graph.node.append(chosen)
    model.graph.output.append(value("a", 2))
    expected = outputs(model)
    assert_same(fused(model, expected=2), expected)


@pytest.mark.parametrize("opset", [min(OPSETS), max(OPSETS)])
def test_base_files_of_other_opsets(opset: int) -> None:
    model = exported("base", opset=opset)[1].model
    expected = outputs(model)
    assert_same(fused(model, expected=2), expected)


def test_the_default_domain_by_its_long_name(model: Model) -> None:
    next(entry for entry in model.opset_import if entry.domain == "").domain = "ai.onnx"
    reports = run_passes(model, expected=2)
    assert all(report.as_expected for report in reports)


def test_what_was_left_is_fused_once_its_obstacle_is_gone(model: Model) -> None:
    expected = outputs(model)
    tap = value("block_01/mixer/fwd/conv1d/Mul_output_0", 3)
    model.graph.output.append(tap)
    assert [report.matched for report in run_passes(model)][1:] == [1, 1, 1, 1]
    attach_functions(model)
    assert_same(model, outputs(model) | expected)
    del model.graph.output[-1]
    assert [report.matched for report in run_passes(model)] == [0, 1, 1, 1, 1]
    attach_functions(model)
    assert summarize(model, 2).fused_scans == 2
    assert_same(model, expected)


# --- what stays whole, as a mixer, while the other one is fused


def _identity_behind_silu(model: Model) -> None:
    source = node(model, "block_01/mixer/fwd/x_proj/MatMul").input[0]
    extra = helper.make_node("Identity", [source], ["edited"], name="extra")
    insert(model, "block_01/mixer/fwd/x_proj/MatMul", 0, extra)


def _identity_before_one_convolution(model: Model) -> None:
    source = node(model, "block_01/mixer/bwd/conv1d/Conv").input[0]
    extra = helper.make_node("Identity", [source], ["edited"], name="extra")
    insert(model, "block_01/mixer/bwd/conv1d/Conv", 0, extra)


def _another_gate(model: Model) -> None:
    source = node(model, "block_01/mixer/bwd/scan/VimSelectiveScan").input[-1]
    extra = helper.make_node("Identity", [source], ["edited"], name="extra")
    insert(model, "block_01/mixer/bwd/scan/VimSelectiveScan", 6, extra)


def _factor_on_one_scan(model: Model) -> None:
    total = node(model, "block_01/mixer/Add")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.3), "third"))
    extra = helper.make_node("Mul", [total.input[0], "third"], ["edited"], name="extra")
    insert(model, "block_01/mixer/Add", 0, extra)


def _unknown_node_inside(model: Model) -> None:
    source = node(model, "block_01/mixer/bwd/dt_proj/MatMul").input[0]
    extra = helper.make_node("Magic", [source], ["edited"], name="m", domain="com.example")
    insert(model, "block_01/mixer/bwd/dt_proj/MatMul", 0, extra)
    opsets = [helper.make_opsetid("", 18)]
    body = [helper.make_node("Neg", ["a"], ["b"])]
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.functions.append(helper.make_function("com.example", "Magic", ["a"], ["b"], body, opsets))


def _half_weight(model: Model) -> None:
    name = "layers.1.mixer.x_proj.weight_t"
    half = numpy_helper.to_array(initializer(model, name)).astype(np.float16)
    replace_weight(model, name, half)
    extra = helper.make_node("Cast", [name], ["edited"], name="extra", to=TensorProto.FLOAT)
    insert(model, "block_01/mixer/fwd/x_proj/MatMul", 1, extra)


def _weight_as_a_node(model: Model) -> None:
    weight = initializer(model, "layers.1.mixer.dt_proj.weight_t")
    extra = helper.make_node("Constant", [], ["edited"], name="extra", value=weight)
    insert(model, "block_01/mixer/fwd/dt_proj/MatMul", 1, extra)


def _shorter_kernel(model: Model) -> None:
    name = node(model, "block_01/mixer/fwd/conv1d/Conv").input[1]
    array = numpy_helper.to_array(initializer(model, name))[..., 1:].copy()
    replace_weight(model, name, array)
    for item in node(model, "block_01/mixer/fwd/conv1d/Conv").attribute:
        if item.name == "pads":
            item.ints[:] = [2, 0]
        if item.name == "kernel_shape":
            item.ints[:] = [3]


def _other_factor(model: Model) -> None:
    factor = next(name for name in node(model, "block_01/mixer/Mul").input if "constant" in name)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.25), "quarter"))
    inputs = node(model, "block_01/mixer/Mul").input
    inputs[list(inputs).index(factor)] = "quarter"


def _sum_as_output(model: Model) -> None:
    name = node(model, "block_01/mixer/Add").output[0]
    model.graph.output.append(value(name, 3))


def _read_by_a_subgraph(model: Model) -> None:
    name = "block_01/mixer/fwd/dt_proj/MatMul_output_0"
    branch = helper.make_graph(
        [helper.make_node("Neg", [name], ["inner"])], "b", [],
        [value("inner", 3)],
    )  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    chosen = helper.make_node("If", ["yes"], ["a"], then_branch=branch, else_branch=branch)
    model.graph.node.append(chosen)
    model.graph.output.append(value("a", 3))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_identity_behind_silu, "does not read the convolved tokens"),
        (_identity_before_one_convolution, "does not come from a Transpose"),
        (_another_gate, "the scans differ in the gate's tensor"),
        (_factor_on_one_scan, "no scan of the other direction"),
        (_unknown_node_inside, "does not come from a Slice"),
        (_half_weight, "is not a constant"),
        (_weight_as_a_node, "is not a constant"),
        (_shorter_kernel, "the directions differ"),
        (_other_factor, "differ from those of the other mixers"),
        (_sum_as_output, "differ from those of the other mixers"),
        (_read_by_a_subgraph, "is also read by If"),
    ],
)
def test_an_edited_mixer_stays_whole(model: Model, edit: Edit, reason: str) -> None:
    edit(model)
    expected = outputs(model)
    before = block_ops(model, 1)
    reports = run_passes(model)
    attach_functions(model)
    assert (block_ops(model, 0), block_ops(model, 1)) == (FUSED_BLOCK, before)
    refused = reports[-1].refused
    assert [refusal.place for refusal in refused] == [
        f"block_01/mixer/{direction}/scan/{SELECTIVE_SCAN.name}" for direction in ("fwd", "bwd")
    ]
    assert all(reason in refusal.reason for refusal in refused), refused
    assert_same(model, expected)


@pytest.mark.parametrize("edit", [_identity_behind_silu, _other_factor])
def test_an_edited_mixer_stops_an_export_that_promises_both(model: Model, edit: Edit) -> None:
    edit(model)
    with pytest.raises(VimDeployError, match="1 mixers instead of 2") as caught:
        run_passes(model, expected=2)
    assert caught.value.code == "VIM-502"
    assert "block_01" in caught.value.why


def test_a_scan_that_breaks_the_contract_is_not_read(model: Model) -> None:
    scan = node(model, "block_01/mixer/bwd/scan/VimSelectiveScan")
    kept = [item for item in scan.attribute if item.name != "b_off"]
    del scan.attribute[:]
    scan.attribute.extend(kept)
    reports = run_passes(model)
    assert {refusal.reason for refusal in reports[-1].refused} == {"a scan has no attribute b_off"}
    scan = node(model, "block_01/mixer/bwd/scan/VimSelectiveScan")
    del scan.input[-1]
    scan.attribute.append(helper.make_attribute("b_off", 1))
    assert "a scan has 6 inputs" in {item.reason for item in run_passes(model)[-1].refused}


def test_weights_of_another_type_are_not_stacked(model: Model) -> None:
    name = "layers.1.mixer.scan.A"
    replace_weight(model, name, numpy_helper.to_array(initializer(model, name)).astype(np.float64))
    reasons = {refusal.reason for refusal in run_passes(model)[-1].refused}
    assert reasons == {f"{name} is not of float32"}
