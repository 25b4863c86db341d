"""A quantized graph whose activations are not rounded: what its weights alone cost."""

from __future__ import annotations

import onnx

from vim_deploy.onnx_graph import drop_unused_initializers, rename_tensors


def without_rounded_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` that reads x where it read DequantizeLinear(QuantizeLinear(x)).

    Weights stay in 8 bits. The second digit of a product becomes x - x: it adds nothing.

    Args:
        model: an exported graph; one without such pairs comes back as it is.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    given = {value.name for value in graph.output}
    rounded = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "QuantizeLinear" and not node.domain
    }
    pairs = {
        node.output[0]: rounded[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and not node.domain
        and node.input[0] in rounded
        and node.output[0] not in given
    }
    kept = [node for node in graph.node if pairs.keys().isdisjoint(node.output)]
    rename_tensors(kept, {name: _end(name, pairs) for name in pairs})
    read = {name for node in kept for name in node.input} | given
    idle = rounded.keys() - read
    kept = [node for node in kept if idle.isdisjoint(node.output)]
    del graph.node[:]
    graph.node.extend(kept)
    drop_unused_initializers(graph)
    return copy


def _end(name: str, pairs: dict[str, str]) -> str:
    """What a pair reads, through others that stand directly before it."""
    while name in pairs:
        name = pairs[name]
    return name
