"""Verify: an exported file or engine against PyTorch, another file or stored outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vim_deploy import heads
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.file import is_exported, named
from vim_deploy.artifact.metadata import ExportInfo, require_info
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.verify import fused_mixers
from vim_deploy.parity.average_precision import ParityPrecision
from vim_deploy.parity.blocks import BlockReport, part_limit
from vim_deploy.parity.cases import (
    Case,
    files_case,
    image_case,
    prepared_noise,
    random_case,
    stored_case,
)
from vim_deploy.parity.metrics import Tolerance, adjusted, tolerance_for
from vim_deploy.parity.report import (
    CaseResult,
    ParityReport,
    check_parts,
    compare_functions,
    compare_runners,
    found_nothing,
    parts_of_nothing,
    referred,
    results_passed,
)
from vim_deploy.paths import OptionalPath, StrPath, as_path, as_text
from vim_deploy.progress import stage_log
from vim_deploy.ranges import BATCH, COUNT, RANDOM, require_all
from vim_deploy.recipe.precision_policy import PrecisionPolicy
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import Runner, RunnerOptions
from vim_deploy.runtimes.onnxruntime.runner import TENSORRT
from vim_deploy.scene.pictures import find_images
from vim_deploy.stages.exporting import require_torch
from vim_deploy.stages.verifying_quantized import no_twin

#: Batch sizes to run where the artifact takes any.
DEFAULT_BATCHES = (1, 2, 5)


@dataclass(frozen=True)
class VerifyOptions:
    """What to compare on; with nothing given, four random images.

    Attributes:
        images: file or folder of pictures.
        image_limit: at most so many of them, in sorted order.
        random: number of random images; None for four when there are no others.
        batches: batch sizes to run; None for 1, 2 and 5, or what an engine's profiles are for.
        tolerance: limits; None for those of the artifact's precision.
        limits: single limits of ``Tolerance`` by name, over those.
        twin: compare with the module typed as the file is, instead of the float32 one.
        per_block: compare the inner tensors as well, on the images that came out worst; of native
            ops and functions those of the functions where they alone differ.
        runner: where the artifact runs. With ``ops="auto"`` an ONNX file whose ops are native
            kernels is compared twice, by those and by the functions in the file.
    """

    images: OptionalPath = OptionalPath()
    image_limit: int = 64
    random: int | None = None
    batches: tuple[int, ...] | None = None
    tolerance: Tolerance | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    twin: bool = False
    per_block: bool = False
    runner: RunnerOptions = RunnerOptions()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean, or for no batch size at all."""
        require_all(self, image_limit=COUNT, random=RANDOM, batches=BATCH)
        if self.batches == ():
            raise VimDeployError("VIM-202", "--batches: one or more sizes", fix="--batches 1,2")


def verify(
    artifact: StrPath,
    against: StrPath,
    options: VerifyOptions | None = None,
    command: Sequence[str] = (),
) -> ParityReport:
    """Compare an exported ONNX file in ONNX Runtime, or an engine in TensorRT, with a reference.

    Args:
        artifact: ONNX file made by ``export``, or an engine made by ``build_engine``.
        against: the checkpoint it came from (needs torch), another ONNX file or engine with the
            same input and outputs, or an ``.npz`` with stored inputs and outputs.
        options: inputs, batch sizes and tolerance.
        command: for the report.

    Returns:
        The report; ``require_passed`` raises VIM-701 when a tolerance is not met, VIM-702 naming
        the first part beyond its limit.

    Raises:
        VimDeployError: VIM-404 when the checkpoint is another one than the file was made from;
            VIM-422 when inner tensors are asked for and a side does not show them; VIM-901 when
            the engine does not run on this machine.
    """
    options, against = options or VerifyOptions(), as_text(against, "against")
    file = Artifact.open(as_path(artifact, "artifact"))
    require_images(options)
    other = reference_file(against, file)
    if options.per_block:
        require_parts(file, options.runner.provider)
        refuse_stored(against)
        if other is not None:
            require_parts(other)
    largest = None if options.batches is None else max(options.batches)
    stage_log.info("loading %s", file.name)
    settings = dataclasses.replace(options.runner, max_batch=largest)
    with (
        open_runner(file, settings) as runner,
        functions_beside(file, runner, settings) as plain,
        open_reference(other or against, file, runner, options.twin) as (reference, stored),
    ):
        usual = tolerance_for(file.precision, info=file.info)
        tolerance = adjusted(chosen_tolerance(options, usual), options.limits)
        if not options.per_block:
            refuse_part_limit(tolerance, options)
        if options.images is not None and not stored:
            file.require_info("does not say how pictures are prepared", fix="--random N")
        cases = stored + live_cases(runner, file.info, options, stored=bool(stored))
        batches = batches_to_run(runner, options.batches)
        if reference is not None:
            count = sum(len(case.images) for case in cases)
            stage_log.info("running %d images through %s", count, reference.name)
        expected = referred(reference, cases)
        stage_log.info("comparing outputs at batches of %s", ", ".join(map(str, batches)))
        precision = None if runner.size is None else ParityPrecision()
        seen = None if precision is None else precision.add
        results = compare_runners(None, runner, expected, batches, tolerance, seen)
        functions, looked_into = None, (runner, results)
        if plain is not None:
            stage_log.info("comparing outputs of the functions in the file")
            functions = compare_functions(runner, plain, expected, batches, tolerance)
            if results_passed(results) and not functions.passed:
                looked_into = plain, functions.results
        blocks: BlockReport | None
        if options.per_block and reference is not None:
            stage_log.info("comparing part by part")
            limit = options.limits.get("relative_l2", part_limit(file.precision))
            blocks = check_parts(reference, looked_into[0], cases, looked_into[1], limit)
        else:
            blocks = parts_of_nothing(reference, runner, cases, results, file.precision)
        return ParityReport(
            artifact=file.name,
            artifact_sha256=file.sha256,
            reference=reference.name if reference else f"stored outputs {Path(against).name}",
            candidate=runner.name,
            tolerance=tolerance,
            results=results,
            command=tuple(command),
            notes=(
                *runner.told,
                *_not_stored(runner, stored, Path(against)),
                *_not_shared(runner, reference, file),
                *unseen_directions(blocks, file, other),
                *(precision.notes if precision else ()),
                *nothing_found(results, blocks),
            ),
            blocks=blocks,
            functions=functions,
            average_precision=None if precision is None else precision.result(),
        )


