"""Compare part by part on the images that came out worst."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.file import named
from vim_deploy.errors import VimDeployError
from vim_deploy.parity.blocks import BlockReport, compare_parts
from vim_deploy.parity.cases import Case
from vim_deploy.parity.report import CaseResult, worst_of
from vim_deploy.runtimes.base import Array, Runner
from vim_deploy.runtimes.onnxruntime.runner import TENSORRT


def worst_images(
    cases: Sequence[Case], results: Sequence[CaseResult], fixed_batch: int | None = None
) -> tuple[Array, str]:
    """The batch that the worst comparison is about, as it was run, and its name in words.

    Args:
        cases: that ``results`` come from.
        results: of ``compare_runners``.
        fixed_batch: of the graph; the last image fills it up.
    """
    result, comparison = worst_of(results)
    case = next(case for case in cases if case.name == result.case)
    start = comparison.worst_row // result.batch * result.batch
    images = case.images[start : start + result.batch]
    name = f"{case.name}, image {comparison.worst_row + 1} of {len(case.images)}"
    if len(images) > 1:
        name += f" in a batch of {len(images)}"
    if fixed_batch is not None and len(images) < fixed_batch:
        fill = np.repeat(images[-1:], fixed_batch - len(images), axis=0)
        images = np.concatenate([images, fill])
    return images, name


def check_parts(
    reference: Runner,
    candidate: Runner,
    cases: Sequence[Case],
    results: Sequence[CaseResult],
    limit: float,
) -> BlockReport:
    """Both sides' inner tensors on the worst images.

    Args:
        reference, candidate: both give inner tensors out (``require_parts``).
        cases, results: what was compared before, as a whole.
        limit: largest relative L2 distance of a part.

    Raises:
        VimDeployError: VIM-422 when a graph does not show where its tensors are.
    """
    assert reference.parts is not None
    assert candidate.parts is not None
    images, name = worst_images(cases, results, candidate.fixed_batch)
    # The candidate first: a graph that does not give its tensors out is found out sooner.
    found = candidate.parts(images)
    passed = worst_of(results)[1].passed
    return compare_parts(reference.parts(images), found, limit, passed, name)


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
