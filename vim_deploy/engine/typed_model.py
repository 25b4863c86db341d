"""The graph of an ONNX file in the precision that an engine is to have.

Precision lives in the graph: TensorRT 10 and 11 and TensorRT-RTX build what its tensors say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.graph.metadata import find, load_model
from vim_deploy.specs import ExportInfo

PRECISIONS = ("fp32", "fp16", "bf16")
_HALF = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


@dataclass(frozen=True)
class TypedModel:
    """A model and its precision.

    Attributes:
        model: as loaded, or typed in memory.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        export: what the file says about itself; None when vim-deploy did not make it.
        steps: what was done in memory; empty when nothing was.
    """

    model: onnx.ModelProto
    precision: str
    export: ExportInfo | None
    steps: tuple[str, ...] = ()


def precision_of(model: onnx.ModelProto) -> str:
    """``fp16`` or ``bf16`` when weights are stored so or tensors are cast to it, else ``fp32``."""
    for tensor in model.graph.initializer:
        if tensor.data_type in _HALF:
            return _HALF[tensor.data_type]
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _HALF:
                return _HALF[attribute.i]
    return "fp32"


def graph_of_precision(model_path: Path, precision: str = "") -> TypedModel:
    """The graph of ``model_path`` in ``precision`` (empty: as it is).

    Raises:
        VimDeployError: VIM-202 (no such precision), VIM-203 (the graph has another one), and as
            ``load_model``.
    """
    if precision and precision not in PRECISIONS:
        raise VimDeployError(
            "VIM-202", f"{precision!r} is not a precision", fix=nearest(precision, PRECISIONS)
        )
    model = load_model(model_path)
    found = precision_of(model)
    if precision and precision != found:
        raise VimDeployError(
            "VIM-203",
            f"{precision} was asked for, but the graph is {found}",
            why=f"{model_path} has {found} tensors, and an engine has the types of its graph",
            fix=f"vim-deploy export CHECKPOINT --precision {precision}, or leave the option out",
        )
    return TypedModel(model, found, find(model))
