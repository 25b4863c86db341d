"""Verify: an exported file against PyTorch, another file or stored outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vim_deploy.errors import VimDeployError
from vim_deploy.files import sha256_of
from vim_deploy.graph import metadata
from vim_deploy.parity.cases import Case, image_case, random_case, stored_case
from vim_deploy.parity.metrics import Tolerance, adjusted, tolerance_for
from vim_deploy.parity.report import ParityReport, compare_runners
from vim_deploy.pipeline.exporting import require_torch
from vim_deploy.recipe.precision_policy import PrecisionPolicy
from vim_deploy.run.base import Runner
from vim_deploy.run.ort_runner import OrtRunner
from vim_deploy.specs import ExportInfo


@dataclass(frozen=True)
class VerifyOptions:
    """What to compare on; with nothing given, four random images.

    Attributes:
        images: file or folder of pictures.
        image_limit: at most so many of them, in sorted order.
        random: number of random images; None for four when there are no others.
        batches: batch sizes to run, besides the one the trace used.
        tolerance: limits; None for those of the file's precision.
        limits: single limits of ``Tolerance`` by name, over those.
        twin: compare with the module typed as the file is, instead of the float32 one.
    """

    images: Path | None = None
    image_limit: int = 64
    random: int | None = None
    batches: tuple[int, ...] = (1, 2, 5)
    tolerance: Tolerance | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    twin: bool = False


def verify(
    artifact: Path,
    against: str,
    options: VerifyOptions | None = None,
    command: Sequence[str] = (),
) -> ParityReport:
    """Compare an exported ONNX file in ONNX Runtime with a reference.

    Args:
        artifact: ONNX file made by ``export``.
        against: the checkpoint it came from (needs torch), another ONNX file with the same input
            and outputs, or an ``.npz`` with stored inputs and outputs.
        options: inputs, batch sizes and tolerance.
        command: for the report.

    Returns:
        The report; ``require_passed`` raises VIM-701 when a tolerance is not met.

    Raises:
        VimDeployError: VIM-404 when the checkpoint is another one than the file was made from.
    """
    options = options or VerifyOptions()
    candidate = OrtRunner(artifact)
    info = metadata.find(metadata.load_model(artifact))
    precision = info.precision if info else "fp32"
    tolerance = adjusted(options.tolerance or tolerance_for(precision), options.limits)
    reference, cases = _reference(against, candidate, info, options.twin)
    cases += _live_cases(candidate, info, options, stored=bool(cases))
    batches = _batches(candidate, options.batches)
    results = compare_runners(reference, candidate, cases, batches, tolerance)
    return ParityReport(
        artifact=artifact.name,
        artifact_sha256=sha256_of(artifact),
        reference=reference.name if reference else f"stored outputs {Path(against).name}",
        candidate=candidate.name,
        tolerance=tolerance,
        results=results,
        command=tuple(command),
    )


def _batches(candidate: Runner, wanted: tuple[int, ...]) -> tuple[int, ...]:
    fixed = candidate.input.shape[0]
    return (fixed,) if isinstance(fixed, int) else wanted


def _reference(
    against: str, candidate: OrtRunner, info: ExportInfo | None, twin: bool
) -> tuple[Runner | None, list[Case]]:
    """The runner to compare with, or the stored case that replaces one."""
    suffix = Path(against).suffix
    if twin and suffix in (".npz", ".onnx"):
        raise VimDeployError(
            "VIM-203",
            f"--twin compares with PyTorch, and {against} is no checkpoint",
            fix="--against CHECKPOINT, or leave out --twin",
        )
    if suffix == ".npz":
        return None, [stored_case(Path(against), candidate.input, candidate.outputs)]
    if suffix == ".onnx":
        return OrtRunner(Path(against)), []
    if info is None:
        raise VimDeployError(
            "VIM-410",
            "the ONNX file does not say which model it holds",
            fix="--against ANOTHER.onnx or STORED.npz, or export it with vim-deploy",
        )
    require_torch()
    from vim_deploy.model.load import reference_model
    from vim_deploy.run.torch_runner import TorchRunner

    module = reference_model(against, info)
    if not twin:
        return TorchRunner(module), []
    from vim_deploy.model.precision import typed_twin

    policy = PrecisionPolicy.stored(info.precision_policy)
    return TorchRunner(typed_twin(module, info.precision, policy), info.precision), []


def _live_cases(
    candidate: OrtRunner, info: ExportInfo | None, options: VerifyOptions, stored: bool
) -> list[Case]:
    """Pictures and random images; none when stored inputs are all there is to compare."""
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
        if info is None:
            raise VimDeployError(
                "VIM-410", "the ONNX file does not say how pictures are prepared", fix="--random N"
            )
        cases.append(image_case(options.images, info, options.image_limit))
    count = options.random if options.random is not None else (0 if cases else 4)
    if count:
        preprocess = info.preprocess if info else "none"
        cases.append(random_case(candidate.input, preprocess, count))
    return cases
