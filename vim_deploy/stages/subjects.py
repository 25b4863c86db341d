"""The model that a ladder or a bisection is about: a checkpoint's, or that of an exported file."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.file import is_exported, named
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import parse_head
from vim_deploy.paths import OptionalPath
from vim_deploy.precisions import QUANTIZED_IN_WORDS, TABLE, TYPED_IN_WORDS, Precision
from vim_deploy.ranges import require_names
from vim_deploy.recipe.precision_policy import PrecisionPolicy, chosen_policy
from vim_deploy.recipe.quantization import QuantizeOptions
from vim_deploy.recipe.schema import ModelRequest, Tolerances
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import Runner, RunnerOptions
from vim_deploy.stages.export_options import ExportOptions, export_info
from vim_deploy.stages.exporting import require_torch
from vim_deploy.stages.quantizing import Quantizing, plain_of, settle

if TYPE_CHECKING:
    import onnx

    from vim_deploy.graph.quantization.plan import QuantizationPlan
    from vim_deploy.model.deployed import DeployedModel


@dataclass(frozen=True)
class SubjectOptions:
    """What to build from the checkpoint.

    Attributes:
        precision: of the typed forms; None for the artifact's, or fp32.
        precision_policy: file; None for the artifact's own policy, or the shipped one.
        request: how a checkpoint that is not an artifact's is read; its ``source`` is replaced.
        quantize: how int8 and fp8 quantize.
    """

    precision: Precision | None = None
    precision_policy: OptionalPath = OptionalPath()
    request: ModelRequest = field(default_factory=lambda: ModelRequest(""))
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)

    def __post_init__(self) -> None:
        """VIM-202 for a precision that there is not."""
        require_names(self, precision=TABLE)


@dataclass(frozen=True)
class Subject:
    """A module with weights, the export that is spoken of, and its file with a runner, if any.

    ``quantizing`` says how an export that is made here is quantized; None where none is.
    """

    name: str
    module: DeployedModel
    info: ExportInfo
    file: Artifact | None
    runner: Runner | None
    tolerances: Tolerances | None = None
    quantizing: Quantizing | None = None

    @property
    def plain(self) -> ExportInfo:
        """The same export in float32."""
        return plain_of(self.info)

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Those that a check of what is quantized is made on: others than were watched."""
        pictures = None if self.quantizing is None else self.quantizing.pictures
        return () if pictures is None else pictures.check

    @cached_property
    def plan(self) -> QuantizationPlan:
        """How every product is quantized, those that the policy leaves out among them."""
        assert self.quantizing is not None
        whole = replace(self.info, precision_policy=PrecisionPolicy())
        return replace(self.quantizing, info=whole).plan(self.graph(self.plain))

    @cached_property
    def _traced(self) -> onnx.ModelProto:
        from vim_deploy.graph.export_graph import named_trace

        return named_trace(self.module, None)

    def graph(self, info: ExportInfo) -> onnx.ModelProto:
        """The form that ``info`` describes, made as an export makes it, from one trace for all."""
        from vim_deploy.graph.export_graph import finish_graph

        model = copy.deepcopy(self._traced)
        quantize = None if self.quantizing is None else lambda _: self.plan
        return finish_graph(model, self.module.model.config, info, quantize=quantize).model


