"""The graph of an ONNX file in the precision that an engine is to have.

Precision lives in the graph: TensorRT 10 and 11 and TensorRT-RTX build what its tensors say. A
float32 file that vim-deploy exported is typed in memory when half precision is asked for, by the
same pass and the same policy as ``export --precision``; the file on disk stays.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import onnx
from onnx import TensorProto

from vim_deploy.artifact.metadata import attach, find, load_model
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.graph.precision import apply_precision
from vim_deploy.recipe.precision_policy import PrecisionPolicy, default_policy
from vim_deploy.specs import ExportInfo, Precision

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
    """What the file says of itself; for other files what weights and casts say."""
    export = find(model)
    if export is not None:
        return export.precision
    for tensor in model.graph.initializer:
        if tensor.data_type in _HALF:
            return _HALF[tensor.data_type]
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _HALF:
                return _HALF[attribute.i]
    return "fp32"


def graph_of_precision(
    model_path: Path, precision: str = "", like: ExportInfo | None = None
) -> TypedModel:
    """The graph of ``model_path`` in ``precision`` (empty: as it is).

    Args:
        model_path: ONNX file.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        like: take what stays in float32, and the inputs' and outputs' type, from there instead of
            the shipped policy.

    Raises:
        VimDeployError: VIM-202 (no such precision), VIM-203 (the graph has another one and cannot
            be typed), VIM-505 (weights that do not fit), and as ``load_model``.
    """
    if precision and precision not in PRECISIONS:
        raise VimDeployError(
            "VIM-202", f"{precision!r} is not a precision", fix=nearest(precision, PRECISIONS)
        )
    model = load_model(model_path)
    found = precision_of(model)
    export = find(model)
    if precision and precision != found and found == "fp32" and export is not None:
        return _typed(model, export, cast(Precision, precision), like)
    if precision and precision != found:
        raise VimDeployError(
            "VIM-203",
            f"{precision} was asked for, but the graph is {found}",
            why=f"{model_path} has {found} tensors, an engine has the types of its graph, and only "
            "float32 files that vim-deploy exported can be typed",
            fix=f"vim-deploy export CHECKPOINT --precision {precision}, or leave the option out",
        )
    return TypedModel(model, found, export)


def _typed(
    model: onnx.ModelProto, export: ExportInfo, precision: Precision, like: ExportInfo | None
) -> TypedModel:
    """``model``, typed in place."""
    stored = like.precision_policy if like is not None else {}
    policy = PrecisionPolicy.stored(stored) if stored else default_policy()
    io_precision: Precision = like.io_precision if like is not None else "fp32"
    report = apply_precision(model, precision, policy, io_precision)
    info = dataclasses.replace(
        export, precision=precision, io_precision=io_precision, precision_policy=policy.as_dict()
    )
    attach(model, info)
    counts = ", ".join(f"{count} nodes in {name}" for name, count in report.nodes.items())
    steps = (f"typed as {precision}: {counts}, {report.casts} casts",)
    return TypedModel(model, precision, info, steps)
