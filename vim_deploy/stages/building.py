"""Build: an ONNX file becomes an engine for the runtime at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vim_deploy.artifact.engine_file import TENSORRT
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import EngineRecord
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.process import ProgressCallback
from vim_deploy.runtimes.choose import AUTO, choose_runtime
from vim_deploy.runtimes.tensorrt.build import build_engine_trt, prepare_trt
from vim_deploy.runtimes.tensorrt.options import TrtOptions, refuse_for_rtx
from vim_deploy.runtimes.tensorrt_rtx.build import build_engine_rtx, prepare_rtx


def build_engine(
    model: Path,
    output: Path | None = None,
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
        runtime: ``auto``, ``tensorrt`` or ``tensorrt-rtx``.
        compute_capabilities: for TensorRT-RTX only.
        options: for full TensorRT only, ``inner_tensors`` apart.
        precision: ``fp32``, ``fp16`` or ``bf16``; empty for that of the graph.

    The other arguments and errors are those of ``runtimes.tensorrt_rtx.build.build_engine_rtx`` and
    ``runtimes.tensorrt.build.build_engine_trt``.
    """
    chosen = checked_runtime(runtime, compute_capabilities, options)
    plan = output or default_plan(model, precision)
    if chosen == TENSORRT:
        return build_engine_trt(
            model,
            plan,
            profiles=profiles,
            options=options,
            precision=precision,
            progress=progress,
            force=force,
            command=command,
        )
    return build_engine_rtx(
        model,
        plan,
        profiles=profiles,
        compute_capabilities=compute_capabilities,
        precision=precision,
        inner_tensors=options is not None and options.inner_tensors,
        progress=progress,
        force=force,
        command=command,
    )


def plan_engine(
    model: Path,
    output: Path | None = None,
    *,
    runtime: str = AUTO,
    profiles: ProfileOptions | None = None,
    compute_capabilities: Sequence[str] = (),
    options: TrtOptions | None = None,
    precision: str = "",
) -> dict[str, Any]:
    """What ``build_engine`` would do with these arguments, JSON-able; nothing is written.

    A plugin library that is missing is built, as its hash is part of the answer.
    """
    if checked_runtime(runtime, compute_capabilities, options) == TENSORRT:
        work = prepare_trt(model, profiles=profiles, options=options, precision=precision)
        decided = work.plan_of_work()
    else:
        inner = options is not None and options.inner_tensors
        request = prepare_rtx(model, profiles, compute_capabilities, precision, inner)
        decided = request.plan_of_work()
    return {"model": str(model), "output": str(output or default_plan(model, precision)), **decided}


def default_plan(model: Path, precision: str = "") -> Path:
    """NAME.plan here; NAME.fp16.plan when that precision was asked for and NAME does not say so."""
    stem = model.stem
    if precision not in ("", "fp32") and not stem.endswith(f".{precision}"):
        stem = f"{stem}.{precision}"
    return Path(f"{stem}.plan")


def checked_runtime(
    runtime: str, compute_capabilities: Sequence[str], options: TrtOptions | None
) -> str:
    """The runtime to build with; VIM-203 for options that are not its own."""
    chosen = choose_runtime(runtime)
    if chosen != TENSORRT:
        refuse_for_rtx(options or TrtOptions())
    elif compute_capabilities:
        raise VimDeployError(
            "VIM-203",
            "--compute-capability: not with full TensorRT",
            why="it builds for the GPU at hand",
            fix="leave it out; --hardware-compat ampere+ or same-cc allows other GPUs as well",
        )
    return chosen
