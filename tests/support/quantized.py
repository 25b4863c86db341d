"""Quantized graphs for tests of what reads them: by hand, and as the exporter makes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.support import tiny_onnx
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import attach
from vim_deploy.artifact.onnx_file import model_output
from vim_deploy.graph.precision import apply_precision
from vim_deploy.graph.quantization.apply import apply_quantization
from vim_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan, scale_of
from vim_deploy.graph.quantization.products import find_products
from vim_deploy.graph.quantization.storage import store_in_half
from vim_deploy.onnx_graph import ELEMENT_TYPES
from vim_deploy.precisions import TABLE, Precision
from vim_deploy.recipe.precision_policy import default_policy
from vim_deploy.recipe.quantization import CalibrationInfo, QuantizationInfo

#: Smoothing of one block's ``in_proj``, whose input has 64 channels in the digits.
_FACTORS = tuple(1 + channel / 64 for channel in range(64))
#: Largest magnitude that activations are given room for.
ROOM = 6.0


def scan_blocks(precision: Precision = "int8", layers: int = 1, opset: int = 18) -> onnx.ModelProto:
    """``tiny_onnx.scan_blocks`` with its two products a layer quantized, and a stored table.

    ``head`` multiplies by weights that are stored in int8 and read back, as outlier rows are.
    """
    model = tiny_onnx.scan_blocks(layers)
    graph, nodes = model.graph, []
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul":
            nodes += _pair(graph, node, precision)
            nodes += _columns(graph, node, weights[node.input[1]], precision)
        if node.op_type == "Identity":
            node.op_type = "MatMul"
            node.input.append("head.weight")
            nodes += _columns(graph, node, np.eye(8, dtype=np.float32), "int8")
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for entry in (*model.opset_import, *(e for f in model.functions for e in f.opset_import)):
        entry.version = opset if entry.domain == "" else entry.version
    model.ir_version = 8 if opset < 19 else 9
    return model


def _pair(graph: onnx.GraphProto, node: onnx.NodeProto, precision: Precision) -> Sequence[object]:
    names = [f"{node.name}.scale", f"{node.name}.zero"]
    graph.initializer.append(
        numpy_helper.from_array(np.float32(scale_of(ROOM, precision)), names[0])
    )
    kind = ELEMENT_TYPES[precision]
    graph.initializer.append(helper.make_tensor(names[1], kind, [], b"\0", raw=True))
    narrow, wide = f"{node.name}.q", f"{node.name}.dq"
    made = [
        helper.make_node("QuantizeLinear", [node.input[0], *names], [narrow], name=narrow),
        helper.make_node("DequantizeLinear", [narrow, *names], [wide], name=wide),
    ]
    node.input[0] = wide
    return made


def _columns(
    graph: onnx.GraphProto, node: onnx.NodeProto, weight: np.ndarray, precision: Precision
) -> Sequence[object]:
    scales = (np.abs(weight).max(0) / TABLE[precision].largest).astype(np.float32)
    kind = helper.tensor_dtype_to_np_dtype(ELEMENT_TYPES[precision])
    ratio = weight / scales
    values = (np.rint(ratio) if precision == "int8" else ratio).astype(kind)
    names = [f"{node.name}.weight_{part}" for part in (precision, "scale", "zero")]
    for name, value in zip(names, (values, scales, np.zeros(len(scales), kind)), strict=True):
        graph.initializer.append(numpy_helper.from_array(value, name))
    wide = f"{node.name}.weight_dq"
    node.input[1] = wide
    return [helper.make_node("DequantizeLinear", names, [wide], name=wide, axis=1)]


def quantized_file(
    source: Path,
    target: Path,
    precision: Precision = "int8",
    floats: Precision = "fp32",
    *,
    per_token: bool = False,
) -> Path:
    """An exported float32 file as the exporter quantizes it, with scales that nothing calibrated.

    What ``out_proj`` reads has two digits.

    Args:
        source: exported in float32; of an opset that has ``precision``.
        target: to write.
        per_token: rows have scales of their own.
    """
    file = Artifact.open(source)
    info = file.require_info()
    model = onnx.load(source)
    policy = default_policy()
    scale = None if per_token else scale_of(ROOM, precision)
    plan = QuantizationPlan(
        tuple(
            LayerPlan(
                product.name,
                scale,
                _FACTORS if product.role == "in_proj" and product.block == 2 else None,
                digits=2 if product.role == "out_proj" else 1,
            )
            for product in find_products(model, policy)
        )
    )
    done = apply_quantization(model, plan, precision, policy)
    store_in_half(model)
    if TABLE[floats].typed:
        apply_precision(model, floats, policy, "fp32", done.role_of)
    seen = None if per_token else CalibrationInfo("minmax", 4, 0, "0" * 64)
    said = QuantizationInfo("per-token" if per_token else "static", floats, seen)
    info = dataclasses.replace(
        info, precision=precision, precision_policy=policy, quantization=said
    )
    attach(model, info)
    with model_output(model, target):
        pass
    return target
