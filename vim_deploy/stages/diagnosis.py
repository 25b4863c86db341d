"""What this machine can do: one finding a line, each with its fix."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable
from dataclasses import dataclass

import vim_deploy
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.cuda import runtime as cudart
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin.describe import describe_plugin, find_plugin_library
from vim_deploy.runtimes.onnxruntime import capability as ort
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx


@dataclass(frozen=True)
class Finding:
    """One capability: whether it is there, what was found, and what to do if it is wanted."""

    subject: str
    ok: bool
    detail: str
    fix: str = ""


def diagnose() -> list[Finding]:
    """Ask everything, in the order the stages need it. Nothing heavy is imported."""
    return [
        Finding(
            "vim-deploy", True, f"{vim_deploy.__version__}, Python {platform.python_version()}"
        ),
        _package("export: PyTorch", "torch", "torch", "torch"),
        _package("export: onnxscript", "onnxscript", "onnxscript", "torch"),
        _package("checkpoints: safetensors", "safetensors", "safetensors", "torch"),
        _package("checkpoints: hub", "huggingface_hub", "huggingface_hub", "hub"),
        _asked("verify: ONNX Runtime", ort.is_installed(), _onnxruntime, "vim-deploy[ort]"),
        _package("reports: jinja2", "jinja2", "jinja2", "report"),
        _asked("engine: TensorRT-RTX", trt_rtx.is_installed(), _rtx, "vim-deploy[rtx]"),
        _asked("engine: TensorRT", trt.is_installed(), _tensorrt, "vim-deploy[trt]"),
        _plugin(),
        _asked("run engines", cudart.is_installed(), _cudart, "vim-deploy[trt-run]"),
        _gpu(),
        Finding("mamba_ssm, causal_conv1d", True, "not needed: the model code is our own"),
    ]


def _package(subject: str, module: str, distribution: str, extra: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(subject, False, "not installed", f"pip install 'vim-deploy[{extra}]'")
    return Finding(subject, True, importlib.metadata.version(distribution))


def _asked(subject: str, installed: bool, ask: Callable[[], str], package: str) -> Finding:
    if not installed:
        return Finding(subject, False, "not installed", f"pip install '{package}'")
    try:
        return Finding(subject, True, ask())
    except VimDeployError as error:
        return Finding(subject, False, f"{error.message}: {error.why}", error.fix)


def _onnxruntime() -> str:
    found = ort.capabilities()
    return f"{found.version}, providers {', '.join(found.providers)}"


def _rtx() -> str:
    found = trt_rtx.capabilities()
    return (
        f"{found.version}, builds without a GPU for compute capability "
        f"{', '.join(found.compute_capabilities)}"
    )


def _tensorrt() -> str:
    found = trt.capabilities()
    typing = "strongly typed" if found.strongly_typed else "typed by flags"
    return (
        f"{found.version}, {typing}, plugins {found.plugin_interface}; builds for the GPU at hand"
    )


def _cudart() -> str:
    found = cudart.Cuda().info()
    return f"cuda-bindings; {found.name}, {found.total_bytes >> 20} MiB"


def _gpu() -> Finding:
    try:
        found = cuda_driver.gpu()
    except VimDeployError as error:
        return Finding(
            "GPU",
            False,
            error.why,
            "not needed to export, verify or build with TensorRT-RTX; full TensorRT builds, and "
            "engines run, on a machine with one",
        )
    return Finding("GPU", True, f"{found.name}, compute capability {found.major}.{found.minor}")


def _plugin() -> Finding:
    """The library that a build would take first; loading it runs its code."""
    try:
        info = describe_plugin(find_plugin_library())
    except VimDeployError as error:
        return Finding(
            "engine: plugin library",
            False,
            f"{error.message}: {error.why}",
            "vim-deploy plugin build (build-engine does that itself); TensorRT-RTX needs none",
        )
    return Finding(
        "engine: plugin library",
        True,
        f"{info.path}, for TensorRT {' and '.join(info.serves)}, {', '.join(info.architectures)}",
    )
