"""Typing a graph: which node gets which type, where casts stand, what weights lose."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.models import tiny_config
from tests.unit.graph.test_export_graph import deployed
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.export_graph import export_graph
from vim_deploy.graph.inventory import take_inventory
from vim_deploy.graph.precision import PrecisionReport, apply_precision, to_half
from vim_deploy.graph.verify import check_graph
from vim_deploy.onnx_graph import element_types, half_tensors, half_types
from vim_deploy.ops import BI_SELECTIVE_SCAN, OPS, SELECTIVE_SCAN, contract
from vim_deploy.ops.functions import type_functions
from vim_deploy.places import role_of
from vim_deploy.recipe.precision_policy import PrecisionPolicy, Rule, default_policy
from vim_deploy.runtimes.onnxruntime.explicit_rounding import round_explicitly

FLOAT, FLOAT16, BFLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
NO_RULES = PrecisionPolicy(())


def graph_of(form: str, **changes: object) -> onnx.ModelProto:
    import dataclasses

    module, info = deployed(tiny_config(**changes))
    return export_graph(module, dataclasses.replace(info, graph=form), batch=None).model


@pytest.fixture(scope="module")
def fused() -> onnx.ModelProto:
    return graph_of("fused")


@pytest.fixture(scope="module")
def base() -> onnx.ModelProto:
    return graph_of("base")


def typed(
    model: onnx.ModelProto,
    precision: str = "fp16",
    policy: PrecisionPolicy | None = None,
    io_precision: str = "fp32",
) -> tuple[onnx.ModelProto, PrecisionReport]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    report = apply_precision(copy, precision, policy or default_policy(), io_precision)
    onnx.checker.check_model(copy, full_check=True)
    return copy, report


def computing_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type that each computing node writes."""
    types = element_types(model)
    return {node.name: types[node.output[0]] for node in model.graph.node if node.op_type != "Cast"}


@pytest.mark.parametrize(
    ("name", "role", "block"),
    [
        ("patch_embed/proj/Conv", "patch_embed", None),
        ("head/Gemm", "head", None),
        ("rope/Mul_3", "rope", None),
        ("block_07/Add", "residual", 7),
        ("block_07/norm/Pow", None, 7),
        ("block_12/mixer/in_proj/MatMul", "in_proj", 12),
        ("block_12/mixer/bwd/conv1d/Conv", "conv", 12),
        ("block_12/mixer/conv1d/VimBiCausalConv", "conv", 12),
        ("block_12/mixer/x_proj/MatMul", "x_proj", 12),
        ("block_12/mixer/fwd/dt_proj/MatMul", "dt_proj", 12),
        ("block_12/mixer/fwd/scan/VimSelectiveScan", "scan", 12),
        ("block_12/mixer/Add", "scan", 12),
        ("block_12/mixer/out_proj/MatMul", "out_proj", 12),
        ("norm_f/Pow", None, None),
        ("Add_1", None, None),
        ("class_tokens/Add", None, None),
    ],
)
def test_roles(name: str, role: str | None, block: int | None) -> None:
    assert role_of(name) == (role, block)


@pytest.mark.parametrize("element", [FLOAT16, BFLOAT16])
def test_what_the_shipped_policy_types(fused: onnx.ModelProto, element: int) -> None:
    model, report = typed(fused, {FLOAT16: "fp16", BFLOAT16: "bf16"}[element])
    types = computing_types(model)
    half = {name for name, found in types.items() if found == element}
    for block in ("block_00", "block_01"):
        inner = {name for name in half if name.startswith(block)}
        assert inner == {
            f"{block}/mixer/{part}"
            for part in (
                "in_proj/MatMul",
                "conv1d/VimBiCausalConv",
                "x_proj/MatMul",
                "dt_proj/MatMul",
                "scan/VimBiSelectiveScan",
                "out_proj/MatMul",
            )
        }
    # In opset 18 a convolution has no bfloat16; the report says so.
    assert ("patch_embed/proj/Conv" in half) == (element == FLOAT16)
    assert report.kept == (
        () if element == FLOAT16 else ("patch_embed: opset 18 has no bf16 Conv",)
    )
    assert report.casts == sum(node.op_type == "Cast" for node in model.graph.node)


def test_casts_in_a_block(fused: onnx.ModelProto) -> None:
    model, _ = typed(fused)
    names = [node.name for node in model.graph.node if node.op_type == "Cast"]
    # The norm narrows what it writes, the residual sum widens what it reads.
    inner = [name for name in names if name.startswith("block_01")]
    assert inner == ["block_01/Add/Cast_fp32", "block_01/norm/Mul_output_0/Cast_fp16"]
    launches = [block.launches for block in take_inventory(model, 1)[:2]]
    assert max(launches) <= 7


