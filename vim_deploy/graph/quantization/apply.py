"""A float32 graph with its products in 8 bits, as explicit QuantizeLinear and DequantizeLinear.

Each pair stands directly before its product and has one reader, and weights are matrices: so ONNX
Runtime, OpenVINO, TensorRT and TensorRT-RTX find the pattern that they compute with integers.
Quantized nodes have float32 on both sides, whatever type the rest of the graph gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import NodeProto, helper

from vim_deploy import places
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.quantization.plan import (
    SECOND_DIGIT,
    LayerPlan,
    QuantizationPlan,
    column_scales,
    quantized,
    smoothed,
)
from vim_deploy.graph.quantization.products import Matrix, Product, find_products
from vim_deploy.graph.quantization.smoothing import fold, norm_before
from vim_deploy.onnx_graph import ELEMENT_TYPES, Rewriter, node_of, opset_version
from vim_deploy.precisions import TABLE, Precision, require_opset
from vim_deploy.recipe.precision_policy import PrecisionPolicy

#: First opset in which ReduceMax has its axes as an input.
_AXES_ARE_INPUT = 18
#: Rows of nothing but zeros are divided by this instead of by their largest value.
_LEAST = float(np.finfo(np.float32).tiny)


@dataclass
class Quantized:
    """What was done.

    Attributes:
        nodes: names of the nodes that compute in 8 bits or hand over to those: float32 always.
        products: by role, how many were quantized.
    """

    nodes: set[str] = field(default_factory=set)
    products: dict[str, int] = field(default_factory=dict)

    def role_of(self, node: NodeProto) -> tuple[str | None, int | None]:
        """Role and block of a node, none for those that compute in 8 bits: always float32."""
        return (None, None) if node.name in self.nodes else places.role_of(node.name)


def apply_quantization(
    model: onnx.ModelProto, plan: QuantizationPlan, precision: Precision, policy: PrecisionPolicy
) -> Quantized:
    """Quantize ``model`` in place.

    Args:
        model: an exported float32 graph with its opset settled.
        plan: a layer for each product.
        precision: ``int8`` or ``fp8``.
        policy: which products stay as they are.

    Raises:
        VimDeployError: VIM-203 (the policy leaves nothing, or ``precision`` is not in the graph's
            opset), VIM-441 (the plan lacks a product).
    """
    opset = opset_version(model)
    require_opset(precision, opset)
    products = find_products(model, policy)
    if not products:
        raise VimDeployError(
            "VIM-203",
            f"the precision policy leaves nothing to compute in {precision}",
            fix="remove rules from it, or export with another --precision",
        )
    layers = plan.named()
    lacking = [product.name for product in products if product.name not in layers]
    if lacking:
        raise VimDeployError(
            "VIM-441",
            f"the calibration says nothing of {lacking[0]}",
            why=f"it lacks {len(lacking)} of {len(products)} products",
            fix="calibrate on pictures again: --calibration FOLDER",
        )
    return _Quantizing(model, precision, opset, plan.weights).run(products, layers)


class _Quantizing:
    def __init__(
        self,
        model: onnx.ModelProto,
        precision: Precision,
        opset: int,
        weights: Mapping[str, np.ndarray],
    ) -> None:
        self.weights = weights
        self.rewriter = Rewriter(model.graph)
        self.nodes = {node.name: node for node in model.graph.node}
        self.precision = precision
        self.row = TABLE[precision]
        self.opset = opset
        self.done = Quantized()

    def run(self, products: tuple[Product, ...], layers: Mapping[str, LayerPlan]) -> Quantized:
        by_node: dict[str, list[Product]] = {}
        for product in products:
            by_node.setdefault(product.node, []).append(product)
            self.done.products[product.role] = self.done.products.get(product.role, 0) + 1
        for name, own in by_node.items():
            node = self.nodes[name]
            made = self._node(node, own, layers)
            self.done.nodes.update(item.name for item in made)
            self.rewriter.replace([node.output[0]], made)
        self.rewriter.finish()
        return self.done

    def _node(
        self, node: NodeProto, products: list[Product], layers: Mapping[str, LayerPlan]
    ) -> list[NodeProto]:
        """What stands in the place of ``node``."""
        (source, output), first = (node.input[0], node.output[0]), products[0]
        if first.is_convolution:
            return self._convolution(node, first, layers[first.name])
        if first.half is None:
            bias = node.input[2] if len(node.input) > 2 else ""
            return self._matrix(first, layers[first.name], source, output, bias)
        halves = [self._new(product.name, f"half_{product.half}") for product in products]
        sizes = self.rewriter.add_constant(f"{node.name}.halves", np.array([1, 1], np.int64))
        name = self._name(node.name, "Split")
        split = helper.make_node("Split", [source, sizes], halves, name=name, axis=0)
        made, outputs = [split], []
        for product, half in zip(products, halves, strict=True):
            outputs.append(self._new(product.name, "product"))
            made += self._matrix(product, layers[product.name], half, outputs[-1], "")
        made.append(node_of("Concat", self._name(node.name, "Concat"), outputs, output, axis=0))
        return made

    def _matrix(
        self, product: Product, layer: LayerPlan, source: str, output: str, bias: str
    ) -> list[NodeProto]:
        """``source`` times the matrix, in ``output``."""
        made: list[NodeProto] = []

        def add(operator: str, *inputs: str, axis: int | None = None) -> str:
            name = self._name(product.name, operator)
            made.append(node_of(operator, name, inputs))
            if axis is not None:
                made[-1].attribute.append(helper.make_attribute("axis", axis))
            return str(made[-1].output[0])

        x = source
        if layer.smoothing is not None:
            factors = np.array(layer.smoothing, np.float32)
            norm = norm_before(self.rewriter, product)
            if norm is not None:
                self.rewriter.replace([norm.output[0]], [fold(self.rewriter, norm, factors)])
            else:
                x = add("Mul", x, self._constant(product, "smoothing", 1 / factors))
        largest = ""
        if layer.scale is None:
            largest = self._largest(product, add("Abs", x), made)
            x = add("Div", x, largest)
        weight = self._weight(product, smoothed(product.weight, layer), made)
        first = self._pair(product, layer, x, made)
        y = add("MatMul", first, weight)
        if layer.digits > 1:
            y = add("Add", y, add("MatMul", self._rest(product, layer, x, made), weight))
        if largest:
            y = add("Mul", y, largest)
        if bias:
            add("Add", y, bias)
        made[-1].output[0] = output
        return made

    def _convolution(self, node: NodeProto, product: Product, layer: LayerPlan) -> list[NodeProto]:
        """The patch embedding: pictures with one scale, or each with its own."""
        made: list[NodeProto] = []

        def add(operator: str, *inputs: str) -> str:
            made.append(node_of(operator, self._name(product.name, operator), inputs))
            return str(made[-1].output[0])

        def convolved(x: str, bias: Sequence[str]) -> str:
            made.append(NodeProto())
            made[-1].CopyFrom(node)
            made[-1].name = self._name(product.name, node.op_type)
            made[-1].input[:] = [x, weight, *bias]
            made[-1].output[0] = f"{made[-1].name}_output_0"
            return str(made[-1].output[0])

        x, largest, bias = node.input[0], "", list(node.input[2:])
        values, scales = self._values(product, product.weight)
        kernels = np.ascontiguousarray(values.T).reshape(self.rewriter.value(node.input[1]).shape)
        weight = self._dequantized(product, kernels, scales, made, axis=0)
        if layer.scale is None:
            largest = self._largest(product, add("Abs", x), made, axes=(1, 2, 3))
            x = add("Div", x, largest)
        y = convolved(self._pair(product, layer, x, made), [] if largest else bias)
        if layer.digits > 1:
            y = add("Add", y, convolved(self._rest(product, layer, x, made), []))
        if largest:
            y = add("Mul", y, largest)
            if bias:
                value = self.rewriter.value(bias[0]).reshape(1, -1, 1, 1)
                add("Add", y, self._constant(product, "bias", value))
        made[-1].output[0] = node.output[0]
        return made

    def _largest(
        self,
        product: Product,
        magnitudes: str,
        made: list[NodeProto],
        axes: tuple[int, ...] = (-1,),
    ) -> str:
        """The largest of each row; never 0."""
        name = self._name(product.name, "ReduceMax")
        if self.opset < _AXES_ARE_INPUT:
            node = node_of("ReduceMax", name, [magnitudes], axes=axes, keepdims=1)
        else:
            constant = self._constant(product, "row", np.array(axes, np.int64))
            node = node_of("ReduceMax", name, [magnitudes, constant], keepdims=1)
        least = self._constant(product, "least", np.array(_LEAST, np.float32))
        inputs = [node.output[0], least]
        made += [node, node_of("Max", self._name(product.name, "Max"), inputs)]
        return str(made[-1].output[0])

    def _pair(
        self,
        product: Product,
        layer: LayerPlan,
        x: str,
        made: list[NodeProto],
        share: float = 1.0,
        axis: int | None = None,
    ) -> str:
        """``x`` rounded to 8 bits and back, with ``share`` of the layer's scale."""
        factor = 1 / self.row.largest if layer.scale is None else layer.scale
        scale = self._constant(product, "scale", np.array(factor * share, np.float32))
        kind = helper.tensor_dtype_to_np_dtype(ELEMENT_TYPES[self.precision])
        zero = self._constant(product, "zero", np.zeros((), kind))
        for operator in ("QuantizeLinear", "DequantizeLinear"):
            made.append(node_of(operator, self._name(product.name, operator), [x, scale, zero]))
            if axis is not None:
                made[-1].attribute.append(helper.make_attribute("axis", axis))
            x = made[-1].output[0]
        return x

    def _rest(self, product: Product, layer: LayerPlan, x: str, made: list[NodeProto]) -> str:
        """What rounding ``x`` leaves, in a second digit.

        The pair that is subtracted is the first one again. A pair with two readers is not computed
        with integers, so the two must not look alike to a runtime: ``axis`` tells them apart, and
        means nothing to a single scale.
        """
        same = self._pair(product, layer, x, made, axis=0)
        made.append(node_of("Sub", self._name(product.name, "Sub"), [x, same]))
        share = SECOND_DIGIT[self.precision]
        return self._pair(product, layer, str(made[-1].output[0]), made, share)

    def _weight(self, product: Product, weight: Matrix, made: list[NodeProto]) -> str:
        """``weight`` [K, N] in 8 bits, each column with its scale."""
        return self._dequantized(product, *self._values(product, weight), made, axis=1)

    def _values(self, product: Product, weight: Matrix) -> tuple[np.ndarray, Matrix]:
        scales = column_scales(weight, self.precision)
        planned = self.weights.get(product.name)
        return quantized(weight, scales, self.precision) if planned is None else planned, scales

    def _dequantized(
        self,
        product: Product,
        values: np.ndarray,
        scales: Matrix,
        made: list[NodeProto],
        axis: int,
    ) -> str:
        constants = [
            self._constant(product, f"weight_{self.precision}", values),
            self._constant(product, "weight_scale", scales),
            # Without one ONNX Runtime, told to multiply exactly where a processor has no VNNI,
            # gives weights that it shifts to uint8 a single zero point, and refuses to run them.
            self._constant(product, "weight_zero", np.zeros(len(scales), values.dtype)),
        ]
        name = self._name(product.name, "DequantizeLinear_weight")
        made.append(node_of("DequantizeLinear", name, constants, axis=axis))
        return str(made[-1].output[0])

    def _constant(self, product: Product, what: str, value: np.ndarray) -> str:
        return self.rewriter.add_constant(self._new(product.name, what), value)

    def _name(self, name: str, operator: str) -> str:
        return self.rewriter.node_name(places.beside(name, operator))

    @staticmethod
    def _new(name: str, what: str) -> str:
        return f"{name}.{what}"
