"""An artifact and options to run it with, to a runner; used by every stage that runs something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import Runner
from vim_deploy.runtimes.onnxruntime.runner import CPU, OrtRunner
from vim_deploy.runtimes.tensorrt.runner import TrtRunner


@dataclass(frozen=True)
class RunnerOptions:
    """Where and how an artifact runs.

    Attributes:
        provider: for an ONNX file: ``cpu`` (None means it), ``cuda`` or ``tensorrt``.
        plugin: TensorRT plugin library, for an engine or the provider ``tensorrt``.
        allow_plan_code: let an engine run code that its file carries.
        max_batch: largest batch to come; the provider ``tensorrt`` builds for it, and an engine
            that does not take it is refused before it is loaded.
    """

    provider: str | None = None
    plugin: Path | None = None
    allow_plan_code: bool = False
    max_batch: int | None = None


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
        VimDeployError: VIM-203 for an option of the other kind of artifact; as ``OrtRunner`` and
            ``TrtRunner``.
    """
    options = options or RunnerOptions()
    file = Artifact.open(artifact) if isinstance(artifact, Path) else artifact
    runner: TrtRunner | OrtRunner
    if file.is_engine:
        if options.provider is not None:
            raise _contradiction("--provider", file, "ONNX files, in ONNX Runtime")
        runner = TrtRunner(
            file.path,
            plugin=options.plugin,
            allow_plan_code=options.allow_plan_code,
            batch=options.max_batch,
        )
        with runner:
            yield Opened(runner, file, runner.notes)
        return
    if options.allow_plan_code:
        raise _contradiction("--allow-plan-code", file, "engines")
    provider = options.provider or CPU
    runner = OrtRunner(file, provider, plugin=options.plugin, max_batch=options.max_batch)
    with runner:
        yield Opened(runner, file)


def _contradiction(option: str, artifact: Artifact, kind: str) -> VimDeployError:
    return VimDeployError(
        "VIM-203",
        f"{option} is for {kind}, and {artifact.name} is none",
        fix=f"leave {option} away",
    )
