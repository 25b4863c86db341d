"""Parameters of a quantized graph that no product reads, in half of their bytes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from vim_deploy import places
from vim_deploy.onnx_graph import node_of


def store_in_half(model: onnx.ModelProto) -> int:
    """Keep parameters that no product reads in float16, with a Cast behind them.

    Those of our own ops and the position embedding are read in float32 as before. Rounding them to
    11 bits is small beside 8 bits of the products (their relative error is 2^-11 at most), and
    without it Vim-Ti's file would be 0.33 of its float32 one and not 0.29. What float16 cannot hold
    stays as it is.

    Returns:
        How many there were.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    casts: list[NodeProto] = []
    names = {node.name for node in graph.node}
    renamed: dict[str, str] = {}
    for node in graph.node:
        if not (node.domain or places.role_of(node.name)[0] is None):
            continue
        for position, name in enumerate(node.input):
            tensor = stored.get(name)
            if tensor is None or not _in_half(tensor, name in renamed):
                continue
            if name not in renamed:
                cast = places.beside(node.name, f"Cast_{name.replace('/', '.')}")
                renamed[name] = f"{cast}_output_0"
                assert cast not in names
                half = numpy_helper.to_array(tensor).astype(np.float16)
                tensor.CopyFrom(numpy_helper.from_array(half, name))
                to = onnx.TensorProto.FLOAT
                casts.append(node_of("Cast", cast, [name], renamed[name], to=to))
            node.input[position] = renamed[name]
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *kept])
    return len(casts)


def _in_half(tensor: onnx.TensorProto, done: bool) -> bool:
    """Whether it is a table of numbers that float16 holds."""
    if done:
        return True
    if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
        return False
    largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
    return largest <= float(np.finfo(np.float16).max)