def test_parameters_of_our_ops_stay_float32(fused: onnx.ModelProto) -> None:
    model, _ = typed(fused, policy=NO_RULES)
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.domain != contract.DOMAIN:
            continue
        for name, formal in zip(node.input, OPS[node.op_type].inputs, strict=True):
            if formal in OPS[node.op_type].fp32:
                assert stored[name] == FLOAT, name


def test_weights_keep_their_names(fused: onnx.ModelProto) -> None:
    model, _ = typed(fused)
    before = {tensor.name for tensor in fused.graph.initializer}
    assert {tensor.name for tensor in model.graph.initializer} == before
    assert model.ByteSize() < 0.75 * fused.ByteSize()


def test_low_rank_weight_has_the_activations_type() -> None:
    model, _ = typed(graph_of("fused-low-rank"))
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    scan = next(node for node in model.graph.node if node.op_type == BI_SELECTIVE_SCAN.name)
    assert stored[scan.input[1]] == FLOAT16


def test_rules_move_single_blocks(fused: onnx.ModelProto) -> None:
    rule = Rule(("scan", "conv"), "1")
    model, _ = typed(fused, policy=PrecisionPolicy((rule,)))
    types = computing_types(model)
    assert types["block_00/mixer/scan/VimBiSelectiveScan"] == FLOAT16
    assert types["block_01/mixer/scan/VimBiSelectiveScan"] == FLOAT
    assert types["block_01/mixer/conv1d/VimBiCausalConv"] == FLOAT
    # One function serves both types.
    assert len(model.functions) == 2


def test_norms_and_pooling_stay_float32_without_rules(base: onnx.ModelProto) -> None:
    model, _ = typed(base, policy=NO_RULES)
    types = computing_types(model)
    wide = {node.op_type for node in model.graph.node if types.get(node.name) == FLOAT}
    assert {"Pow", "ReduceMean", "Sqrt"} <= wide
    half = half_tensors(model)
    assert types["head/Gemm"] == FLOAT16
    assert "Add_1_output_0" not in half


def test_reductions_in_half_are_found(fused: onnx.ModelProto) -> None:
    model, _ = typed(fused)
    names = [node.name for node in model.graph.node]
    source = "block_00/mixer/in_proj/MatMul_output_0"
    extra = helper.make_node("Sqrt", [source], ["unread"], name="block_00/norm/Sqrt_half")
    model.graph.node.insert(names.index("block_00/mixer/in_proj/MatMul") + 1, extra)
    with pytest.raises(VimDeployError, match="not what it should be") as caught:
        check_graph(model, tiny_config(), "fused")
    assert "block_00/norm/Sqrt_half reduces in 16 bits" in caught.value.why


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_inputs_and_outputs(fused: onnx.ModelProto, precision: str) -> None:
    element = {"fp16": FLOAT16, "bf16": BFLOAT16}[precision]
    for io_precision, wanted in (("fp32", FLOAT), (precision, element)):
        model, report = typed(fused, precision, io_precision=io_precision)
        values = [*model.graph.input, *model.graph.output]
        assert {value.type.tensor_type.elem_type for value in values} == {wanted}
        assert [value.name for value in values] == ["image", "logits"]
        assert report.io_precision == io_precision


