"""Build: an ONNX file becomes an engine for the runtime at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vim_deploy.engine.build_process import ProgressCallback
from vim_deploy.engine.build_rtx import build_engine_rtx
from vim_deploy.engine.choose import AUTO, choose_runtime
from vim_deploy.engine.profiles import ProfileOptions
from vim_deploy.engine.record import EngineRecord


def build_engine(
    model: Path,
    output: Path | None = None,
    *,
    runtime: str = AUTO,
    profiles: ProfileOptions | None = None,
    compute_capabilities: Sequence[str] = (),
    progress: ProgressCallback | None = None,
    force: bool = False,
    command: Sequence[str] = (),
) -> EngineRecord:
    """Build an engine from an ONNX file; by default NAME.onnx gives NAME.plan here.

    Arguments and errors as in ``engine.build_rtx.build_engine_rtx``.
    """
    choose_runtime(runtime)
    return build_engine_rtx(
        model,
        output or Path(model.with_suffix(".plan").name),
        profiles=profiles,
        compute_capabilities=compute_capabilities,
        progress=progress,
        force=force,
        command=command,
    )