def chosen_tolerance(options: VerifyOptions, usual: Tolerance) -> Tolerance:
    """What the caller gave, of detections the usual where that says nothing; or the usual."""
    given = options.tolerance
    if given is None or given.detections is not None:
        return given or usual
    return dataclasses.replace(given, detections=usual.detections)


def refuse_part_limit(tolerance: Tolerance, options: VerifyOptions) -> None:
    """VIM-203 for a limit of inner tensors where detections alone are compared."""
    if tolerance.detections is not None and "relative_l2" in options.limits:
        raise VimDeployError(
            "VIM-203",
            "--relative-l2 has no effect on detections",
            why="it is a limit of inner tensors then; boxes, scores and masks have their own",
            fix="--per-block, or --box-pixels, --score-difference, --mask-difference",
        )


def require_images(options: VerifyOptions) -> None:
    """VIM-401 for pictures that are not there, before a model is loaded or made."""
    if options.images is not None:
        find_images(options.images)


@contextmanager
def functions_beside(
    file: Artifact, runner: Runner, options: RunnerOptions
) -> Iterator[Runner | None]:
    """The same file run by its functions, where ``runner`` has native ops that nobody insisted on.

    None elsewhere: then there is one way to compare.
    """
    if runner.ops != "native" or options.ops != "auto":
        yield None
        return
    with open_runner(file, dataclasses.replace(options, ops="function")) as plain:
        yield plain


def refuse_stored(against: str) -> None:
    """VIM-422 for stored outputs, which have no parts."""
    if named(against) == "stored":
        raise VimDeployError(
            "VIM-422",
            f"{Path(against).name} holds outputs only",
            why="a comparison part by part needs the inner tensors of both sides",
            fix="--against CHECKPOINT or ANOTHER.onnx",
        )


def require_parts(file: Artifact, provider: str | None = None) -> None:
    """VIM-422 for what can run but gives out no inner tensors."""
    if file.is_engine and not (file.record and file.record.inner_tensors):
        raise VimDeployError(
            "VIM-422",
            f"{file.name} is an engine that gives out no inner tensors",
            why="its kernels were fused when it was built; what is inside is not kept"
            + ("" if file.record else ", and there is no record that says otherwise"),
            fix="build it for diagnosis: vim-deploy build-engine MODEL.onnx --inner-tensors; "
            "or verify the ONNX file that it was built from with --per-block: when "
            "that agrees and the engine does not, the difference arose in the build",
        )
    if not file.is_engine and provider == TENSORRT:
        raise VimDeployError(
            "VIM-422",
            "TensorRT in ONNX Runtime gives out no inner tensors",
            why="tensors that are given out are not fused, so another engine would be measured",
            fix="leave out --per-block, or use --provider cpu or cuda",
        )


def _not_stored(runner: Runner, stored: Sequence[Case], path: Path) -> Iterator[str]:
    """What a stored file could not be asked about."""
    for case in stored:
        missing = [name for name in runner.outputs if name not in case.stored]
        if missing:
            yield f"not compared, because {path.name} does not hold it: {', '.join(missing)}"


