"""ONNX Runtime: the only module that imports it.

ONNX Runtime replaces an execution provider that does not start by the CPU, with no more than a log
line. ``create_session`` looks at what the session really got, and refuses that.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vim_deploy.errors import VimDeployError, import_package, nearest, says_no_memory
from vim_deploy.installation import extra_command, pip_command
from vim_deploy.runtimes import runtime_named
from vim_deploy.text import storable

_log = logging.getLogger(__name__)

#: Severity 3: errors only. Warnings speak about optimisations a user cannot act on.
_LOG_ERRORS_ONLY = 3
_LOG_FATAL = 4
#: From 1.29 on ONNX Runtime's Linux builds send names of models and hashes of weights to Microsoft,
#: unless this variable is set: https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md.
#: Users who want that set it to 0 themselves.
NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")

#: Entry of a session that native ops read when they are registered.
_OPS_THREADS = "vim_deploy.intra_op_num_threads"

#: Short name -> execution provider. The first one runs what it can; what TensorRT leaves, CUDA
#: takes before the CPU does.
PROVIDERS = MappingProxyType(
    {
        "cpu": ("CPUExecutionProvider",),
        "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
        "tensorrt": (
            "TensorrtExecutionProvider",
            "CUDAExecutionProvider",
            "CPUExecutionProvider",
        ),
    }
)


@dataclass(frozen=True)
class Capabilities:
    """Version and execution providers of the installed ONNX Runtime."""

    version: str
    providers: tuple[str, ...]


@dataclass(frozen=True)
class SessionSettings:
    """How a session is made.

    Attributes:
        provider: ``cpu``, ``cuda`` or ``tensorrt``.
        options: of that provider, by ONNX Runtime's names.
        threads: threads inside one operator on the CPU; 0 for the runtime's own choice.
        library: of native ops, which ``try_library`` has taken.
        entries: of the session, by ONNX Runtime's names.
    """

    provider: str = "cpu"
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 0
    library: Path | None = None
    entries: Mapping[str, str] = field(default_factory=dict)


def load() -> Any:  # noqa: ANN401 - an untyped module
    """The module ``onnxruntime``, which sends nothing home; VIM-301 when it is not to be had."""
    runtime_named("onnxruntime").require_installed()
    # Only before the import: it reads the variable once, and starts what sends.
    os.environ.setdefault(*NO_TELEMETRY)
    # Releases before 1.19 do not load with NumPy 2.
    return import_package("onnxruntime", "ONNX Runtime", "-U", "onnxruntime")


def histogram_collector(method: str, *, bins: int, levels: int, percentile: float) -> Any:  # noqa: ANN401
    """A ``HistogramCollector`` of ``onnxruntime.quantization``, for ranges around zero.

    Args:
        method: ``entropy`` or ``percentile``.
        bins: of a tensor's first histogram.
        levels: bins that ``entropy`` makes of those of a candidate.
        percentile: in percent, what ``percentile`` keeps.

    Raises:
        VimDeployError: VIM-301 when it is not to be had.
    """
    load()
    known = {*sys.path}
    tools: Any = import_package(
        "onnxruntime.quantization.calibrate", "ONNX Runtime", "-U", "onnxruntime"
    )
    # It adds a folder whose modules have names such as "benchmark" and "float16".
    for folder in [folder for folder in sys.path if folder not in known]:
        if "onnxruntime" in Path(folder).parts:
            sys.path.remove(folder)
    # It prints what it is at, and standard output is for results.
    tools.print = _print_to_log
    return tools.HistogramCollector(method, True, bins, levels, percentile, None)


def _print_to_log(*words: object) -> None:
    _log.debug("%s", " ".join(map(str, words)))


def capabilities() -> Capabilities:
    """Ask the installed ONNX Runtime; VIM-301 when there is none."""
    runtime = load()
    return Capabilities(str(runtime.__version__), tuple(runtime.get_available_providers()))


def describe() -> str:
    """Version and providers in words; VIM-301 when there is none."""
    found = capabilities()
    return f"{found.version}, providers {', '.join(found.providers)}"


def require_provider(provider: str) -> tuple[str, ...]:
    """Execution providers of a short name, in order of preference.

    Raises:
        VimDeployError: VIM-202 (no such name), VIM-301 (the installed package lacks it; the error
            lists those it has).
    """
    if provider not in PROVIDERS:
        raise VimDeployError(
            "VIM-202",
            f"{provider!r} is not an execution provider",
            fix=nearest(provider, PROVIDERS),
        )
    found = capabilities()
    wanted = PROVIDERS[provider]
    if wanted[0] not in found.providers:
        raise VimDeployError(
            "VIM-301",
            f"the installed ONNX Runtime has no {wanted[0]}",
            why=f"version {found.version} has " + ", ".join(found.providers),
            fix=f"{pip_command('uninstall', 'onnxruntime')}, then {extra_command('ort-gpu')}: the "
            "two packages install the same module",
        )
    return tuple(name for name in wanted if name in found.providers)


def api_of(version: str) -> int:
    """Version of the C API of a release of ONNX Runtime: 17 of 1.17.3; 0 of what is no version."""
    found = re.match(r"1\.(\d+)", version)
    return 0 if found is None else int(found[1])


def require_api(wanted: int) -> None:
    """VIM-301 for an ONNX Runtime whose C API is older than a library of native ops needs."""
    version = capabilities().version
    if api_of(version) < wanted:
        raise VimDeployError(
            "VIM-301",
            f"ONNX Runtime {version} takes no native ops",
            why=f"they need its C API {wanted}, which came with 1.{wanted}",
            fix=f"{pip_command('install', '-U', 'onnxruntime')}, or use --ops function",
        )


def try_library(path: Path) -> None:
    """Whether ONNX Runtime takes a library of ops; loads it. VIM-903 with its words when not."""
    runtime = load()
    try:
        runtime.SessionOptions().register_custom_ops_library(str(path.resolve()))
    # Every error class of ONNX Runtime derives from RuntimeError or Exception by build.
    except Exception as error:
        raise VimDeployError(
            "VIM-903",
            f"ONNX Runtime {runtime.__version__} does not take {path}",
            why=str(error).strip().splitlines()[0],
            fix="build it again: vim-deploy plugin build --target onnxruntime",
        ) from error


def create_session(model: Path | bytes, settings: SessionSettings, name: str) -> Any:  # noqa: ANN401
    """An inference session on the provider that was asked for, and on no other.

    Args:
        model: ONNX file, or a serialised model.
        settings: provider and its options.
        name: of the model, for messages.

    Raises:
        VimDeployError: VIM-301 (ONNX Runtime or the provider is not installed), VIM-302 (the
            provider is there, but does not start on this machine), VIM-409 (the model does not
            load).
    """
    providers = require_provider(settings.provider)
    runtime = load()
    options = runtime.SessionOptions()
    # On a CPU the exception says all; the log would send names of the file to the terminal as is.
    options.log_severity_level = _LOG_FATAL if settings.provider == "cpu" else _LOG_ERRORS_ONLY
    options.intra_op_num_threads = settings.threads
    for name_and_value in settings.entries.items():
        options.add_session_config_entry(*name_and_value)
    if settings.library is not None:
        if settings.threads:
            # ONNX Runtime does not tell ops how many threads there are (plugins/onnxruntime).
            options.add_session_config_entry(_OPS_THREADS, str(settings.threads))
        options.register_custom_ops_library(str(settings.library.resolve()))
    # Every error class of ONNX Runtime derives from RuntimeError or Exception by build; the file
    # was parsed before, so whatever it says concerns the model.
    try:
        session = runtime.InferenceSession(
            _source(model),
            options,
            providers=[(providers[0], dict(settings.options)), *providers[1:]],
            enable_fallback=0,
        )
    except Exception as error:
        raise VimDeployError(
            "VIM-409",
            f"ONNX Runtime {runtime.__version__} does not load {name} with {providers[0]}",
            why=str(error).strip().splitlines()[0],
            fix="export the model again with --opset 18"
            if settings.provider == "cpu"
            else "the log above has the reason; --provider cpu runs the file anywhere",
        ) from error
    _require_started(providers[0], session.get_providers())
    return session


def _source(model: Path | bytes) -> str | bytes:
    """What ONNX Runtime opens: it takes no path with bytes that are no UTF-8.

    Models of such a name have no weights beside them (``artifact.onnx_file``).
    """
    if isinstance(model, bytes):
        return model
    return str(model) if storable(str(model)) == str(model) else model.read_bytes()


def run_session(session: Any, outputs: list[str], inputs: dict[str, Any], name: str) -> list[Any]:  # noqa: ANN401
    """What a session gives.

    Raises:
        VimDeployError: VIM-409 when the model fails on inputs of the shape it asks for. A lack of
            memory is not the model's fault: that error comes as it is.
    """
    try:
        values: list[Any] = session.run(outputs, inputs)
    # Every error class of ONNX Runtime derives from RuntimeError or Exception by build.
    except Exception as error:
        if says_no_memory(error):
            raise
        raise VimDeployError(
            "VIM-409",
            f"{name} fails in ONNX Runtime",
            why=str(error).strip().splitlines()[0],
            fix="export the model again; what the file asks of its operators cannot be done",
        ) from error
    return values


def _require_started(wanted: str, got: list[str]) -> None:
    """VIM-302 when the session runs somewhere else than asked."""
    if got and got[0] == wanted:
        return
    raise VimDeployError(
        "VIM-302",
        f"ONNX Runtime could not start {wanted}",
        why="the session would run on " + (", ".join(got) or "nothing") + " instead",
        fix="the log above names what is missing: a GPU and its driver, CUDA, cuDNN or TensorRT "
        "of the versions this ONNX Runtime was built for; --provider cpu runs the file anywhere",
    )
