"""An artifact and options to run it with, to a runner; used by every stage that runs something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.artifact import metadata
from vim_deploy.artifact.engine_file import is_engine
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import Runner
from vim_deploy.runtimes.onnxruntime.runner import CPU, OrtRunner
from vim_deploy.runtimes.tensorrt.runner import TrtRunner
from vim_deploy.specs import ExportInfo


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
    """A runner, what its file says about the model (None: nothing), and its precision."""

    runner: Runner
    info: ExportInfo | None
    precision: str
    notes: tuple[str, ...] = ()


@contextmanager
def opened(artifact: Path, options: RunnerOptions | None = None) -> Iterator[Opened]:
    """Open an ONNX file or an engine for running; what it holds is released at the end.

    Raises:
        VimDeployError: VIM-203 for an option of the other kind of artifact; as ``OrtRunner`` and
            ``TrtRunner``.
    """
    options = options or RunnerOptions()
    if is_engine(artifact):
        if options.provider is not None:
            raise _contradiction("--provider", artifact, "ONNX files, in ONNX Runtime")
        with TrtRunner(
            artifact,
            plugin=options.plugin,
            allow_plan_code=options.allow_plan_code,
            batch=options.max_batch,
        ) as engine:
            yield Opened(engine, engine.info, engine.precision, engine.notes)
        return
    if options.allow_plan_code:
        raise _contradiction("--allow-plan-code", artifact, "engines")
    runner = OrtRunner(
        artifact,
        options.provider or CPU,
        plugin=options.plugin,
        max_batch=options.max_batch,
    )
    info = metadata.find(metadata.load_model(artifact))
    yield Opened(runner, info, info.precision if info else "fp32")


def _contradiction(option: str, artifact: Path, kind: str) -> VimDeployError:
    return VimDeployError(
        "VIM-203",
        f"{option} is for {kind}, and {artifact.name} is none",
        fix=f"leave {option} away",
    )


def require_info(opened_artifact: Opened, name: str) -> ExportInfo:
    """What the file says about the model; VIM-410 when it says nothing."""
    if opened_artifact.info is None:
        raise VimDeployError(
            "VIM-410",
            f"{name} does not say how pictures are prepared for it",
            why="it holds no vim-deploy metadata; for an engine that stands in its record "
            "NAME.plan.json",
            fix="export the model with vim-deploy export; put an engine's record beside it",
        )
    return opened_artifact.info