def _not_shared(candidate: Runner, reference: Runner | None, file: Artifact) -> Iterator[str]:
    """Outputs that only one side has, and so say nothing: a tool may have dropped one."""
    if reference is None:
        return
    missing = [name for name in candidate.outputs if name not in reference.outputs]
    if missing:
        yield f"not compared, because {reference.name} does not give it: {', '.join(missing)}"
    dropped = [name for name in reference.outputs if name not in candidate.outputs]
    if dropped:
        yield f"not compared, because {file.name} does not give it: {', '.join(dropped)}"


def unseen_directions(blocks: BlockReport | None, *files: Artifact | None) -> Iterator[str]:
    """That a comparison part by part saw no single direction of mixers that ``files`` fuse."""
    infos = [file.info for file in files if file is not None and file.info is not None]
    fused = any(info.standalone and fused_mixers(info.model_config, info.graph) for info in infos)
    if blocks is not None and fused and not any(part.place.direction for part in blocks.parts):
        yield (
            "part by part, only what both directions of a mixer share was compared: a standalone "
            "file shows single ones by the names in it, and a tool has changed those"
        )


def nothing_found(results: Sequence[CaseResult], blocks: BlockReport | None) -> Iterator[str]:
    """That there were no detections, and what was compared in their place."""
    if blocks is not None and found_nothing(results):
        yield (
            "neither side found anything in these images: the inner tensors were compared, and no "
            "detection; --images PICTURES with objects in them compares those"
        )


def batches_to_run(candidate: Runner, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    """The batch sizes asked for; without a wish those that the artifact is made for."""
    if candidate.fixed_batch is not None:
        return (candidate.fixed_batch,)
    if wanted is not None:
        return wanted
    made_for = {size for sizes in candidate.batches for size in sizes}
    # A detector holds gigabytes for each picture of a full size.
    usual = DEFAULT_BATCHES if candidate.size is None else DEFAULT_BATCHES[:2]
    return tuple(sorted(made_for)) or usual


def reference_file(against: str, file: Artifact) -> Artifact | None:
    """What ``against`` names when it is an exported file or engine: ``file`` itself, if it is."""
    if not is_exported(against):
        return None
    other = Artifact.open(Path(against))
    return file if other.sighting.identity == file.sighting.identity else other


@contextmanager
def open_reference(
    against: str | Artifact, file: Artifact, runner: Runner, twin: bool
) -> Iterator[tuple[Runner | None, list[Case]]]:
    """The runner to compare with, or the stored case that replaces one."""
    kind = named(against) if isinstance(against, str) else against.kind
    if twin and kind != "checkpoint":
        name = against if isinstance(against, str) else against.path
        raise VimDeployError(
            "VIM-203",
            f"--twin compares with PyTorch, and {name} is no checkpoint",
            fix="--against CHECKPOINT, or leave out --twin",
        )
    if isinstance(against, Artifact):
        # A reference is the file as it is: what it holds, without anything from outside.
        with open_runner(against, RunnerOptions(ops="function")) as reference:
            yield reference, []
    elif kind == "stored":
        head = heads.of_file(file.info) if file.info else None
        case = stored_case(Path(against), runner.input, runner.outputs, head, runner.size)
        yield None, [case]
    else:
        yield _checkpoint_runner(against, file, twin), []


def _checkpoint_runner(against: str, file: Artifact, twin: bool) -> Runner:
    info = file.require_info(
        "does not say which model it holds", fix="compare with --against ANOTHER.onnx or STORED.npz"
    )
    if twin and info.quantization is not None:
        raise no_twin(info)
    require_torch()
    from vim_deploy.model.reference import reference_model
    from vim_deploy.runtimes.torch.runner import TorchRunner

    stage_log.info("reading %s", against)
    module = reference_model(against, info)
    if not twin:
        return TorchRunner(module)
    from vim_deploy.model.precision import typed_twin

    policy = info.precision_policy or PrecisionPolicy()
    return TorchRunner(typed_twin(module, info.precision, policy), info.precision)


def live_cases(
    runner: Runner,
    info: ExportInfo | None,
    options: VerifyOptions,
    stored: bool,
    pictures: Sequence[Path] = (),
) -> list[Case]:
    """Pictures and random images; none when stored inputs are all there is to compare.

    ``pictures`` are what is taken in place of random images where nothing was asked for.
    """
    spec, sized = runner.input, runner.size is not None
    if stored:
        if options.images is not None or options.random is not None:
            raise VimDeployError(
                "VIM-203",
                "stored outputs come with their own inputs",
                fix="leave out --images and --random, or compare with the checkpoint",
            )
        return []
    cases = []
    if options.images is not None:
        unsaid = "the file does not say how pictures are prepared"
        info = require_info(info, unsaid, fix="--random N")
        cases.append(image_case(options.images, info, options.image_limit))
    elif pictures and info is not None and options.random is None:
        cases.append(files_case("calibration", pictures, info))
    count = options.random if options.random is not None else (0 if cases else 4)
    if count:
        preprocess = info.preprocess if info else "none"
        noise = prepared_noise(info)
        cases.append(random_case(spec, preprocess, count, sized=sized, image=noise))
    return cases
