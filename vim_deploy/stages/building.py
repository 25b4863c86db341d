"""Build: an ONNX file becomes an engine for the runtime at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import EngineRecord
from vim_deploy.paths import StrPath, as_path, optional_path
from vim_deploy.runtimes import AUTO, choose_runtime, named
from vim_deploy.runtimes.building.build import Builder
from vim_deploy.runtimes.building.process import ProgressCallback
from vim_deploy.runtimes.building.request import BuildRequest, TrtOptions


def build_engine(
    model: StrPath,
    output: StrPath | None = None,
    *,
    runtime: str = AUTO,
    profiles: ProfileOptions | None = None,
    compute_capabilities: Sequence[str] = (),
    options: TrtOptions | None = None,
    precision: str = "",
    progress: ProgressCallback | None = None,
    force: bool = False,
    command: Sequence[str] = (),
) -> EngineRecord:
    """Build an engine from an ONNX file; by default NAME.onnx gives NAME.plan here.

    Args:
        options: for full TensorRT only, ``inner_tensors`` apart.
        progress: called with the state of the build, a few times a second.

    The other arguments are those of ``runtimes.building.request.BuildRequest``, result and errors
    those of ``runtimes.building.build.Builder.build``.
    """
    request = BuildRequest(
        as_path(model, "model"),
        optional_path(output, "output"),
        runtime,
        profiles or ProfileOptions(),
        tuple(compute_capabilities),
        options or TrtOptions(),
        precision,
        force,
        tuple(command),
    )
    return build(request, progress)


def build(request: BuildRequest, progress: ProgressCallback | None = None) -> EngineRecord:
    """Build what was asked for; result and errors as ``Builder.build``."""
    return builder_for(request).build(request, progress)


def plan_build(request: BuildRequest) -> dict[str, Any]:
    """What ``build`` would do, JSON-able; nothing is written.

    A plugin library that is missing is built, as its hash is part of the answer.
    """
    decided = builder_for(request).prepare(request).plan_of_work()
    return {"model": str(request.model), "output": str(request.plan), **decided}


def builder_for(request: BuildRequest) -> Builder:
    """Who builds with the runtime that was asked for; VIM-203 for options that are not its own.

    Raises:
        VimDeployError: as ``choose_runtime``.
    """
    builder: Builder = named(choose_runtime(request.runtime).builder)
    builder.refuse(request)
    return builder
