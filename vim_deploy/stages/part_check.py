"""Compare part by part on the images that came out worst."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vim_deploy.artifact import metadata
from vim_deploy.artifact.engine_file import is_engine
from vim_deploy.artifact.record import read_record
from vim_deploy.errors import VimDeployError
from vim_deploy.parity.blocks import BlockReport, compare_parts
from vim_deploy.parity.cases import Case
from vim_deploy.parity.report import CaseResult, worst_of
from vim_deploy.recipe.model_config import ModelConfig
from vim_deploy.runtimes.base import Array, PartSource, Runner
from vim_deploy.runtimes.onnxruntime.inner import onnx_parts, unreadable
from vim_deploy.runtimes.onnxruntime.runner import CPU, TENSORRT
from vim_deploy.specs import ExportInfo


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
    reference: PartSource,
    candidate: PartSource,
    cases: Sequence[Case],
    results: Sequence[CaseResult],
    limit: float,
    batch: int | None = None,
) -> BlockReport:
    """Both sides' inner tensors on the worst images.

    Args:
        reference, candidate: where the tensors come from.
        cases, results: what was compared before, as a whole.
        limit: largest relative L2 distance of a part.
        batch: fixed batch size of the graph.
    """
    images, name = worst_images(cases, results, batch)
    # The candidate first: a graph that does not give its tensors out is found out sooner.
    found = candidate(images)
    passed = worst_of(results)[1].passed
    return compare_parts(reference(images), found, limit, passed, name)


def require_parts(path: Path, provider: str | None = None) -> None:
    """VIM-422 for what can run but gives out no inner tensors."""
    if path.suffix != ".npz" and is_engine(path):
        record = read_record(path)
        if record is not None and record.inner_tensors:
            return
        raise VimDeployError(
            "VIM-422",
            f"{path.name} is an engine that gives out no inner tensors",
            why="its kernels were fused when it was built; what is inside is not kept"
            + ("" if record is not None else ", and there is no record that says otherwise"),
            fix="build it for diagnosis: vim-deploy build-engine MODEL.onnx --inner-tensors; "
            "or verify the ONNX file that it was built from with --per-block: when "
            "that agrees and the engine does not, the difference arose in the build",
        )
    if path.suffix == ".npz":
        raise VimDeployError(
            "VIM-422",
            f"{path.name} holds outputs only",
            why="a comparison part by part needs the inner tensors of both sides",
            fix="--against CHECKPOINT or ANOTHER.onnx",
        )
    if provider == TENSORRT:
        raise VimDeployError(
            "VIM-422",
            "TensorRT in ONNX Runtime gives out no inner tensors",
            why="tensors that are given out are not fused, so another engine would be measured",
            fix="leave out --per-block, or use --provider cpu or cuda",
        )


@contextmanager
def file_parts(path: Path, provider: str | None = None) -> Iterator[PartSource]:
    """The inner tensors of an exported file; VIM-410, VIM-422 when it does not show them."""
    require_parts(path, provider)
    model = metadata.load_model(path)
    info = metadata.find(model)
    if info is None:
        raise unreadable(path.name, "it holds no vim-deploy metadata")
    with onnx_parts(model, dt_rank_of(info), path.name, provider or CPU) as parts:
        yield parts


@contextmanager
def runner_parts(runner: Runner, path: Path, provider: str | None = None) -> Iterator[PartSource]:
    """Inner tensors: a module has them, an engine may; of an ONNX file they are made outputs."""
    if runner.parts is not None:
        yield runner.parts
        return
    with file_parts(path, provider) as found:
        yield found


def dt_rank_of(info: ExportInfo) -> int:
    """Rank of the step sizes of the model that ``info`` describes."""
    return int(ModelConfig.from_dict(info.model_config).ssm["dt_rank"])
