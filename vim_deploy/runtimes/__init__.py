"""Runtimes: one folder each and one row of ``RUNTIMES``, over which every choice is a loop.

A row names its functions and imports them when they are called: importing this imports no runtime.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vim_deploy.errors import VimDeployError, missing_package, nearest

if TYPE_CHECKING:
    from vim_deploy.artifact import Artifact
    from vim_deploy.runtimes.base import Runner, RunnerOptions

#: For ``--runtime``: the first that can build here.
AUTO = "auto"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """What vim-deploy knows about a runtime; what it names is ``package.module:name``.

    Attributes:
        name: in records, reports and options.
        title: in sentences.
        package: Python package that it needs.
        extra: of vim-deploy, which installs that.
        purpose: what the package is needed for, "running an ONNX model".
        doctor: subject of its line in ``doctor``; the part before the colon orders the lines.
        takes: artifacts it runs: kinds, names of runtimes whose engines it runs, or suffixes.
        capability: module that asks the package: ``load()`` imports it, ``describe()`` says what is
            here, for ``doctor``; of a builder that needs a GPU ``supported_version()``. Empty where
            nothing but the package's version is known.
        open: ``(Artifact, RunnerOptions) -> Runner``; empty where it runs no file.
        builder: a ``building.build.Builder``; empty where it builds nothing.
        needs_gpu: it builds on a GPU only.
        chosen: why ``auto`` takes it where nothing before it lacks, with its version.
        reduced: packages with a part of it, which is of no use here, and what each of them is.
    """

    name: str
    title: str
    package: str
    extra: str
    purpose: str
    doctor: str
    takes: tuple[str, ...] = ()
    capability: str = ""
    open: str = ""
    builder: str = ""
    needs_gpu: bool = False
    chosen: str = ""
    reduced: Mapping[str, str] = field(default_factory=dict)

    def is_installed(self) -> bool:
        """Whether its package can be found; says nothing about whether that loads."""
        return importlib.util.find_spec(self.package) is not None

    def require_installed(self) -> None:
        """VIM-301 when its package cannot be found."""
        if not self.is_installed():
            raise missing_package(self.package, self.extra, self.purpose, self.in_its_place())

    def in_its_place(self) -> str:
        """The first of ``reduced`` that is installed, in words; empty where none is."""
        for package, what in self.reduced.items():
            if importlib.util.find_spec(package) is not None:
                return f"only {package} is here, {what}"
        return ""

    def load(self) -> ModuleType:
        """Its package and all that opens files: the memory of a process before it has a model.

        Raises:
            VimDeployError: VIM-301.
        """
        package: ModuleType = named(f"{self.capability}:load")()
        named(self.open)
        return package

    def found(self) -> str:
        """What is here, in words; VIM-301 and VIM-309 when it is not to be had."""
        if not self.capability:
            # Not before: it reads half of the standard library.
            import importlib.metadata

            return importlib.metadata.version(self.package)
        return str(named(f"{self.capability}:describe")())

    def runner(self, artifact: Artifact, options: RunnerOptions) -> Runner:
        """A file that it takes, opened; see ``open_runner``."""
        opened: Runner = named(self.open)(artifact, options)
        return opened


#: In the order of preference: a file goes to the first that takes it, and ``auto`` to the first
#: that builds here.
RUNTIMES = (
    Runtime(
        name="pytorch",
        title="PyTorch",
        package="torch",
        extra="torch",
        purpose="reading a checkpoint",
        doctor="export: PyTorch",
    ),
    Runtime(
        name="onnxruntime",
        title="ONNX Runtime",
        package="onnxruntime",
        extra="ort",
        purpose="running an ONNX model",
        doctor="verify: ONNX Runtime",
        takes=("onnx",),
        capability="vim_deploy.runtimes.onnxruntime.capability",
        open="vim_deploy.runtimes.onnxruntime.runner:open_runner",
    ),
    Runtime(
        name="openvino",
        title="OpenVINO",
        package="openvino",
        extra="openvino",
        purpose="running an ONNX model in OpenVINO",
        doctor="verify: OpenVINO",
        takes=("onnx",),
        capability="vim_deploy.runtimes.openvino.capability",
        open="vim_deploy.runtimes.openvino.runner:open_runner",
    ),
    Runtime(
        name="tensorrt",
        title="full TensorRT",
        package="tensorrt",
        extra="trt",
        purpose="working with full TensorRT",
        doctor="engine: TensorRT",
        takes=("tensorrt",),
        capability="vim_deploy.runtimes.tensorrt.capability",
        open="vim_deploy.runtimes.tensorrt.runner:open_runner",
        builder="vim_deploy.runtimes.tensorrt.build:BUILDER",
        needs_gpu=True,
        chosen="TensorRT {version} and a GPU are here; --runtime tensorrt-rtx builds an engine "
        "that needs neither plugin nor GPU",
        reduced=dict.fromkeys(
            ("tensorrt_lean", "tensorrt_lean_bindings", "tensorrt_dispatch"),
            "a runtime for version-compatible engines, which builds none",
        ),
    ),
    Runtime(
        name="tensorrt-rtx",
        title="TensorRT-RTX",
        package="tensorrt_rtx",
        extra="rtx",
        purpose="building an engine with TensorRT-RTX",
        doctor="engine: TensorRT-RTX",
        takes=("tensorrt-rtx",),
        capability="vim_deploy.runtimes.tensorrt_rtx.capability",
        open="vim_deploy.runtimes.tensorrt.runner:open_runner",
        builder="vim_deploy.runtimes.tensorrt_rtx.build:BUILDER",
    ),
)


def named(place: str) -> Any:  # noqa: ANN401 - what a row names
    """What ``module:name`` names."""
    module, _, name = place.partition(":")
    return importlib.import_module(module).__dict__[name]


def runtime_named(name: str) -> Runtime:
    """The row of that name; VIM-202 when there is none."""
    names = [row.name for row in RUNTIMES]
    if name not in names:
        raise VimDeployError("VIM-202", f"{name!r} is not a runtime", fix=nearest(name, names))
    return RUNTIMES[names.index(name)]


def onnx_runtimes() -> tuple[str, ...]:
    """Names of the rows that run ONNX files, in the order of preference."""
    return tuple(row.name for row in RUNTIMES if "onnx" in row.takes)


def runtime_for(artifact: Artifact, wanted: str | None = None) -> Runtime:
    """The first that takes the file, or the one of that name.

    Raises:
        VimDeployError: VIM-409 when none takes it; VIM-202 for a name that none has, VIM-203 for a
            runtime that does not take this file.
    """
    found = _first_for(artifact)
    if wanted is None or wanted == found.name:
        return found
    row = runtime_named(wanted)
    kind = artifact.runtime if artifact.is_engine else artifact.kind
    if kind in row.takes:
        return row
    raise VimDeployError(
        "VIM-203",
        f"{row.title} does not run {artifact.name}",
        why=f"it is {'an engine' if artifact.is_engine else 'an ONNX file'}, which runs in "
        f"{found.title}",
        fix=f"leave --runtime {wanted} away",
    )


def _first_for(artifact: Artifact) -> Runtime:
    kind = artifact.runtime if artifact.is_engine else artifact.kind
    for row in RUNTIMES:
        if artifact.path.suffix in row.takes:
            return row
    for row in RUNTIMES:
        if kind in row.takes:
            return row
    raise VimDeployError(
        "VIM-409",
        f"{artifact.name} is a {kind}, which no runtime runs",
        fix="give an ONNX file or an engine; vim-deploy export makes one of a checkpoint",
    )


def open_runner(artifact: Artifact, options: RunnerOptions) -> Runner:
    """The file in the runtime that takes it; close it, or use it as a context manager.

    Raises:
        VimDeployError: VIM-203 for an option that its runtime does not know, or when the runtime
            that was asked for does not take the file, VIM-301, VIM-302 (the
            runtime or its GPU is not here), VIM-409, VIM-413, VIM-415, VIM-9xx as the runtime says.
    """
    return runtime_for(artifact, options.runtime).runner(artifact, options)


def builders() -> tuple[Runtime, ...]:
    """The rows that build engines, in the order in which ``auto`` tries them."""
    return tuple(row for row in RUNTIMES if row.builder)


def choose_runtime(requested: str = AUTO) -> Runtime:
    """The runtime to build with; what ``auto`` takes, and why, goes to the log.

    Raises:
        VimDeployError: VIM-202 (no such runtime), VIM-301 (it is not installed or does not load),
            VIM-302 (it builds on a GPU only, and there is none), VIM-309 (release not supported).
    """
    names = (AUTO, *(row.name for row in builders()))
    if requested not in names:
        raise VimDeployError(
            "VIM-202", f"{requested!r} is not a runtime", fix=nearest(requested, names)
        )
    lacks: list[str] = []
    for row in builders():
        if requested not in (AUTO, row.name):
            continue
        version, lack, reason = _lack(row)
        if lack is None:
            if requested == AUTO:
                why = "; ".join(lacks) or row.chosen.format(version=version)
                _log.info("runtime: %s (%s)", row.name, why)
            return row
        lacks.append(reason)
    assert lack is not None
    raise lack


def _lack(row: Runtime) -> tuple[str, VimDeployError | None, str]:
    """Version of a builder, and what keeps it from building here, as an error and in words."""
    try:
        row.require_installed()
    except VimDeployError as error:
        return "", error, f"{row.title} is not installed"
    if not row.needs_gpu:
        return "", None, ""
    try:
        version = str(named(f"{row.capability}:supported_version")())
    except VimDeployError as error:
        return "", error, f"{error.message}: {error.why}"
    from vim_deploy.cuda import driver

    try:
        driver.gpu()
    except VimDeployError as error:
        reason = f"{row.title} {version} is installed, but builds only on a GPU: {error.why}"
        return version, error, reason
    return version, None, ""
