"""Which runtime ``build-engine`` uses, said out loud."""

from __future__ import annotations

from typing import Final

from vim_deploy.deps import trt, trt_rtx
from vim_deploy.errors import VimDeployError, missing_package, nearest
from vim_deploy.log import get_logger

AUTO: Final = "auto"
TENSORRT: Final = "tensorrt"
TENSORRT_RTX: Final = "tensorrt-rtx"
#: What ``--runtime`` takes.
RUNTIMES: Final = (AUTO, TENSORRT, TENSORRT_RTX)

_log = get_logger(__name__)


def choose_runtime(requested: str = AUTO) -> str:
    """The runtime to build with; what is chosen, and why, goes to the log.

    Raises:
        VimDeployError: VIM-202 (no such runtime, or none this version builds with),
            VIM-301 (the runtime is not installed).
    """
    if requested not in RUNTIMES:
        raise VimDeployError(
            "VIM-202", f"{requested!r} is not a runtime", fix=nearest(requested, RUNTIMES)
        )
    if requested == TENSORRT:
        raise VimDeployError(
            "VIM-202",
            "this version of vim-deploy does not build with full TensorRT",
            why="it builds with TensorRT-RTX only",
            fix="use --runtime tensorrt-rtx, or give the ONNX file to trtexec",
        )
    if not trt_rtx.is_installed():
        raise missing_package("tensorrt_rtx", "rtx", "building an engine with TensorRT-RTX")
    if requested == AUTO:
        _log.info("runtime: tensorrt-rtx (%s)", _reason())
    return TENSORRT_RTX


def _reason() -> str:
    if not trt.is_installed():
        return "full TensorRT is not installed"
    try:
        version = trt.capabilities().version
    except VimDeployError as error:
        return f"{error.message}: {error.why}"
    return f"TensorRT {version} is installed, but this version of vim-deploy builds only with RTX"
