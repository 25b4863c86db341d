"""What this machine can do: one finding a line, each with its fix."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable
from dataclasses import dataclass

import vim_deploy
from vim_deploy import runtimes
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.cuda import runtime as cudart
from vim_deploy.errors import VimDeployError
from vim_deploy.installation import extra_command
from vim_deploy.ops import OPS
from vim_deploy.ops.functions import AskedOps
from vim_deploy.plugin.describe import describe_plugin, find_plugin_library
from vim_deploy.plugin.ort_library import (
    describe_ort_library,
    find_ort_library,
    no_ort_library,
)
from vim_deploy.runtimes.onnxruntime.native_ops import require_fit


@dataclass(frozen=True)
class Finding:
    """One capability: whether it is there, what was found, and what to do if it is wanted."""

    subject: str
    ok: bool
    detail: str
    fix: str = ""


#: What lines are about, in the order in which they stand.
_ORDER = ("export", "checkpoints", "verify", "reports", "engine")


def diagnose() -> list[Finding]:
    """Ask everything, in the order the stages need it. Nothing heavy is imported."""
    # Of what builds, that which needs no GPU comes first.
    rows = sorted(runtimes.RUNTIMES, key=lambda row: row.needs_gpu)
    found = [
        *(
            _asked(row.doctor, row.is_installed(), row.found, row.extra, row.in_its_place)
            for row in rows
        ),
        _package("export: onnxscript", "onnxscript", "torch"),
        _package("checkpoints: safetensors", "safetensors", "torch"),
        _package("checkpoints: hub", "huggingface_hub", "hub"),
        _package("reports: jinja2", "jinja2", "report"),
        _native_ops(),
        _plugin(),
    ]
    return [
        _own(),
        *sorted(found, key=lambda item: _ORDER.index(item.subject.partition(":")[0])),
        _asked("run engines", cudart.is_installed(), _cudart, "trt-run"),
        _gpu(),
        Finding("mamba_ssm, causal_conv1d", True, "not needed: the model code is our own"),
    ]


def _own() -> Finding:
    """This copy and the Python it runs in."""
    detail = f"{vim_deploy.__version__}, Python {platform.python_version()}"
    pythons = _pythons()
    if not pythons or ".".join(platform.python_version_tuple()[:2]) in pythons:
        return Finding("vim-deploy", True, detail)
    return Finding(
        "vim-deploy",
        False,
        f"{detail}; made for Python {pythons[0]} to {pythons[-1]}",
        "packages may have no wheels for this Python, and nothing was tested with it: make an "
        f"environment with python{pythons[-1]}",
    )


def _pythons() -> list[str]:
    """The Pythons that this copy names, such as 3.10; none where it is not installed."""
    try:
        said = importlib.metadata.metadata("vim-deploy").get_all("Classifier") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = [text.removeprefix("Programming Language :: Python :: 3.") for text in said]
    return [f"3.{minor}" for minor in sorted(int(text) for text in found if text.isdigit())]


def _package(subject: str, package: str, extra: str) -> Finding:
    installed = importlib.util.find_spec(package) is not None
    return _asked(subject, installed, lambda: importlib.metadata.version(package), extra)


def _asked(
    subject: str,
    installed: bool,
    ask: Callable[[], str],
    extra: str,
    instead: Callable[[], str] = str,
) -> Finding:
    if not installed:
        detail = "; ".join(filter(None, ("not installed", instead())))
        return Finding(subject, False, detail, extra_command(extra))
    try:
        return Finding(subject, True, ask())
    except VimDeployError as error:
        return Finding(subject, False, f"{error.message}: {error.why}", error.fix)


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


def _native_ops() -> Finding:
    """The library that sessions on the CPU would take; loading it runs its code."""
    subject = "verify: native ops"
    try:
        path = find_ort_library()
        if path is None:
            lack = no_ort_library("cpu")
            return Finding(subject, False, lack.why, f"{lack.fix}; files run without, more slowly")
        info = describe_ort_library(path)
        require_fit(info, "cpu", AskedOps(frozenset(OPS)))
    except VimDeployError as error:
        return Finding(subject, False, f"{error.message}: {error.why}", error.fix)
    return Finding(
        subject,
        True,
        f"{info.path}, version {info.version}, {info.instruction_set}, "
        f"for ONNX Runtime from 1.{info.ort_api} on",
    )
