"""Smoothing that costs nothing: a norm's own factors take it over."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from vim_deploy.graph.quantization.products import Product
from vim_deploy.onnx_graph import GraphIndex, Rewriter

#: How the names of constants end that smoothing was folded into.
FOLDED = ".smoothed"
#: Positions of the constants that scale what each of these gives, channel by channel.
_FACTORS = {"Mul": (1,), "LayerNormalization": (1, 2)}


def norm_before(index: GraphIndex, product: Product) -> NodeProto | None:
    """The node of a norm that nothing but ``product`` reads, and whose factors are its own.

    Its output may be divided by numbers of the product's choice, channel by channel.
    """
    node = index.producers.get(product.activations)
    if node is None or node.domain or product.is_convolution:
        return None
    if product.activations in index.outputs or len(index.readers(product.activations)) != 1:
        return None
    positions = _FACTORS.get(node.op_type, ())
    factors = [index.constant(node.input[at]) for at in positions if at < len(node.input)]
    fits = all(item is not None and item.shape == (product.channels,) for item in factors)
    return node if factors and fits else None


def fold(rewriter: Rewriter, norm: NodeProto, smoothing: np.ndarray) -> NodeProto:
    """A copy of ``norm`` whose output is divided by ``smoothing``, float32 [K]."""
    made = NodeProto()
    made.CopyFrom(norm)
    for at in _FACTORS[norm.op_type]:
        if at < len(norm.input):
            # A constant of its own: norms may share theirs.
            value = rewriter.value(norm.input[at]) / smoothing
            name = f"{norm.input[at]}{FOLDED}"
            made.input[at] = rewriter.add_constant(name, value.astype(np.float32))
    return made
