"""Whether a session computes our ops with native kernels, and with which library of them.

ONNX Runtime prefers a registered kernel to the function of the same name in the file, so the file
is the same either way.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.errors import VimDeployError
from vim_deploy.ops import PLUGIN_OPS
from vim_deploy.ops.functions import AskedOps
from vim_deploy.plugin.build_ort import OrtBuildSettings, build_ort_library
from vim_deploy.plugin.ort_library import (
    OrtLibraryInfo,
    build_command,
    describe_ort_library,
    find_ort_library,
    library_name,
    means_none,
    no_ort_library,
    require_provider,
)
from vim_deploy.runtimes.onnxruntime import capability as ort
from vim_deploy.specs import OpsChoice, OpsProvider

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NativeOps:
    """The library to use, or None for the functions in the file, and why not one that is there."""

    library: OrtLibraryInfo | None = None
    why: str = ""

    @property
    def note(self) -> str:
        """What is to be said of a session; empty where nothing is."""
        return unused(self.why) if self.why else ""


def require_choice(choice: OpsChoice, provider: str) -> None:
    """VIM-203 for native ops where there can be none."""
    if choice == "native" and provider not in ("cpu", "cuda"):
        raise VimDeployError(
            "VIM-203",
            f"--ops native has no effect with the provider {provider}",
            why="TensorRT takes plugins, and computes the functions in the file without them",
            fix="leave --ops out, or use --provider cpu or cuda",
        )


def choose_ops(choice: OpsChoice, provider: str, asked: AskedOps) -> NativeOps:
    """Whose kernels compute the ops of a model.

    Args:
        choice: as in ``specs.OpsChoice``; for ``native`` a library for CPUs is built when there is
            none.
        provider: ``cpu``, ``cuda`` or ``tensorrt``, which takes plugins instead.
        asked: what the model asks of our ops; where it has none there is nothing to choose.

    Raises:
        VimDeployError: with ``native`` VIM-203 (provider ``tensorrt``), VIM-301 (an ONNX Runtime
            that is too old), VIM-401, VIM-417, VIM-903 (no library that fits) and the errors of a
            build. With ``auto`` the reason is noted instead.
    """
    require_choice(choice, provider)
    if provider not in ("cpu", "cuda"):
        return NativeOps()
    if choice == "function" or not asked.names:
        return NativeOps()
    kind = _kind(provider)
    try:
        info = _wanted(kind, asked) if choice == "native" else _fitting(kind, asked, build=False)
    except VimDeployError as error:
        if choice == "native":
            raise
        return NativeOps(why=f"{error.message}: {error.why}")
    except OSError as error:
        return NativeOps(why=str(error))
    if info is None:
        _hint(kind)
        return NativeOps()
    _say_once(f"native ops ({info.instruction_set or info.provider}): {info.path}")
    return NativeOps(info)


def require_here(choice: OpsChoice, provider: str) -> None:
    """What a session of any of our models needs, before minutes are spent on making the model.

    Args:
        choice, provider: as for ``choose_ops``; for ``native`` a library is built here already.

    Raises:
        VimDeployError: VIM-202 (no such provider), VIM-301 (ONNX Runtime or the provider is not
            installed); with ``native`` as ``choose_ops``.
    """
    require_choice(choice, provider)
    ort.require_provider(provider)
    if choice == "native":
        # Which ops the model has is not known yet; the library is asked again when it is.
        _wanted(_kind(provider), AskedOps())


def _kind(provider: str) -> OpsProvider:
    return "cpu" if provider == "cpu" else "cuda"


def _wanted(provider: OpsProvider, asked: AskedOps) -> OrtLibraryInfo | None:
    """The library that was asked for by ``native``, whose every lack is an error."""
    try:
        return _fitting(provider, asked, build=True)
    except OSError as error:
        raise _unreadable(provider, error) from error


def _unreadable(provider: OpsProvider, error: OSError) -> VimDeployError:
    return VimDeployError(
        "VIM-401",
        f"the library of native ops ({provider}) cannot be read",
        why=str(error),
        fix=f"give this user the right to read it, or build another: {build_command(provider)}",
    )


def unused(why: str) -> str:
    """The note that native ops are there and do not run."""
    return f"native ops not used, the functions in the file are: {why}"


def _fitting(provider: OpsProvider, asked: AskedOps, *, build: bool) -> OrtLibraryInfo | None:
    """The library, with a look at whether it fits; None when there is none and none is built."""
    path = find_ort_library(provider)
    if path is None:
        if not build:
            return None
        # No library would fit such a file: none is compiled for it.
        asked.require_known(library_name(provider))
        path = _built(provider)
    info = describe_ort_library(path)
    require_fit(info, provider, asked)
    return info


def require_fit(info: OrtLibraryInfo, provider: OpsProvider, asked: AskedOps) -> None:
    """VIM-301 or VIM-903 when sessions of a provider cannot have what is asked from a library."""
    require_provider(info, provider)
    # Where there is no kernel for GPUs, the function runs beside the library's kernels.
    names = asked.names if provider == "cpu" else asked.names & PLUGIN_OPS.keys()
    if not names <= set(info.ops):
        raise VimDeployError(
            "VIM-903",
            f"{info.path} does not fit",
            why=f"it has {', '.join(info.ops)}, the model {', '.join(sorted(names))}",
            fix=build_command(provider),
        )
    # The library follows our own contract, or it could not have been described.
    asked.require_known(info.path)
    ort.require_api(info.ort_api)
    ort.try_library(Path(info.path))


def _built(provider: OpsProvider) -> Path:
    """A library built now, for a CPU; VIM-401 where that is not for us to do."""
    if means_none() or provider != "cpu":
        raise no_ort_library(provider)
    _log.info("no library of native ops was built here of these sources yet; building one")
    return build_ort_library(OrtBuildSettings(), say=lambda line: _log.info("%s", line)).library


def _hint(provider: OpsProvider) -> None:
    """How native ops are had, once; nothing where the user wants none."""
    if means_none():
        return
    lack = no_ort_library(provider)
    _say_once(f"without native ops, which are several times as fast: {lack.why}; {lack.fix}")


@functools.cache
def _say_once(text: str) -> None:
    _log.info("%s", text)
