"""Verify by rungs: PyTorch, its typed twin, base, fused and typed graph, the file, the engine.

PyTorch has no twin of a quantized model. There the first rung of its precision is the graph with
weights in 8 bits and activations that are not rounded. A file with native ops is two rungs: its
functions, which are the file, and the kernels.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.file import is_exported
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import ExitCode, NoInnerTensorsError, VimDeployError
from vim_deploy.graph.quantization.bypass import without_rounded_activations
from vim_deploy.interrupts import check
from vim_deploy.parity.blocks import BlockReport, part_limit
from vim_deploy.parity.cases import Case
from vim_deploy.parity.ladder import Ladder, Rung
from vim_deploy.parity.metrics import Tolerance, adjusted, tolerance_for
from vim_deploy.parity.report import (
    CaseResult,
    FunctionRun,
    ParityReport,
    answered,
    check_parts,
    compare_outputs,
    compare_runners,
    found_nothing,
)
from vim_deploy.paths import StrPath, as_text
from vim_deploy.precisions import TABLE
from vim_deploy.recipe.precision_policy import PrecisionPolicy
from vim_deploy.recipe.quantization import QuantizeOptions
from vim_deploy.runtimes.base import Runner
from vim_deploy.runtimes.onnxruntime.runner import memory_runner
from vim_deploy.stages.subjects import Subject, SubjectOptions, open_subject
from vim_deploy.stages.verifying import (
    VerifyOptions,
    chosen_tolerance,
    functions_beside,
    live_cases,
    nothing_found,
    require_images,
    require_parts,
    unseen_directions,
)

if TYPE_CHECKING:
    import onnx

    from vim_deploy.runtimes.torch.runner import TorchRunner

#: Batch sizes that the rungs run: one, and one more where there are pictures for it.
BATCHES = (1, 2)
#: Images that PyTorch runs at once; only memory and time depend on it.
REFERENCE_BATCH = 4
FP32_MODULE = "PyTorch fp32"
#: The file again, by kernels.
NATIVE_OPS = "native ops"

RungDone = Callable[[Rung], None]


def verify_ladder(
    source: StrPath,
    against: StrPath | None = None,
    options: VerifyOptions | None = None,
    subject: SubjectOptions | None = None,
    command: Sequence[str] = (),
    done: RungDone | None = None,
) -> ParityReport:
    """Hold every form of a model to the one that it must equal, up to the first that does not.

    Args:
        source: an exported file or engine, or a checkpoint, hub address, recipe or variant.
        against: the checkpoint of a file or engine.
        options: inputs, batch sizes and tolerance; with ``per_block`` the last rung is compared
            part by part also where nothing is broken.
        subject: what to build of a checkpoint.
        command: for the report.
        done: called with every rung that has been tried.

    Returns:
        The report: the results are those of the last rung, ``ladder`` has all of them, with block
        and role where a rung with inner tensors is broken; ``blocks`` are the parts of the last
        rung, when they were asked for and nothing is broken; ``functions`` is the file's rung where
        native ops are the last. ``require_passed`` raises VIM-703, also where a form could not be
        made.

    Raises:
        VimDeployError: VIM-203, VIM-301, and VIM-4xx for a source that cannot be read.
    """
    source = as_text(source, "source")
    against = None if against is None else as_text(against, "against")
    options = options or VerifyOptions()
    if options.twin:
        raise VimDeployError(
            "VIM-203", "--ladder compares with the twin where it must", fix="leave out --twin"
        )
    require_images(options)
    chosen = subject or SubjectOptions()
    file = Artifact.open(Path(source)) if is_exported(source) else None
    if options.per_block and file is not None:
        require_parts(file, options.runner.provider)
    with ExitStack() as stack:
        found = stack.enter_context(open_subject(file or source, against, chosen, options.runner))
        _check(found, chosen)
        plain = None
        if found.file is not None and found.runner is not None:
            beside = functions_beside(found.file, found.runner, options.runner)
            plain = stack.enter_context(beside)
        climb = _Climb(found, plain, options, done)
        ladder, blocks = climb.run()
        last = ladder.rungs[-1]
        return ParityReport(
            artifact=found.name,
            artifact_sha256=file.sha256 if file else found.info.checkpoint.sha256,
            reference=next(r.runner for r in ladder.rungs if r.name == last.against),
            candidate=last.runner,
            tolerance=last.tolerance,
            results=last.results,
            command=tuple(command),
            notes=(
                *(found.runner.notes if found.runner else ()),
                *([last.kernels] if last.kernels else []),
                *unseen_directions(blocks, file),
                *nothing_found(last.results, blocks),
            ),
            blocks=blocks,
            ladder=ladder,
            functions=climb.functions,
        )


def _check(subject: Subject, chosen: SubjectOptions) -> None:
    """Refuse what would compare a file with forms of another precision."""
    if subject.file is None or subject.file.info is None:
        return
    stored = subject.file.info.precision
    if chosen.quantize != QuantizeOptions():
        raise VimDeployError(
            "VIM-203",
            f"--calibration and the like have no effect: {subject.name} holds its scales",
            fix="leave them out, or give the checkpoint instead",
        )
    if chosen.precision not in (None, stored) or chosen.precision_policy is not None:
        raise VimDeployError(
            "VIM-203",
            f"{subject.name} is {stored} with a policy of its own, and its ladder leads to it",
            fix="leave out --precision and --precision-policy, or give the checkpoint instead",
        )


@dataclass
class _Step:
    """A rung to come: what it is compared with, and in which runtime."""

    name: str
    against: str
    precision: str
    open: Callable[[ExitStack], Runner]


def _made_step(
    name: str, make: Callable[[], onnx.ModelProto], against: str, precision: str
) -> _Step:
    """A graph in memory, made when its turn has come."""

    def run(stack: ExitStack) -> Runner:
        return stack.enter_context(memory_runner(make(), name))

    return _Step(name, against, precision, run)


class _Climb:
    """One walk up the ladder; holds the outputs that later rungs are compared with.

    Args:
        subject: what is spoken of; its runner may have native ops.
        plain: its file without them, where both are compared.
        options, done: as for ``verify_ladder``.

    Attributes:
        functions: the file's rung and its distance from native ops, once those have run.
    """

    def __init__(
        self,
        subject: Subject,
        plain: Runner | None,
        options: VerifyOptions,
        done: RungDone | None,
    ) -> None:
        self.subject, self.plain, self.options = subject, plain, options
        self.functions: FunctionRun | None = None
        self.info = subject.info
        self.done = done or (lambda rung: None)
        self.row = TABLE[self.info.precision]
        self.references: dict[str, TorchRunner] = {}
        self.cases: dict[str, list[Case]] = {}

    def run(self) -> tuple[Ladder, BlockReport | None]:
        """Try every rung in turn; the parts of the last one, when asked for and all is well."""
        rungs = [self._ground()]
        self.done(rungs[0])
        steps = list(self._steps())
        for number, step in enumerate(steps):
            check()
            with ExitStack() as stack:
                rung, runner = self._try(step, stack)
                if runner is not None and self.plain is not None and step.name == NATIVE_OPS:
                    self._tell_apart(rungs[-1], runner)
                rungs.append(rung)
                self.done(rung)
                if not rung.passed:
                    left = tuple(later.name for later in steps[number + 1 :])
                    blocks, note = self._parts(step, rung, runner)
                    return Ladder(tuple(rungs), left, blocks, note), None
                looked = self.options.per_block or found_nothing(rung.results)
                if looked and step is steps[-1]:
                    return Ladder(tuple(rungs)), self._parts(step, rung, runner)[0]
        return Ladder(tuple(rungs)), None

    def _ground(self) -> Rung:
        """The float32 module: what everything is held to in the end."""
        from vim_deploy.runtimes.torch.runner import TorchRunner

        started = time.perf_counter()
        # One thread: PyTorch's scan makes many small calls (``ModuleRunner``).
        runner = TorchRunner(self.subject.module, threads=1)
        cases = live_cases(runner, self.info, self.options, False, self.subject.pictures)
        self._refer(FP32_MODULE, runner, cases)
        return self._rung(FP32_MODULE, runner, "", self._limits("fp32"), (), started)

    def _refer(self, name: str, runner: TorchRunner, cases: Sequence[Case]) -> None:
        """Keep ``runner``'s outputs as what others are compared with."""
        self.references[name] = runner
        batch = REFERENCE_BATCH if runner.size is None else 1
        self.cases[name] = answered(runner, cases, batch)

    def _steps(self) -> Iterator[_Step]:
        precision, goal = self.info.precision, FP32_MODULE
        if self.row.typed:
            goal = f"PyTorch {precision} twin"
            yield _Step(goal, FP32_MODULE, precision, lambda _: self._twin(goal))
        plain = self.subject.plain
        forms = [("base ONNX", dataclasses.replace(plain, graph="base"))]
        if plain.graph != "base":
            forms.append((f"{plain.graph} ONNX", plain))
        for name, info in forms:
            yield self._graph_step(name, info, FP32_MODULE, "fp32")
        if self.row.quantized:
            yield from self._quantized_steps(goal)
        elif self.row.typed:
            yield self._graph_step(f"{precision} ONNX", self.info, goal, precision)
        file, functions = self.subject.runner, self.plain
        if functions is not None:
            yield _Step(self.subject.name, goal, precision, lambda _: functions)
        if file is not None:
            name = NATIVE_OPS if file.ops == "native" else self.subject.name
            yield _Step(name, goal, precision, lambda _: file)

    def _quantized_steps(self, goal: str) -> Iterator[_Step]:
        """Weights alone, then all: of a file by its own graph, as its scales are its own."""
        precision, file = self.info.precision, self.subject.file
        # An engine has no graph.
        if file is not None and file.is_engine:
            return

        made = cache(lambda: self.subject.graph(self.info) if file is None else file.model)
        weights = f"{precision} weights"
        yield _made_step(weights, lambda: without_rounded_activations(made()), goal, precision)
        if file is None:
            yield _made_step(f"{precision} ONNX", made, goal, precision)

    def _graph_step(self, name: str, info: ExportInfo, against: str, precision: str) -> _Step:
        return _made_step(name, lambda: self.subject.graph(info), against, precision)

    def _tell_apart(self, file: Rung, native: Runner) -> None:
        """The file's rung, by its functions, and how far native ops are from it."""
        assert self.plain is not None
        first = self._batches(native)[0]
        answers = answered(self.plain, self.cases[file.against], first)
        between = compare_runners(None, native, answers, [first], file.tolerance)
        self.functions = FunctionRun(file.runner, file.results, between)

    def _twin(self, name: str) -> Runner:
        from vim_deploy.model.precision import typed_twin
        from vim_deploy.runtimes.torch.runner import TorchRunner

        policy = self.info.precision_policy or PrecisionPolicy()
        twin = typed_twin(self.subject.module, self.info.precision, policy)
        runner = TorchRunner(twin, self.info.precision, threads=1)
        self._refer(name, runner, self.cases[FP32_MODULE])
        return runner

    def _limits(self, precision: str) -> Tolerance:
        """Limits of one precision; the user's are about the precision that the ladder leads to."""
        tolerance = tolerance_for(precision, self.subject.tolerances, self.info)
        if precision != self.info.precision:
            return tolerance
        return adjusted(chosen_tolerance(self.options, tolerance), self.options.limits)

    def _try(self, step: _Step, stack: ExitStack) -> tuple[Rung, Runner | None]:
        """Run and compare one rung; its runner, when it could be made."""
        started, limits = time.perf_counter(), self._limits(step.precision)
        try:
            runner = step.open(stack)
        except VimDeployError as error:
            # A form that cannot be made is a broken rung; a machine that lacks something is not.
            if error.exit_code not in (ExitCode.BAD_INPUT, ExitCode.EXPORT_FAILED):
                raise
            text = f"{error.code}: {error.message}" + (f" ({error.why})" if error.why else "")
            seconds = time.perf_counter() - started
            return Rung(step.name, "", step.against, limits, (), seconds, text), None
        expected = self.cases[step.against]
        if step.name in self.cases:
            # The twin has run: later rungs are compared with its outputs.
            results = self._compare_stored(expected, self.cases[step.name], limits)
        else:
            results = compare_runners(None, runner, expected, self._batches(runner), limits)
        return self._rung(step.name, runner, step.against, limits, results, started), runner

    @staticmethod
    def _compare_stored(
        expected: Sequence[Case], found: Sequence[Case], limits: Tolerance
    ) -> tuple[CaseResult, ...]:
        return tuple(
            CaseResult(
                want.name,
                min(REFERENCE_BATCH if want.sizes is None else 1, len(want.images)),
                compare_outputs(list(want.stored), want.stored, have.stored, limits),
            )
            for want, have in zip(expected, found, strict=True)
        )

    def _batches(self, runner: Runner) -> tuple[int, ...]:
        if runner.fixed_batch is not None:
            return (runner.fixed_batch,)
        images = max(len(case.images) for case in self.cases[FP32_MODULE])
        return self.options.batches or tuple(b for b in BATCHES if b <= images)

    def _rung(
        self,
        name: str,
        runner: Runner,
        against: str,
        tolerance: Tolerance,
        results: tuple[CaseResult, ...],
        started: float,
    ) -> Rung:
        return Rung(
            name,
            runner.name,
            against,
            tolerance,
            results,
            time.perf_counter() - started,
            ops=runner.ops,
            kernels=runner.kernels,
        )

    def _parts(
        self, step: _Step, rung: Rung, runner: Runner | None
    ) -> tuple[BlockReport | None, str]:
        """The rung part by part; without that, the reason."""
        if runner is None:
            return None, ""
        if runner.parts is None:
            return None, (
                "it gives out no inner tensors; the rungs below it hold, so the difference arose "
                "in the build of the engine or in its runtime"
            )
        limit = part_limit(step.precision)
        if step.precision == self.info.precision:
            limit = self.options.limits.get("relative_l2", limit)
        reference, cases = self.references[step.against], self.cases[step.against]
        try:
            return check_parts(reference, runner, cases, rung.results, limit), ""
        except NoInnerTensorsError as error:
            # What is broken is said first; that its parts cannot be seen comes second.
            if rung.passed:
                raise
            return None, f"{error.message}: {error.why}"
