"""Trace, tidy, name, fuse, convert, type, describe, check: module to self-describing ONNX model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import onnx

import vim_deploy
from vim_deploy.artifact import metadata
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.families import family_of
from vim_deploy.families.base import ModelConfig
from vim_deploy.graph.activations import Activations, measure_activations
from vim_deploy.graph.opset import convert_opset
from vim_deploy.graph.pass_report import PassReport
from vim_deploy.graph.precision import PrecisionReport, RoleOf, apply_precision
from vim_deploy.graph.quantization.apply import apply_quantization
from vim_deploy.graph.quantization.plan import QuantizationPlan
from vim_deploy.graph.quantization.storage import store_in_half
from vim_deploy.graph.standalone import standalone
from vim_deploy.graph.tidy import apply_names, tidy
from vim_deploy.graph.trace import trace
from vim_deploy.graph.verify import GraphSummary, check_graph, check_standalone, fused_mixers
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.ops.functions import asked_ops, attach_functions, type_functions
from vim_deploy.ops.single_calls import bodies_of_calls, scan_lengths
from vim_deploy.precisions import TABLE, require_io_precision
from vim_deploy.progress import stage_log
from vim_deploy.recipe.precision_policy import PrecisionPolicy
from vim_deploy.specs import Note

#: Decides how the products of a float32 graph are quantized.
Quantize = Callable[[onnx.ModelProto], QuantizationPlan]


class ExportedGraph(NamedTuple):
    """A checked model, and what came of each step.

    What was counted in it, what passes (none: base) and typing did, sizes, and how its products
    are quantized, None where nothing is.
    """

    model: onnx.ModelProto
    summary: GraphSummary
    passes: tuple[PassReport, ...]
    precision: PrecisionReport
    activations: Activations
    quantization: QuantizationPlan | None = None

    @property
    def notes(self) -> tuple[Note, ...]:
        """What came out otherwise than asked for: by the passes, and by the precision."""
        return (*self._not_fused(), *self._on_weights(), *self._on_products())

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

    def _on_products(self) -> Iterator[Note]:
        if self.quantization is not None:
            yield Note("quantized", f"quantized: {self.quantization.in_words}")


def export_graph(
    module: DeployedModel,
    info: ExportInfo,
    *,
    batch: int | None,
    dump: Path | None = None,
    quantize: Quantize | None = None,
) -> ExportedGraph:
    """The checked model of ``module``.

    Args:
        module: preparation, model and head, with weights.
        info: stored in the file; its ``graph``, ``scan_body`` and ``standalone`` decide the form,
            its precisions and policy the types.
        batch: fixed batch size, or None for a dynamic one.
        dump: folder that takes the graph before and after each pass.
        quantize: of a precision that quantizes: decides how, told of the float32 graph.

    Raises:
        VimDeployError: VIM-501 to VIM-503, VIM-505, VIM-203 (precisions that contradict), as
            ``quantize``.
    """
    return finish_graph(named_trace(module, batch), module.model.config, info, dump, quantize)


def named_trace(module: DeployedModel, batch: int | None) -> onnx.ModelProto:
    """The traced graph of ``module`` with its names: what every form is made of.

    Raises:
        VimDeployError: VIM-501 to VIM-503.
    """
    stage_log.info("tracing")
    model = tidy(trace(module, batch=batch))
    apply_names(model, module.model.config, module.model.core_path)
    return model


def finish_graph(
    model: onnx.ModelProto,
    config: ModelConfig,
    info: ExportInfo,
    dump: Path | None = None,
    quantize: Quantize | None = None,
) -> ExportedGraph:
    """The form that ``info`` describes of the traced graph ``model``, which is changed.

    Args and errors are those of ``export_graph``.
    """
    passes: tuple[PassReport, ...] = ()
    unrolled = _unrolled_tokens(model, info)
    family = family_of(config)
    if info.graph != "base" and family.fusion:
        stage_log.info("fusing")
        low_rank = info.graph == "fused-low-rank"
        expected = fused_mixers(config, info.graph)
        passes = family.part("fusion").run_passes(
            model, expected=expected, low_rank=low_rank, dump=dump, unrolled_tokens=unrolled
        )
    convert_opset(model, info.opset)
    attach_functions(model, unrolled)
    report, plan = lower_precision(model, info, quantize)
    return _finished(model, config, info, passes, report, plan)


def lower_precision(
    model: onnx.ModelProto, info: ExportInfo, quantize: Quantize | None
) -> tuple[PrecisionReport, QuantizationPlan | None]:
    """Quantize and type the float32 graph ``model`` in place, as ``info`` says.

    Args:
        model: of ``info.opset``, with its functions.
        info: its precisions and policy.
        quantize: of a precision that quantizes.

    Raises:
        VimDeployError: VIM-203 (precisions that contradict, a policy that leaves nothing), VIM-505
            (weights that the type cannot hold), as ``quantize``.
    """
    require_io_precision(info.floats, info.io_precision)
    policy = info.precision_policy or PrecisionPolicy()
    plan: QuantizationPlan | None = None
    roles: RoleOf | None = None
    if TABLE[info.precision].quantized:
        assert quantize is not None
        plan = quantize(model)
        done = apply_quantization(model, plan, info.precision, policy)
        store_in_half(model)
        roles = done.role_of
    report = PrecisionReport(info.floats, info.io_precision, {}, 0, (), ())
    if TABLE[info.floats].typed:
        stage_log.info("typing in %s", info.floats)
        report = apply_precision(model, info.floats, policy, info.io_precision, roles)
    return report, plan


def standalone_graph(model: onnx.ModelProto, info: ExportInfo) -> ExportedGraph:
    """The standalone form of an exported file's graph, as an export of its checkpoint makes it.

    Args:
        model: as it was read; it is not changed.
        info: of the new file; its ``scan_body`` may be another than the file's.

    Raises:
        VimDeployError: VIM-409, VIM-502 (the graph is not as it was exported), VIM-903 (its ops
            mean something that this version does not know).
    """
    asked_ops(model).require_known("this version")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # Written anew: those of an early version have nodes without names, and other pads.
    attach_functions(copy, _unrolled_tokens(copy, info))
    if TABLE[info.floats].typed:
        type_functions(copy)
    report = PrecisionReport(info.floats, info.io_precision, {}, 0, (), ())
    return _finished(copy, info.model_config, info, (), report)


def _unrolled_tokens(model: onnx.ModelProto, info: ExportInfo) -> tuple[int, ...] | None:
    """Tokens that bodies without a loop are written for; None for bodies with one."""
    return scan_lengths(model) if info.scan_body == "unrolled" else None


def _finished(
    model: onnx.ModelProto,
    config: ModelConfig,
    info: ExportInfo,
    passes: tuple[PassReport, ...],
    report: PrecisionReport,
    plan: QuantizationPlan | None = None,
) -> ExportedGraph:
    """Check a graph that has its functions, and put those in place where that is asked for."""
    _make_repeatable(model)
    quantized = TABLE[info.precision].quantized
    summary = check_graph(model, config, info.graph, info.scan_body, quantized=quantized)
    activations = measure_activations(model, config)
    if info.standalone:
        stage_log.info("inlining")
        model = standalone(model, bodies_of_calls(model))
        summary = check_standalone(model, summary, operators=config.operators, quantized=quantized)
    metadata.attach(model, info)
    return ExportedGraph(model, summary, passes, report, activations, plan)


def _make_repeatable(model: onnx.ModelProto) -> None:
    """Remove what would differ between two exports of the same input."""
    model.producer_name = metadata.PRODUCER
    model.producer_version = vim_deploy.__version__
    # Shapes of inner tensors: derivable, and keyed by names the exporter chose.
    del model.graph.value_info[:]
    for node in model.graph.node:
        attributes = sorted(node.attribute, key=lambda item: item.name)
        del node.attribute[:]
        node.attribute.extend(attributes)