def test_boxes_are_float32_whatever_the_outputs_are(fused: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(fused)
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["boxes" if output == name else output for output in node.output]
    model.graph.output[0].name = "boxes"
    found, _ = typed(model, "fp16", io_precision="fp16")
    assert found.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert found.graph.output[0].type.tensor_type.elem_type == FLOAT


def test_refused(fused: onnx.ModelProto) -> None:
    with pytest.raises(VimDeployError) as caught:
        typed(fused, "fp16", io_precision="bf16")
    assert caught.value.code == "VIM-203"
    every = Rule(
        ("patch_embed", "in_proj", "conv", "x_proj", "dt_proj", "scan", "out_proj", "residual",
         "head", "rope"), None, "",
    )  # fmt: skip
    with pytest.raises(VimDeployError, match="leaves nothing to compute in fp16"):
        typed(fused, policy=PrecisionPolicy((every,)))


def test_fp32_changes_nothing(fused: onnx.ModelProto) -> None:
    model, report = typed(fused, "fp32")
    assert model == fused
    assert report.casts == 0


def test_weights_that_overflow_are_named(fused: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(fused)
    name = "layers.1.mixer.out_proj.weight_t"
    tensor = next(item for item in model.graph.initializer if item.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0] = 7e4
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    with pytest.raises(VimDeployError) as caught:
        typed(model)
    assert caught.value.code == "VIM-505"
    assert f"{name} (1 values, up to 7e+04)" in caught.value.why
    typed(model, "bf16")
    kept = Rule(("out_proj",), "1")
    typed(model, policy=PrecisionPolicy((kept,)))


def test_what_16_bits_lose() -> None:
    values = np.array([1.0, 65504.0, 65519.0, 65520.0, -1e6, 2.0**-14, 3e-6, 1e-9, 0, np.inf])
    tensor = numpy_helper.from_array(values.astype(np.float32), "w")
    half, found = to_half(tensor, FLOAT16, "w.fp16")
    assert half.data_type == FLOAT16
    assert (found.name, found.elements, found.overflowed) == ("w", 10, 2)
    assert (found.subnormal, found.vanished) == (2, 1)
    wide, found = to_half(tensor, BFLOAT16, "w.bf16")
    assert wide.data_type == BFLOAT16
    assert not found.noteworthy


def test_a_subnormal_that_fits_exactly_lost_nothing() -> None:
    tensor = numpy_helper.from_array(np.array([2.0**-20, 2.0**-24], np.float32), "w")
    assert not to_half(tensor, FLOAT16, "h")[1].noteworthy


def test_a_shared_weight_gets_one_copy_for_each_type() -> None:
    nodes = [
        helper.make_node("MatMul", ["image", "w"], ["a"], name="block_00/mixer/in_proj/MatMul"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="block_00/mixer/x_proj/MatMul"),
        helper.make_node("MatMul", ["b", "w"], ["logits"], name="norm_f/MatMul"),
    ]
    shape = [2, 2]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", FLOAT, shape)],
        [helper.make_tensor_value_info("logits", FLOAT, shape)],
        [numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    model, report = typed(model, policy=NO_RULES)
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert stored == {"w": FLOAT, "w.fp16": FLOAT16}
    assert [node.op_type for node in model.graph.node] == [
        "Cast",
        "MatMul",
        "MatMul",
        "Cast",
        "MatMul",
    ]
    assert report.nodes == {"fp32": 1, "fp16": 2}


def test_explicit_rounding_is_numpys(fused: onnx.ModelProto) -> None:
    import onnxruntime

    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 8)).astype(np.float16)
    nodes = [
        helper.make_node("MatMul", ["image", "w"], ["a"], name="m"),
        helper.make_node("Mul", ["a", "a"], ["b"], name="s"),
        helper.make_node("Transpose", ["b"], ["logits"], name="t"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", FLOAT16, [4, 8])],
        [helper.make_tensor_value_info("logits", FLOAT16, [8, 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    rounding = round_explicitly(model)
    onnx.checker.check_model(rounding, full_check=True)
    image = rng.standard_normal((4, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        rounding.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"image": image})
    half = image.astype(np.float16).astype(np.float32) @ weight.astype(np.float32)
    half = half.astype(np.float16).astype(np.float32)
    expected = (half * half).astype(np.float16).astype(np.float32).T
    assert found.dtype == np.float32
    # Another order of the eight sums may round a value the other way.
    assert np.abs(found - expected).max() <= 2**-10 * np.abs(expected).max()
    assert (found == expected).mean() > 0.9
    assert half_types(model) == {FLOAT16}
    assert half_types(fused) == set()


def test_functions_read_inside_of_subgraphs(fused: onnx.ModelProto) -> None:
    # An activation that only the body of a Scan reads is cast, too, and what the body defines
    # under an outer name stays its own.
    body = helper.make_graph(
        [
            helper.make_node("Add", ["x", "u"], ["u_in"]),
            helper.make_node("Mul", ["u_in", "z"], ["o"]),
        ],
        "b",
        [helper.make_tensor_value_info("u", FLOAT, None)],
        [helper.make_tensor_value_info("o", FLOAT, None)],
    )
    scan = helper.make_node("Scan", ["u"], ["y"], body=body, num_scan_inputs=1)
    function = helper.make_function(
        contract.DOMAIN,
        SELECTIVE_SCAN.name,
        list(SELECTIVE_SCAN.inputs),
        ["y"],
        [scan],
        [helper.make_opsetid("", 18)],
    )
    model = onnx.ModelProto()
    model.functions.append(function)
    type_functions(model)
    nodes = list(model.functions[0].node)
    assert [list(node.input) for node in nodes if node.op_type == "Cast"] == [["u"], ["z"]]
    inner = next(node for node in nodes if node.op_type == "Scan").attribute
    graph = next(item.g for item in inner if item.name == "body")
    assert list(graph.node[0].input) == ["x", "u"]
    assert list(graph.node[1].input) == ["u_in", "z_fp32"]
    assert list(nodes[-1].input) == ["y_fp32", "u"]
