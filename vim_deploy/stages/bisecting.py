"""Bisect: which roles of which blocks must stay as they are for a tolerance to be met.

Of a precision that types they stay in float32; of one that quantizes they are not quantized.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import onnx

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import OptionsContradictError, VimDeployError, WeightsOverflowError
from vim_deploy.graph.quantization.products import find_products
from vim_deploy.interrupts import check
from vim_deploy.parity.bisect import (
    MOST_EVALUATIONS,
    BisectReport,
    Evaluation,
    Progress,
    Unit,
    bisect,
)
from vim_deploy.parity.cases import Case
from vim_deploy.parity.comparison import are_detections
from vim_deploy.parity.metrics import Tolerance, adjusted, tolerance_for
from vim_deploy.parity.report import (
    answered,
    compare_runners,
    nothing_to_compare,
    worst_of,
)
from vim_deploy.paths import StrPath, as_text
from vim_deploy.places import role_of
from vim_deploy.precisions import QUANTIZED_IN_WORDS, TABLE, TYPED_IN_WORDS
from vim_deploy.recipe.precision_policy import (
    PrecisionPolicy,
    Rule,
    default_policy,
)
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.onnxruntime.runner import memory_runner
from vim_deploy.stages.subjects import Subject, SubjectOptions, open_subject
from vim_deploy.stages.verifying import (
    VerifyOptions,
    chosen_tolerance,
    live_cases,
    refuse_part_limit,
    require_images,
)
from vim_deploy.stages.verifying_quantized import require_pictures

#: Images that are run at once; only memory and time depend on it.
_BATCH = 4


def bisect_precision(
    source: StrPath,
    against: StrPath | None = None,
    options: VerifyOptions | None = None,
    subject: SubjectOptions | None = None,
    most: int = MOST_EVALUATIONS,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> BisectReport:
    """The smallest set of roles and blocks to keep that meets the tolerance.

    The graph is made in memory for every trial, exactly as ``export`` types or quantizes it, and
    run in ONNX Runtime with every rounding explicit; the reference is the float32 module. A model
    that is quantized is calibrated once, and what is not quantized is typed by the shipped policy.

    Args:
        source: an exported file, or a checkpoint, hub address, recipe or variant.
        against: the checkpoint of a file.
        options: inputs and tolerance.
        subject: precision, how it quantizes, and how to read a checkpoint.
        most: trials to spend at most.
        command: for the report.
        progress: told of every trial.

    Raises:
        VimDeployError: VIM-203 (nothing to bisect in float32, options without effect), VIM-704
            (not even float32 meets the tolerance), as ``open_subject``.
    """
    source = as_text(source, "source")
    against = None if against is None else as_text(against, "against")
    options, chosen = options or VerifyOptions(), subject or SubjectOptions()
    _check(options, chosen)
    require_images(options)
    with open_subject(source, against, chosen, RunnerOptions()) as found:
        precision = found.info.precision
        if precision == "fp32":
            raise VimDeployError(
                "VIM-203",
                f"{found.name} is float32 already: there is nothing to bisect",
                fix=f"add --precision {TYPED_IN_WORDS}, {QUANTIZED_IN_WORDS}",
            )
        _check_quantized(found, options)
        limits = chosen_tolerance(options, tolerance_for(precision, info=found.info))
        tolerance = adjusted(limits, options.limits)
        refuse_part_limit(tolerance, options)
        trial = _Trial(found, options, tolerance)
        bisection = bisect(trial.units, trial.evaluate, most, progress)
        if bisection is None:
            raise _hopeless(trial, tolerance)
        if trial.quantized:
            bisection = replace(bisection, rest=trial.rest)
        return BisectReport(
            found.name,
            precision,
            trial.reference,
            trial.candidate,
            tolerance,
            bisection,
            tuple(command),
        )


def _check(options: VerifyOptions, chosen: SubjectOptions) -> None:
    unused = {
        "--twin": options.twin,
        "--per-block": options.per_block,
        "--batches": options.batches is not None,
        "--precision-policy": chosen.precision_policy is not None,
        "--runtime": options.runner.runtime is not None,
        "--provider": options.runner != RunnerOptions(),
    }
    for option, given in unused.items():
        if given:
            raise VimDeployError(
                "VIM-203",
                f"{option} has no effect on --bisect",
                why="it makes policies of its own and runs them in ONNX Runtime on the CPU",
                fix="leave it out",
            )


def _check_quantized(subject: Subject, options: VerifyOptions) -> None:
    """VIM-203 for a quantized file without a calibration, or scales that would meet noise."""
    info = subject.info
    if info.quantization is None:
        return
    if subject.quantizing is None:
        raise VimDeployError(
            "VIM-203",
            f"{subject.name} does not hold the scales of other policies",
            why="each trial quantizes the float32 graph of the checkpoint anew",
            fix="add --calibration DIR, with the pictures it was exported with or others like them",
        )
    require_pictures(info, options, subject.pictures)


def _hopeless(trial: _Trial, tolerance: Tolerance) -> VimDeployError:
    everything = trial.evaluate(frozenset(trial.units))
    floats = trial.info.floats if trial.quantized else "fp32"
    return VimDeployError(
        "VIM-704",
        f"{trial.name} does not meet the tolerance even in "
        + ("float32" if floats == "fp32" else f"{floats} with nothing quantized"),
        why=f"{everything.why} (relative L2 {everything.relative_l2:.3g}; allowed: "
        f"{tolerance.limits()})",
        fix="widen the limits; or, if float32 should agree, find the fault with --ladder",
    )


def _require_found(cases: Sequence[Case], reference: str) -> None:
    """VIM-701 for images without a detection: with nothing to lose every policy is right."""
    counts = [case.stored["count"] for case in cases if are_detections(case.stored)]
    if counts and not any(count.any() for count in counts):
        raise nothing_to_compare("a model of lower precision", reference)


class _Trial:
    """Typed graphs of one model with other policies, and how far they are from the module."""

    def __init__(self, subject: Subject, options: VerifyOptions, tolerance: Tolerance) -> None:
        from vim_deploy.runtimes.torch.runner import TorchRunner

        self.name, self.info, self.tolerance = subject.name, subject.info, tolerance
        self.quantized = TABLE[self.info.precision].quantized
        # One thread: PyTorch's scan makes many small calls (``ModuleRunner``).
        runner = TorchRunner(subject.module, threads=1)
        self.reference, self.candidate = runner.name, ""
        pictures = subject.pictures
        cases = live_cases(runner, subject.info, options, stored=False, pictures=pictures)
        # A detector holds gigabytes for each image of a full size.
        self.batch = _BATCH if runner.size is None else 1
        self.cases = answered(runner, cases, self.batch)
        _require_found(self.cases, self.reference)
        self.plain = subject.graph(subject.plain)
        if self.quantized:
            self.plan = subject.plan
            self.units = products_of(self.plain)
        else:
            self.units = units_of(self.plain)

    def evaluate(self, kept: frozenset[Unit]) -> Evaluation:
        """The model that keeps these units, compared with the module."""
        from vim_deploy.graph.export_graph import lower_precision

        check()
        model = copy.deepcopy(self.plain)
        try:
            lower_precision(model, self._info(kept), lambda _: self.plan)
        except WeightsOverflowError as error:
            return Evaluation(False, float("inf"), f"{error.message}: {error.why}")
        except OptionsContradictError:
            if self.quantized:
                raise
            # Nothing is left to type: that is the float32 graph.
            model = copy.deepcopy(self.plain)
        with memory_runner(model, "typed.onnx") as runner:
            self.candidate = runner.name
            results = compare_runners(None, runner, self.cases, (self.batch,), self.tolerance)
        return Evaluation.of(worst_of(results)[1])

    def _info(self, kept: frozenset[Unit]) -> ExportInfo:
        """The export that keeps these units."""
        if not self.quantized:
            return replace(self.info, precision_policy=policy_of(kept))
        if len(kept) < len(self.units):
            policy = replace(self.rest, not_quantized=rules_of(kept))
            return replace(self.info, precision_policy=policy)
        # Nothing is left to quantize: that is the graph of everything else.
        return replace(
            self.info,
            precision=self.info.floats,
            quantization=None,
            precision_policy=None if self.info.floats == "fp32" else self.rest,
        )

    @property
    def rest(self) -> PrecisionPolicy:
        """What stays in float32 where the rest of a quantized graph is typed."""
        found = self.info.precision_policy or default_policy()
        return PrecisionPolicy(found.keep_fp32)


def products_of(model: onnx.ModelProto) -> tuple[Unit, ...]:
    """Every role of every block with a product to quantize, in order of computation."""
    products = find_products(model, PrecisionPolicy())
    return tuple(dict.fromkeys(Unit(product.role, product.block) for product in products))


def units_of(model: onnx.ModelProto) -> tuple[Unit, ...]:
    """Every role of every block that ``model`` has, in order of its nodes."""
    found: dict[Unit, None] = {}
    for node in model.graph.node:
        role, block = role_of(node.name)
        if role is not None:
            found[Unit(role, block)] = None
    return tuple(found)


def rules_of(units: frozenset[Unit]) -> tuple[Rule, ...]:
    """Rules that cover exactly these."""
    return tuple(
        Rule((unit.role,), None if unit.block is None else str(unit.block)) for unit in units
    )


def policy_of(kept: frozenset[Unit]) -> PrecisionPolicy:
    """A policy that keeps exactly these in float32."""
    return PrecisionPolicy(rules_of(kept))
