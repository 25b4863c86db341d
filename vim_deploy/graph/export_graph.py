"""Trace, tidy, name, convert, describe, check: a module becomes one self-describing ONNX model."""

from __future__ import annotations

import onnx

import vim_deploy
from vim_deploy.graph import metadata
from vim_deploy.graph.function_body import attach_functions
from vim_deploy.graph.names import apply_names
from vim_deploy.graph.opset import convert_opset
from vim_deploy.graph.tidy import tidy
from vim_deploy.graph.trace import trace
from vim_deploy.graph.verify import GraphSummary, check_graph
from vim_deploy.model.heads import DeployedModel
from vim_deploy.specs import ExportInfo


def export_graph(
    module: DeployedModel, info: ExportInfo, *, batch: int | None
) -> tuple[onnx.ModelProto, GraphSummary]:
    """The checked model of ``module`` and what was counted in it.

    Args:
        module: preparation, model and head, with weights.
        info: stored in the file.
        batch: fixed batch size, or None for a dynamic one.
    """
    config = module.model.config
    model = tidy(trace(module, batch=batch))
    apply_names(model, config)
    convert_opset(model, info.opset)
    attach_functions(model)
    _make_repeatable(model)
    metadata.attach(model, info)
    return model, check_graph(model, config)


def _make_repeatable(model: onnx.ModelProto) -> None:
    """Remove what would differ between two exports of the same input."""
    model.producer_name = "vim-deploy"
    model.producer_version = vim_deploy.__version__
    # Shapes of inner tensors: derivable, and keyed by names the exporter chose.
    del model.graph.value_info[:]
    for node in model.graph.node:
        attributes = sorted(node.attribute, key=lambda item: item.name)
        del node.attribute[:]
        node.attribute.extend(attributes)
