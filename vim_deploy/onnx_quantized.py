"""What the quantizing nodes of a graph say: which type products take, and how many of them do.

A graph is quantized where its activations are: weights alone that are stored in 8 bits, with a
DequantizeLinear behind them, are read back into floats before anything is computed.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto

from vim_deploy.onnx_graph import (
    DEFAULT_DOMAINS,
    ELEMENT_TYPES,
    GraphIndex,
    attribute_int,
    computed_precision,
)
from vim_deploy.precisions import QUANTIZED, Precision

#: Products that are quantized between QuantizeLinear and DequantizeLinear.
PRODUCTS = ("MatMul", "Gemm", "Conv")
#: Operators that compute in 8-bit integers without saying so by a zero point's type: what other
#: tools make of a graph.
_INTEGERS = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
)
#: They move values or change their type: what goes in is what comes out.
MOVING = frozenset(
    {"Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice",
     "Split", "Squeeze", "Transpose", "Unsqueeze"}
)  # fmt: skip
#: Precision of each element type that QuantizeLinear may write; other tools shift int8 to uint8.
_TO = {ELEMENT_TYPES[name]: name for name in QUANTIZED} | {TensorProto.UINT8: "int8"}


def quantized_precision(model: ModelProto) -> Precision | None:
    """The type that activations are quantized to; None for a graph that quantizes none.

    Of several the last in the table, which the fewest runtimes have.
    """
    zeros = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type in _INTEGERS and node.domain in DEFAULT_DOMAINS:
            found.add("int8")
        if node.op_type == "Constant":
            zeros[node.output[0]] = max(item.t.data_type for item in node.attribute)
        if is_standard(node, "QuantizeLinear"):
            zero = node.input[2] if len(node.input) > 2 else ""
            element = zeros.get(zero) or attribute_int(node, "output_dtype", 0)
            found.add(_TO.get(element or TensorProto.UINT8, ""))
    return next((name for name in reversed(QUANTIZED) if name in found), None)


def precision_of(model: ModelProto) -> Precision:
    """What the graph shows its precision to be: that of its products, else that of its floats."""
    return quantized_precision(model) or computed_precision(model)


def quantized_products(model: ModelProto) -> int:
    """How many products read quantized activations."""
    index = GraphIndex(model.graph)
    return sum(
        node.op_type in PRODUCTS and _reads_quantized(index, node.input[0])
        for node in model.graph.node
    )


def _reads_quantized(index: GraphIndex, tensor: str) -> bool:
    node = index.producers.get(tensor)
    while node is not None and node.op_type in MOVING and node.input:
        node = index.producers.get(node.input[0])
    if node is None or not is_standard(node, "DequantizeLinear"):
        return False
    source = index.producers.get(node.input[0])
    while source is not None and source.op_type in MOVING and source.input:
        source = index.producers.get(source.input[0])
    return source is not None and is_standard(source, "QuantizeLinear")


def around_quantization(model: ModelProto) -> set[str]:
    """Float tensors whose type a runtime may change without changing what is computed.

    What only moves values may do so before it is quantized or after: then 8 bits are moved. And a
    product of quantized values takes them as they are, whatever its own type is said to be.
    """
    index = GraphIndex(model.graph)
    found: set[str] = set()
    for node in model.graph.node:
        if is_standard(node, "QuantizeLinear"):
            name = node.input[0]
            while (source := index.producers.get(name)) and source.op_type in MOVING:
                found.add(name)
                name = source.input[0] if source.input else ""
        if is_standard(node, "DequantizeLinear"):
            ahead = list(node.output)
            while ahead:
                name = ahead.pop()
                found.add(name)
                readers = [item for item in index.readers(name) if name not in item.output]
                for reader in readers:
                    ahead += reader.output if reader.op_type in MOVING else ()
                    found |= set(reader.output if reader.op_type in PRODUCTS else ())
    return found


def is_standard(node: NodeProto, op_type: str) -> bool:
    """Whether ``node`` is ONNX's own ``op_type``."""
    return node.op_type == op_type and node.domain in DEFAULT_DOMAINS
