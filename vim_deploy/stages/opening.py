"""An artifact, opened for running; used by every stage that runs something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import Runner, RunnerOptions


@dataclass(frozen=True)
class Opened:
    """A runner, the artifact that it runs, and what is to be said about it."""

    runner: Runner
    artifact: Artifact
    notes: tuple[str, ...] = ()

    @property
    def info(self) -> ExportInfo | None:
        """What the artifact says about its model."""
        return self.artifact.info


@contextmanager
def opened(artifact: Path | Artifact, options: RunnerOptions | None = None) -> Iterator[Opened]:
    """Open an ONNX file or an engine for running; what it holds is released at the end.

    Raises:
        VimDeployError: VIM-401 (no such file), and as ``runtimes.open_runner``.
    """
    file = Artifact.open(artifact) if isinstance(artifact, Path) else artifact
    with open_runner(file, options or RunnerOptions()) as runner:
        yield Opened(runner, file, runner.notes)
