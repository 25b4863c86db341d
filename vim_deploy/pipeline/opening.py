"""An artifact and options to run it with, to a runner; used by every stage that runs something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.errors import VimDeployError
from vim_deploy.graph import metadata
from vim_deploy.run.base import Runner
from vim_deploy.run.ort_runner import CPU, OrtRunner
from vim_deploy.specs import ExportInfo


@dataclass(frozen=True)
class RunnerOptions:
    """Where and how an artifact runs.

    Attributes:
        provider: for an ONNX file: ``cpu`` (None means it), ``cuda`` or ``tensorrt``.
        plugin: TensorRT plugin library, for an engine or the provider ``tensorrt``.
        max_batch: largest batch to come; the provider ``tensorrt`` builds for it.
    """

    provider: str | None = None
    plugin: Path | None = None
    max_batch: int | None = None


@dataclass(frozen=True)
class Opened:
    """A runner, and what its file says about the model (None: nothing)."""

    runner: Runner
    info: ExportInfo | None
    notes: tuple[str, ...] = ()


@contextmanager
def opened(artifact: Path, options: RunnerOptions | None = None) -> Iterator[Opened]:
    """Open an ONNX file for running; what it holds is released at the end."""
    options = options or RunnerOptions()
    runner = OrtRunner(
        artifact,
        options.provider or CPU,
        plugin=options.plugin,
        max_batch=options.max_batch,
    )
    yield Opened(runner, metadata.find(metadata.load_model(artifact)))


def require_info(opened_artifact: Opened, name: str) -> ExportInfo:
    """What the file says about the model; VIM-410 when it says nothing."""
    if opened_artifact.info is None:
        raise VimDeployError(
            "VIM-410",
            f"{name} does not say how pictures are prepared for it",
            why="it holds no vim-deploy metadata",
            fix="export the model with vim-deploy export",
        )
    return opened_artifact.info
