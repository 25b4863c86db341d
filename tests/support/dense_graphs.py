"""Graphs of the segmentation and detection cases; each is traced once and finished as wanted."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.support.reference import Array, ReferenceCase, dense_case
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.graph.export_graph import ExportedGraph, finish_graph, named_trace
from vim_deploy.heads import parse_head
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.load import load_model
from vim_deploy.recipe.precision_policy import default_policy
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages.export_options import ExportOptions, export_info

ImageSize = int | tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Traced:
    """A module, its description and its trace, which is not to be changed."""

    module: DeployedModel
    info: ExportInfo
    model: onnx.ModelProto

    def finished(self, **changes: Any) -> ExportedGraph:
        """The graph with fields of its description changed: form, precision, opset, body."""
        precision = changes.get("precision", "fp32")
        if precision != "fp32":
            changes["precision_policy"] = default_policy()
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        info = dataclasses.replace(self.info, **changes)
        return finish_graph(copy, self.module.model.config, info)


@functools.lru_cache(maxsize=16)
def traced(
    short: str,
    head: str,
    *,
    preprocess: str = "none",
    image_size: ImageSize | None = None,
    batch: int | None = None,
) -> Traced:
    """The case ``short`` with its official configuration, traced."""
    case = dense_case(short)
    request = ModelRequest(str(case.checkpoint), config=dict(case.kwargs), image_size=image_size)
    loaded = load_model(request)
    network = loaded.module
    parsed = parse_head(head, network.config, network.dense)
    module = DeployedModel(network, loaded.image, preprocess, parsed)
    info = export_info(loaded, ExportOptions(head=head, preprocess=preprocess), preprocess)
    return Traced(module, info, named_trace(module, batch))


def runner_of(model: onnx.ModelProto, folder: Path) -> OrtRunner:
    """ONNX Runtime on one thread."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    return OrtRunner(path, threads=1)


def expected_outputs(case: ReferenceCase) -> tuple[str, tuple[Array, ...]]:
    """A head, and the official values of its outputs: of E01 logits of both heads."""
    if case.name.startswith("E"):
        return "upsampled+aux", (case.extras["whole_output"], case.extras["aux_output"])
    return "features", tuple(case.outputs.values())


def relative_to_largest(found: Array, expected: Array) -> float:
    """Largest difference, as a share of the largest expected value."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def relative_l2(found: Array, expected: Array) -> float:
    """Length of the difference, as a share of the expected one's."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
