"""ONNX Runtime: the only module that imports it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError, missing_package

_MODULE = "onnxruntime"
#: Severity 3: errors only. Warnings speak about optimisations a user cannot act on.
_LOG_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Capabilities:
    """Version and execution providers of the installed ONNX Runtime."""

    version: str
    providers: tuple[str, ...]


def is_installed() -> bool:
    """Whether the package can be found; says nothing about whether it loads."""
    return importlib.util.find_spec(_MODULE) is not None


def _load() -> Any:  # noqa: ANN401 - an untyped module
    if not is_installed():
        raise missing_package(_MODULE, "ort", "running an ONNX model")
    import onnxruntime

    return onnxruntime


def capabilities() -> Capabilities:
    """Ask the installed ONNX Runtime; VIM-301 when there is none."""
    runtime = _load()
    return Capabilities(str(runtime.__version__), tuple(runtime.get_available_providers()))


def create_session(model: Path | bytes, providers: tuple[str, ...], threads: int) -> Any:  # noqa: ANN401
    """An inference session.

    Args:
        model: ONNX file, or a serialised model without external data.
        providers: execution providers by ONNX Runtime's names, in order of preference.
        threads: threads inside one operator; 0 for the runtime's own choice.

    Raises:
        VimDeployError: VIM-301 (not installed), VIM-409 (the file does not load).
    """
    runtime = _load()
    options = runtime.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.intra_op_num_threads = threads
    # Every error class of ONNX Runtime derives from RuntimeError or Exception by build; the file
    # was parsed before, so whatever it says concerns the model.
    try:
        source = model if isinstance(model, bytes) else str(model)
        return runtime.InferenceSession(source, options, providers=list(providers))
    except Exception as error:
        name = model if isinstance(model, Path) else "the model"
        raise VimDeployError(
            "VIM-409",
            f"ONNX Runtime {runtime.__version__} does not load {name}",
            why=str(error).strip().splitlines()[0],
            fix="export the model again with --opset 18",
        ) from error