@contextmanager
def open_subject(
    source: str | Artifact, against: str | None, options: SubjectOptions, runner: RunnerOptions
) -> Iterator[Subject]:
    """Load what ``source`` names; its artifact, if any, stays open until the end.

    Args:
        source: artifact (its path will do), or a checkpoint, hub address, recipe or variant.
        against: the checkpoint of an artifact; nothing for a checkpoint.
        options: precision, and how to read a checkpoint.
        runner: where the artifact runs.

    Raises:
        VimDeployError: VIM-203 (options that contradict), VIM-404, VIM-410 (an artifact without
            description), VIM-420 (policy), as the loading of either.
    """
    require_torch()
    if isinstance(source, str) and not is_exported(source):
        if against is not None:
            raise VimDeployError(
                "VIM-203",
                f"--against {against} has no effect: {source} is a checkpoint itself",
                fix=f"leave it out, or give the file: ARTIFACT --against {source}",
            )
        if runner != RunnerOptions():
            raise VimDeployError(
                "VIM-203",
                "--runtime, --provider, --ops, --plugin and --allow-plan-code say where files run",
                why=f"{source} is a checkpoint; its forms run in PyTorch and ONNX Runtime's CPU",
                fix="leave them out, or give the file: ARTIFACT --against CHECKPOINT",
            )
        yield _from_checkpoint(source, options)
        return
    file = source if isinstance(source, Artifact) else Artifact.open(Path(source))
    if against is None or named(against) != "checkpoint":
        raise VimDeployError(
            "VIM-203",
            f"the forms that {file.name} went through are made from its checkpoint",
            fix="add --against CHECKPOINT",
        )
    if options.request != ModelRequest(""):
        raise VimDeployError(
            "VIM-203",
            f"{file.name} says itself which model it holds",
            fix="leave out --model, --config, --image-size and the like",
        )
    with open_runner(file, runner) as candidate:
        yield _from_artifact(file, candidate, against, options)


def _from_checkpoint(source: str, options: SubjectOptions) -> Subject:
    from vim_deploy.model.deployed import DeployedModel
    from vim_deploy.model.load import load_model

    if options.precision_policy is not None and options.precision in (None, "fp32"):
        raise VimDeployError(
            "VIM-203",
            "--precision-policy has nothing to decide without --precision",
            why="it says what stays in float32 in a half-precision graph, and is not quantized",
            fix=f"add --precision {TYPED_IN_WORDS}, {QUANTIZED_IN_WORDS}",
        )
    precision = options.precision or "fp32"
    options.quantize.require_effect(precision)
    options.quantize.require_pictures(precision)
    loaded = load_model(replace(options.request, source=source))
    network = loaded.module
    head = parse_head(None, network.config, network.dense)
    module = DeployedModel(network, loaded.image, "none", head)
    chosen = ExportOptions(
        precision=precision,
        precision_policy=options.precision_policy,
        head=head.text,
        quantize=options.quantize,
    )
    info = export_info(loaded, chosen, module.preprocess)
    quantizing = settle(info, options.quantize)
    info = info if quantizing is None else quantizing.info
    return Subject(loaded.stem, module, info, None, None, loaded.tolerances, quantizing)


def _from_artifact(
    file: Artifact, runner: Runner, against: str, options: SubjectOptions
) -> Subject:
    from vim_deploy.model.reference import reference_model

    info = file.require_info("does not say which model it holds")
    module = reference_model(against, info)
    if options.precision is not None and options.precision != info.precision:
        # The policy belongs to the precision that the file has.
        info = replace(plain_of(info), precision=options.precision)
    if info.precision != "fp32" and (options.precision_policy or not info.precision_policy):
        policy = chosen_policy(options.precision_policy, module.model.config)
        info = replace(info, precision_policy=policy)
    quantizing = None
    if options.quantize != QuantizeOptions():
        quantize = _as_in_file(options.quantize, info, file.name)
        quantize.require_effect(info.precision)
        info = replace(info, opset=max(info.opset, TABLE[info.precision].opset), quantization=None)
        quantizing = settle(info, quantize)
        info = info if quantizing is None else quantizing.info
    elif info.quantization is None:
        options.quantize.require_pictures(info.precision)
    return Subject(file.name, module, info, file, runner, quantizing=quantizing)


def _as_in_file(options: QuantizeOptions, info: ExportInfo, name: str) -> QuantizeOptions:
    """``options`` with what a quantized file says itself; VIM-203 for what contradicts it."""
    said, usual = info.quantization, QuantizeOptions()
    if said is None:
        return options
    for option, value, given, untold in (
        ("--activation-scales", said.activations, options.activations, usual.activations),
        ("--high-precision", said.high_precision, options.high_precision, usual.high_precision),
    ):
        if given not in (value, untold):
            raise VimDeployError(
                "VIM-203",
                f"{option} {given} contradicts {name}",
                why=f"it was exported with {option} {value}",
                fix=f"leave {option} out, or give the checkpoint instead",
            )
    return replace(options, activations=said.activations, high_precision=said.high_precision)
