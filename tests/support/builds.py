"""Builds as tests ask for them: one call, which makes the request."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import EngineRecord
from vim_deploy.runtimes import Runtime, runtime_named
from vim_deploy.runtimes.building.build import Work
from vim_deploy.runtimes.building.process import ProgressCallback
from vim_deploy.runtimes.building.request import BuildJob, BuildRequest, TrtOptions
from vim_deploy.runtimes.tensorrt.build import BUILDER as TRT
from vim_deploy.runtimes.tensorrt_rtx.build import BUILDER as RTX

RTX_IS_INSTALLED = runtime_named("tensorrt-rtx").is_installed()
#: Leaves a test out, and says so, where TensorRT-RTX is not installed.
needs_rtx = pytest.mark.skipif(
    not RTX_IS_INSTALLED, reason="not checked here: tensorrt-rtx-cu13 is not installed"
)


def install_only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these runtimes be installed, and no others."""
    monkeypatch.setattr(Runtime, "is_installed", lambda row: row.name in names)


def request_for(
    model: Path,
    plan: Path | None = None,
    *,
    profiles: ProfileOptions | None = None,
    options: TrtOptions | None = None,
    compute_capabilities: Sequence[str] = (),
    **given: Any,
) -> BuildRequest:
    """A request; None asks for nothing."""
    return BuildRequest(
        model,
        plan,
        profiles=profiles or ProfileOptions(),
        tensorrt=options or TrtOptions(),
        compute_capabilities=tuple(compute_capabilities),
        **given,
    )


def job_for(**given: Any) -> BuildJob:
    """A job with nothing in it but what is given."""
    here = Path("m.onnx")
    job = BuildJob(
        worker="",
        runtime="tensorrt-rtx",
        model=here,
        model_name="m.onnx",
        output=Path("m.plan"),
        scratch=(),
        request=BuildRequest(here),
        inputs={},
        outputs={},
        profiles=(),
        named=(),
        flags=(),
        cleared_flags=(),
        plugin=None,
        plugin_counts={},
        timing_cache=None,
        types={},
        debug_tensors=(),
    )
    return dataclasses.replace(job, **given)


def build_engine_trt(
    model: Path, plan: Path, *, progress: ProgressCallback | None = None, **given: Any
) -> EngineRecord:
    """Build with full TensorRT."""
    return TRT.build(request_for(model, plan, **given), progress)


def build_engine_rtx(
    model: Path, plan: Path, *, progress: ProgressCallback | None = None, **given: Any
) -> EngineRecord:
    """Build with TensorRT-RTX."""
    return RTX.build(request_for(model, plan, **given), progress)


def prepare_trt(model: Path, **given: Any) -> Work:
    """Decide about a build with full TensorRT."""
    return TRT.prepare(request_for(model, **given))
