"""A quantized graph as TensorRT 8.6 takes it: no constants in 8 bits.

Its developer guide, "Working with INT8", has weights in float32 with a QuantizeLinear of their
own; weights that are quantized already are float32 with whole values, a first scale of 1 and the
real one behind. Weights alone in 8 bits came with TensorRT 10: such ones are floats here.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from vim_deploy.onnx_graph import GraphIndex, attribute_int, drop_unused_initializers
from vim_deploy.onnx_quantized import PRODUCTS, is_standard


def widen_constants(model: onnx.ModelProto, steps: list[str]) -> None:
    """Store in float32 what a DequantizeLinear reads from the file, in place.

    Args:
        model: quantized to int8; its local functions are inlined.
        steps: what was done is added.
    """
    graph = model.graph
    index = GraphIndex(graph)
    nodes: list[NodeProto] = []
    counts = {"quantized": 0, "float": 0}
    for node in graph.node:
        if is_standard(node, "QuantizeLinear") or is_standard(node, "DequantizeLinear"):
            _drop_idle_axis(index, node)
        tensor = index.initializers.get(node.input[0]) if node.input else None
        constant = is_standard(node, "DequantizeLinear") and tensor is not None
        if not constant or tensor is None or tensor.data_type != TensorProto.INT8:
            nodes.append(node)
        elif all(_is_quantized(index, reader) for reader in index.readers(node.output[0])):
            nodes += _requantized(graph, index, node)
            counts["quantized"] += 1
        else:
            values = _read_back(index, node)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
            counts["float"] += 1
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused_initializers(graph)
    if counts["quantized"] or counts["float"]:
        steps.append(
            f"constants in 8 bits stored in float32: {counts['quantized']} of quantized products, "
            f"{counts['float']} others"
        )


def _drop_idle_axis(index: GraphIndex, node: NodeProto) -> None:
    """Take away an axis that means nothing: there is one scale for the whole tensor."""
    scale = index.constant(node.input[1])
    if scale is not None and scale.ndim == 0:
        kept = [item for item in node.attribute if item.name != "axis"]
        del node.attribute[:]
        node.attribute.extend(kept)


def _is_quantized(index: GraphIndex, node: NodeProto) -> bool:
    """Whether both factors of a product come from a DequantizeLinear."""
    sources = [index.producer(name, "DequantizeLinear") for name in node.input[:2]]
    if node.op_type not in PRODUCTS or None in sources:
        return False
    return any(
        source is not None and index.producer(source.input[0], "QuantizeLinear")
        for source in sources
    )


def _requantized(graph: onnx.GraphProto, index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    """``node`` behind a QuantizeLinear that leaves whole numbers as they are."""
    stored, scale = node.input[0], index.value(node.input[1])
    wide, ones, narrow = (f"{node.output[0]}/{name}" for name in ("float32", "ones", "int8"))
    graph.initializer.extend(
        [
            numpy_helper.from_array(index.value(stored).astype(np.float32), wide),
            numpy_helper.from_array(np.ones_like(scale), ones),
        ]
    )
    quantize = helper.make_node(
        "QuantizeLinear", [wide, ones, *node.input[2:]], [narrow], name=narrow
    )
    quantize.attribute.extend(item for item in node.attribute if item.name == "axis")
    node.input[0] = narrow
    return [quantize, node]


def _read_back(index: GraphIndex, node: NodeProto) -> NDArray[np.float32]:
    """What a DequantizeLinear of constants gives."""
    values = index.value(node.input[0])
    scale = index.value(node.input[1]).astype(np.float32)
    if scale.ndim == 1 and values.ndim:
        axis = attribute_int(node, "axis", 1) % values.ndim
        scale = scale.reshape([-1 if at == axis else 1 for at in range(values.ndim)])
    zero = index.value(node.input[2]) if len(node.input) > 2 else np.zeros(1, np.int8)
    if zero.ndim == 1 and zero.size > 1:
        zero = zero.reshape(scale.shape)
    whole = values.astype(np.float32) - zero.astype(np.float32)
    return np.asarray(whole * scale, dtype=np.float32)
