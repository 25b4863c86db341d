"""Products in 8 bits: which they are, and that the graph computes what the plan says."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.support.models import tiny_config
from tests.unit.graph.test_export_graph import deployed
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.export_graph import export_graph
from vim_deploy.graph.quantization.apply import apply_quantization
from vim_deploy.graph.quantization.plan import (
    SECOND_DIGIT,
    LayerPlan,
    QuantizationPlan,
    column_scales,
    quantized,
    scale_of,
)
from vim_deploy.graph.quantization.products import find_products
from vim_deploy.graph.quantization.rounding import rounded_for
from vim_deploy.graph.quantization.storage import store_in_half
from vim_deploy.onnx_graph import half_types
from vim_deploy.precisions import QUANTIZED, TABLE
from vim_deploy.recipe.precision_policy import PrecisionPolicy, Rule
from vim_deploy.runtimes.onnxruntime.runner import memory_runner

ALL = PrecisionPolicy()


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    module, info = deployed(tiny_config())
    info = dataclasses.replace(info, graph="fused", opset=19)
    return export_graph(module, info, batch=None).model


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def plain_plan(model: onnx.ModelProto, scale: float | None = 0.05) -> QuantizationPlan:
    return QuantizationPlan(tuple(LayerPlan(p.name, scale) for p in find_products(model, ALL)))


def linear(x: NDArray[np.float32], weight: NDArray[np.float32], *, gemm: bool) -> onnx.ModelProto:
    """One product by itself, called as the head of a model or an in_proj is."""
    name, operator = ("head/Gemm", "Gemm") if gemm else ("block_00/mixer/in_proj/MatMul", "MatMul")
    stored = [numpy_helper.from_array(weight, "w")]
    inputs = ["image", "w"]
    if gemm:
        stored.append(numpy_helper.from_array(np.arange(weight.shape[1], dtype=np.float32), "b"))
        inputs.append("b")
    node = helper.make_node(operator, inputs, ["y"], name=name)
    values = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *x.shape[1:]])]
    shape = ["n", *x.shape[1:-1], weight.shape[1]]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    graph = helper.make_graph([node], "g", values, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def computed(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    from onnx.reference import ReferenceEvaluator

    (found,) = ReferenceEvaluator(model).run(None, {"image": x})
    return np.asarray(found, np.float32)


def by_hand(
    x: NDArray[np.float32], weight: NDArray[np.float32], layer: LayerPlan, precision: str
) -> NDArray[np.float64]:
    """x W as a plan means it, in float64 on numbers of 8 bits."""
    smoothing = np.ones(len(weight)) if layer.smoothing is None else np.array(layer.smoothing)
    factors = smoothing.astype(np.float32)
    x, weight = x * (1 / factors), weight * factors[:, None]
    scales = column_scales(weight, precision)
    w = quantized(weight, scales, precision).astype(np.float64) * scales
    if layer.scale is None:
        top = np.abs(x).max(axis=-1, keepdims=True)
        step = np.float32(1 / TABLE[precision].largest)
        return (quantized(x / top, float(step), precision).astype(np.float64) * step) @ w * top
    step = np.float32(layer.scale)
    first = quantized(x, float(step), precision).astype(np.float32) * step
    digits = first.astype(np.float64)
    if layer.digits > 1:
        second = np.float32(layer.scale * SECOND_DIGIT[precision])
        rest = quantized(x - first, float(second), precision)
        digits = digits + rest.astype(np.float64) * second
    return digits @ w


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("precision", QUANTIZED)
@pytest.mark.parametrize(
    "layer",
    [
        LayerPlan("", 0.03),
        LayerPlan("", 0.03, digits=2),
        LayerPlan("", 0.02, tuple(np.linspace(0.5, 2, 6).tolist())),
        LayerPlan(""),
    ],
    ids=["static", "two digits", "smoothed", "per token"],
)
def test_a_product_computes_what_its_plan_says(
    layer: LayerPlan, precision: str, gemm: bool
) -> None:
    generator = np.random.default_rng(3)
    shape = (5, 6) if gemm else (2, 5, 6)
    x = (generator.standard_normal(shape) * 1.5).astype(np.float32)
    weight = generator.standard_normal((6, 4)).astype(np.float32)
    model = linear(x, weight, gemm=gemm)
    (product,) = find_products(model, ALL)
    layer = dataclasses.replace(layer, name=product.name)
    wanted = by_hand(x, weight, layer, precision) + (np.arange(4) if gemm else 0)
    apply_quantization(model, QuantizationPlan((layer,)), precision, ALL)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(computed(model, x), wanted, rtol=1e-5, atol=1e-5)
    # Far closer than 8 bits are to the exact product, so the comparison can fail.
    assert np.abs(wanted - (x @ weight + (np.arange(4) if gemm else 0))).max() > 1e-4


def test_every_product_is_found_and_each_direction_by_itself(exported: onnx.ModelProto) -> None:
    products = find_products(exported, ALL)
    assert Counter(product.role for product in products) == {
        "patch_embed": 1, "in_proj": 2, "x_proj": 4, "dt_proj": 4, "out_proj": 2, "head": 1
    }  # fmt: skip
    names = [product.name for product in products if product.role == "x_proj"]
    assert [product.half for product in products if product.role == "x_proj"] == [0, 1, 0, 1]
    assert names[0] == "block_00/mixer/fwd/x_proj/MatMul"
    kept = PrecisionPolicy(not_quantized=(Rule(("x_proj",), "1"), Rule(("head",))))
    left = {(product.role, product.block) for product in find_products(exported, kept)}
    assert ("x_proj", 1) not in left
    assert ("head", None) not in left
    assert ("x_proj", 0) in left


@pytest.mark.parametrize("scale", [0.05, None])
def test_a_quantized_network_is_near_its_own(
    exported: onnx.ModelProto, scale: float | None
) -> None:
    model = copied(exported)
    done = apply_quantization(model, plain_plan(model, scale), "int8", ALL)
    stored = store_in_half(model)
    onnx.checker.check_model(model, full_check=True)
    assert sum(done.products.values()) == 14
    assert stored > 0
    # Stored in half, computed in float32.
    assert not half_types(model)
    image = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
    with memory_runner(exported, "a.onnx") as plain, memory_runner(model, "b.onnx") as coarse:
        (wanted,), (found,) = plain.run(image).values(), coarse.run(image).values()
    distance = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    assert 1e-4 < distance < TABLE["int8"].relative_l2


def test_pairs_stand_before_products_and_have_one_reader(exported: onnx.ModelProto) -> None:
    """What runtimes look for: see docs/quantization.md."""
    model = copied(exported)
    layers = [
        dataclasses.replace(layer, digits=2 if "out_proj" in layer.name else 1)
        for layer in plain_plan(model).layers
    ]
    apply_quantization(model, QuantizationPlan(tuple(layers)), "int8", ALL)
    readers = Counter(name for node in model.graph.node for name in node.input)
    made = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Conv")]
    assert len(products) == 14 + 2
    for node in products:
        x, weight = made[node.input[0]], made[node.input[1]]
        assert x.op_type == weight.op_type == "DequantizeLinear"
        assert made[x.input[0]].op_type == "QuantizeLinear"
        assert readers[x.input[0]] == readers[x.output[0]] == 1
        assert stored[weight.input[0]].data_type == TensorProto.INT8
        assert len(stored[weight.input[0]].dims) == (4 if node.op_type == "Conv" else 2)
        assert stored[x.input[2]].data_type == TensorProto.INT8
        assert not numpy_helper.to_array(stored[x.input[2]])


def test_what_cannot_be_quantized(exported: onnx.ModelProto) -> None:
    plan = plain_plan(exported)
    everything = PrecisionPolicy(
        not_quantized=(
            Rule(("patch_embed", "head")),
            Rule(("in_proj", "x_proj", "dt_proj", "out_proj")),
        )
    )
    with pytest.raises(VimDeployError, match="VIM-203"):
        apply_quantization(copied(exported), plan, "int8", everything)
    with pytest.raises(VimDeployError, match="VIM-441: the calibration says nothing of"):
        apply_quantization(copied(exported), QuantizationPlan(plan.layers[1:]), "int8", ALL)
    old = copied(exported)
    old.opset_import[0].version = 18
    with pytest.raises(VimDeployError, match="opset 18 has no fp8"):
        apply_quantization(old, plan, "fp8", ALL)


def test_a_scale_holds_the_largest_magnitude() -> None:
    for largest in (1e-6, 0.3, 1.0, 126.9, 3e4):
        scale = scale_of(largest, "int8")
        assert largest <= 127 * scale <= largest * 1.004
    assert scale_of(0.0, "int8") == 1.0
    values = np.array([-1e9, -127.5, 0.5, 1.5, 2.5, 1e9], np.float32)
    assert quantized(values, 1.0, "int8").tolist() == [-128, -128, 0, 2, 2, 127]


def test_weights_rounded_for_their_activations_are_nearer() -> None:
    generator = np.random.default_rng(1)
    # Few directions hold nearly everything, as channels of a network go together.
    rows = generator.standard_normal((400, 8)) @ generator.standard_normal((8, 48))
    x = (rows + 0.05 * generator.standard_normal(rows.shape)).astype(np.float32)
    weight = generator.standard_normal((48, 20)).astype(np.float32)
    scales = column_scales(weight, "int8")
    nearest = quantized(weight, scales, "int8").astype(np.float64) * scales
    found = rounded_for(weight, scales, x, 1e-3, "int8").astype(np.float64) * scales
    assert np.linalg.norm(x @ (found - weight)) < 0.5 * np.linalg.norm(x @ (nearest - weight))
    # Each is a neighbour of what nearest gives, or not far.
    assert np.abs(found - weight).max() < 3 * scales.max()
    silent = rounded_for(weight, scales, np.zeros((9, 48), np.float32), 1e-3, "int8")
    np.testing.assert_array_equal(silent, quantized(weight, scales, "int8"))
