"""Where the sources of the libraries are, and what the native ops are made of."""

from __future__ import annotations

import os
from pathlib import Path

from vim_deploy.errors import VimDeployError

_SOURCE_VARIABLE = "VIM_DEPLOY_PLUGIN_SOURCES"
#: What a wheel carries: the sources of the native ops for CPUs, and no others.
_IN_WHEEL = Path(__file__).with_name("sources")
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
    """The folder ``plugins``: that of VIM_DEPLOY_PLUGIN_SOURCES, beside or in the package.

    Args:
        kind: a key of ``PROJECTS``.

    Raises:
        VimDeployError: VIM-401 when the project of that kind is not there.
    """
    named = os.environ.get(_SOURCE_VARIABLE)
    beside = Path(__file__).resolve().parents[2] / "plugins"
    places = [Path(named)] if named else [beside, _IN_WHEEL]
    for folder in places:
        if (folder / PROJECTS[kind] / "CMakeLists.txt").is_file():
            return folder
    what = "plugin library" if kind == "tensorrt" else f"native ops ({kind})"
    raise VimDeployError(
        "VIM-401",
        f"the sources of the {what} are not in {places[0] / PROJECTS[kind]}",
        why=f"{_SOURCE_VARIABLE} names that folder"
        if named
        else "they are part of the repository, not of an installed package",
        fix=f"unset {_SOURCE_VARIABLE}, or set it to the folder plugins of a checkout"
        if named
        else f"work in a checkout (pip install -e .), or set {_SOURCE_VARIABLE} to its folder "
        "plugins",
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
