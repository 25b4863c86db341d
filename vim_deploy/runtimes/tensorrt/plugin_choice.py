"""Which plugin library a build takes: the one named, one built before, or a new one.

It must be of the generation of the TensorRT in use (8.6 takes no library for 10 or 11, and the
other way round), follow this version's contract, and have code for the GPU.
"""

from __future__ import annotations

import os
from pathlib import Path

from vim_deploy.cuda.driver import Gpu
from vim_deploy.errors import VimDeployError
from vim_deploy.log import get_logger
from vim_deploy.plugin.build import PluginSettings, build_plugin
from vim_deploy.plugin.library import (
    LIBRARY_NAME,
    LIBRARY_VARIABLE,
    PluginInfo,
    cache_folder,
    describe_plugin,
    find_plugin_library,
)
from vim_deploy.runtimes.tensorrt.capability import Capabilities
from vim_deploy.runtimes.tensorrt.options import AUTO

_log = get_logger(__name__)


def choose_plugin(
    choice: str, capabilities: Capabilities, gpu: Gpu, ops: frozenset[str]
) -> PluginInfo:
    """The library to build with.

    Args:
        choice: ``auto`` or a path.
        ops: op types of the graph that must become plugins.

    Raises:
        VimDeployError: VIM-401 (no such file), VIM-417 (not our library), VIM-903 (another
            contract, TensorRT, GPU or without one of the ops); for ``auto`` also what
            ``build_plugin`` raises when none is there and none can be built.
    """
    if choice != AUTO or os.environ.get(LIBRARY_VARIABLE):
        info = describe_plugin(find_plugin_library(None if choice == AUTO else Path(choice)))
        why = why_unfit(info, capabilities, gpu, ops)
        if why:
            raise VimDeployError(
                "VIM-903",
                f"{info.path} does not fit this build",
                why=why,
                fix=f"vim-deploy plugin build --tensorrt {capabilities.generation}",
            )
        return info
    for path in _built_here():
        try:
            info = describe_plugin(path)
        except VimDeployError as error:
            _log.debug("%s left aside: %s", path, error.message)
            continue
        if not why_unfit(info, capabilities, gpu, ops):
            return info
    _log.info("no fitting plugin library was built here yet; building one")
    settings = PluginSettings(tensorrt=capabilities.generation)
    return build_plugin(settings, say=lambda line: _log.info("%s", line)).info


def _built_here() -> list[Path]:
    """Libraries in the cache, newest first."""
    found = cache_folder().glob(f"*/{LIBRARY_NAME}")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def why_unfit(info: PluginInfo, capabilities: Capabilities, gpu: Gpu, ops: frozenset[str]) -> str:
    """Why a library cannot be used here; empty when it can."""
    if capabilities.generation not in info.serves:
        return (
            f"it is for TensorRT {' and '.join(info.serves)} (interface {info.interface}), the "
            f"TensorRT in use is {capabilities.version}"
        )
    if not info.runs_on(gpu.major, gpu.minor):
        return (
            f"it has code for {', '.join(info.architectures)}, the GPU here ({gpu.name}) is "
            f"sm_{gpu.architecture}"
        )
    missing = sorted(ops - set(info.ops))
    if missing:
        return f"the graph needs {', '.join(missing)}, it has {', '.join(info.ops)}"
    return ""
