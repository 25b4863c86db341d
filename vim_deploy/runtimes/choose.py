"""Which runtime ``build-engine`` uses, said out loud."""

from __future__ import annotations

import logging
from typing import Final

from vim_deploy.artifact.engine_file import TENSORRT, TENSORRT_RTX
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import VimDeployError, missing_package, nearest
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx

AUTO: Final = "auto"
#: What ``--runtime`` takes.
RUNTIMES: Final = (AUTO, TENSORRT, TENSORRT_RTX)

_log = logging.getLogger(__name__)


def choose_runtime(requested: str = AUTO) -> str:
    """The runtime to build with; what ``auto`` takes, and why, goes to the log.

    ``auto`` takes full TensorRT where it loads and a GPU is there (it cannot build without one),
    and TensorRT-RTX everywhere else.

    Raises:
        VimDeployError: VIM-202 (no such runtime), VIM-301 (the runtime is not installed or does
            not load), VIM-302 (full TensorRT without a GPU), VIM-309 (release not supported).
    """
    if requested not in RUNTIMES:
        raise VimDeployError(
            "VIM-202", f"{requested!r} is not a runtime", fix=nearest(requested, RUNTIMES)
        )
    if requested == TENSORRT:
        trt.capabilities()
        cuda_driver.gpu()
        return TENSORRT
    if requested == AUTO:
        reason = _why_not_full_tensorrt()
        if not reason:
            _log.info(
                "runtime: tensorrt (TensorRT %s and a GPU are here; --runtime tensorrt-rtx builds "
                "an engine that needs neither plugin nor GPU)",
                trt.version(),
            )
            return TENSORRT
        if trt_rtx.is_installed():
            _log.info("runtime: tensorrt-rtx (%s)", reason)
    if not trt_rtx.is_installed():
        raise missing_package("tensorrt_rtx", "rtx", "building an engine with TensorRT-RTX")
    return TENSORRT_RTX


def _why_not_full_tensorrt() -> str:
    """Why full TensorRT cannot build here; empty when it can."""
    if not trt.is_installed():
        return "full TensorRT is not installed"
    try:
        version = trt.capabilities().version
    except VimDeployError as error:
        return f"{error.message}: {error.why}"
    try:
        cuda_driver.gpu()
    except VimDeployError as error:
        return f"TensorRT {version} is installed, but builds only on a GPU: {error.why}"
    return ""
