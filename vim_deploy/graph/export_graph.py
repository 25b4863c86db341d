"""Trace, tidy, name, fuse, convert, type, describe, check: module to self-describing ONNX model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import onnx

import vim_deploy
from vim_deploy.artifact import metadata
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.graph.activations import Activations, measure_activations
from vim_deploy.graph.opset import convert_opset
from vim_deploy.graph.passes.run import PassReport, run_passes
from vim_deploy.graph.precision import PrecisionReport, apply_precision
from vim_deploy.graph.tidy import apply_names, tidy
from vim_deploy.graph.trace import trace
from vim_deploy.graph.verify import GraphSummary, check_graph, fused_mixers
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.ops.functions import attach_functions
from vim_deploy.precisions import TABLE, require_io_precision
from vim_deploy.progress import stage_log
from vim_deploy.recipe.model_config import ModelConfig
from vim_deploy.recipe.precision_policy import PrecisionPolicy
from vim_deploy.specs import Note


class ExportedGraph(NamedTuple):
    """A checked model, what was counted in it, what passes (none: base) and typing did, sizes."""

    model: onnx.ModelProto
    summary: GraphSummary
    passes: tuple[PassReport, ...]
    precision: PrecisionReport
    activations: Activations

    @property
    def notes(self) -> tuple[Note, ...]:
        """What came out otherwise than asked for: by the passes, and by the precision."""
        return (*self._not_fused(), *self._on_weights())

    def _not_fused(self) -> Iterator[Note]:
        """One sentence for each reason why something stayed as it was."""
        places: dict[str, set[str]] = {}
        for report in self.passes:
            for refusal in report.refused:
                places.setdefault(refusal.reason, set()).add(refusal.place)
        for reason, found in places.items():
            text = f"not fused: {reason} ({len(found)} places, first {min(found)})"
            yield Note("not fused", text)

    def _on_weights(self) -> Iterator[Note]:
        typed = self.precision
        for what in typed.kept:
            yield Note("kept in float32", f"kept in float32: {what}")
        small = sorted(typed.weights, key=lambda weight: -weight.subnormal / weight.elements)
        if small:
            worst = small[0]
            yield Note(
                "lost bits",
                f"{len(small)} weights hold values that lost bits below {typed.precision}'s normal "
                f"range; most: {worst.name}, {worst.subnormal} of {worst.elements}, "
                f"{worst.vanished} became 0",
            )


def export_graph(
    module: DeployedModel, info: ExportInfo, *, batch: int | None, dump: Path | None = None
) -> ExportedGraph:
    """The checked model of ``module``.

    Args:
        module: preparation, model and head, with weights.
        info: stored in the file; its ``graph`` and ``scan_body`` decide the form, its precisions
            and policy the types.
        batch: fixed batch size, or None for a dynamic one.
        dump: folder that takes the graph before and after each pass.

    Raises:
        VimDeployError: VIM-501 to VIM-503, VIM-505, VIM-203 (precisions that contradict).
    """
    return finish_graph(named_trace(module, batch), module.model.config, info, dump)


def named_trace(module: DeployedModel, batch: int | None) -> onnx.ModelProto:
    """The traced graph of ``module`` with its names: what every form is made of.

    Raises:
        VimDeployError: VIM-501 to VIM-503.
    """
    stage_log.info("tracing")
    model = tidy(trace(module, batch=batch))
    apply_names(model, module.model.config, module.model.vim_path)
    return model


def finish_graph(
    model: onnx.ModelProto, config: ModelConfig, info: ExportInfo, dump: Path | None = None
) -> ExportedGraph:
    """The form that ``info`` describes of the traced graph ``model``, which is changed.

    Args and errors are those of ``export_graph``.
    """
    passes: tuple[PassReport, ...] = ()
    unrolled = config.num_tokens if info.scan_body == "unrolled" else None
    if info.graph != "base":
        stage_log.info("fusing")
        low_rank = info.graph == "fused-low-rank"
        expected = fused_mixers(config, info.graph)
        passes = run_passes(
            model, expected=expected, low_rank=low_rank, dump=dump, unrolled_tokens=unrolled
        )
    convert_opset(model, info.opset)
    attach_functions(model, unrolled)
    require_io_precision(info.precision, info.io_precision)
    report = PrecisionReport(info.precision, info.io_precision, {}, 0, (), ())
    if TABLE[info.precision].typed:
        stage_log.info("typing in %s", info.precision)
        policy = info.precision_policy or PrecisionPolicy()
        report = apply_precision(model, info.precision, policy, info.io_precision)
    _make_repeatable(model)
    metadata.attach(model, info)
    summary = check_graph(model, config, info.graph, info.scan_body)
    return ExportedGraph(model, summary, passes, report, measure_activations(model, config))


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
