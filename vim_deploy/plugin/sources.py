"""Where the sources of the libraries are, and what the native ops are made of."""

from __future__ import annotations

import os
from pathlib import Path

from vim_deploy import installation
from vim_deploy.errors import VimDeployError

_SOURCE_VARIABLE = "VIM_DEPLOY_PLUGIN_SOURCES"
#: The CMake project of each kind of library, below the sources.
PROJECTS = {"tensorrt": "", "cpu": "cpu", "cuda": ""}
#: Sources of the native ops, by provider, below the folder of the sources.
_ORT_PATTERNS = {
    "cpu": (
        *("cpu/**/*", "onnxruntime/**/*", "include/**/*"),
        *("kernels/*_validate.cpp", "kernels/checks.h", "adapters/op_model.*"),
    ),
    "cuda": (
        *("CMakeLists.txt", "cmake/**/*", "onnxruntime/**/*", "include/**/*", "kernels/*"),
        "adapters/op_model.*",
    ),
}
#: Folders among sources that no build needs.
_LEFT_OUT = {"tests", "wheel", "bench", "build"}


def plugin_sources(kind: str = "tensorrt") -> Path:
    """The folder ``plugins``: the one that VIM_DEPLOY_PLUGIN_SOURCES names, else our own.

    Args:
        kind: a key of ``PROJECTS``.

    Raises:
        VimDeployError: VIM-401 when the project of that kind is not there.
    """
    named = os.environ.get(_SOURCE_VARIABLE)
    folder = Path(named) if named else installation.SHIPPED / "plugins"
    if (folder / PROJECTS[kind] / "CMakeLists.txt").is_file():
        return folder
    what = "plugin library" if kind == "tensorrt" else f"native ops ({kind})"
    raise VimDeployError(
        "VIM-401",
        f"the sources of the {what} are not in {folder / PROJECTS[kind]}",
        why=f"{_SOURCE_VARIABLE} names that folder"
        if named
        else "this installation of vim-deploy is not complete",
        fix=f"unset {_SOURCE_VARIABLE}, or set it to the folder plugins of a checkout"
        if named
        else "install vim-deploy again",
    )


def ort_source_files(sources: Path, provider: str) -> list[Path]:
    """The files that the native ops for a provider are compiled from."""
    found = {
        path
        for pattern in _ORT_PATTERNS[provider]
        for path in sources.glob(pattern)
        if path.is_file() and not _LEFT_OUT & set(path.relative_to(sources).parts)
    }
    return sorted(found)
