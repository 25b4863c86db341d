"""Full TensorRT: whether it can be imported, and its version.

This is the only module that imports ``tensorrt``.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

from vim_deploy.errors import VimDeployError, missing_package

_MODULE = "tensorrt"


@dataclass(frozen=True)
class Capabilities:
    """What the installed TensorRT can do.

    Attributes:
        version: of the library, such as ``10.3.0``.
    """

    version: str


def is_installed() -> bool:
    """Whether the package is there; says nothing about whether its libraries load."""
    return importlib.util.find_spec(_MODULE) is not None


def capabilities() -> Capabilities:
    """Import TensorRT and ask it.

    Raises:
        VimDeployError: VIM-301 when it is not installed or its libraries do not load.
    """
    if not is_installed():
        raise missing_package(_MODULE, "trt", "working with full TensorRT")
    try:
        module = importlib.import_module(_MODULE)
    except (ImportError, OSError) as error:
        raise VimDeployError(
            "VIM-301",
            "TensorRT is installed, but does not load",
            why=f"{type(error).__name__}: {error}",
            fix="install TensorRT again so that it fits this machine's CUDA version",
        ) from error
    return Capabilities(version=str(module.__version__))
