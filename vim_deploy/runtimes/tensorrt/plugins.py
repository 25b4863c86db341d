"""Plugin libraries and full TensorRT: which one a build takes, and how TensorRT gets its ops.

A library must be of the generation of the TensorRT in use (8.6 takes no library for 10 or 11, and
the other way round), follow this version's contract, and have code for the GPU.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import ModuleType

from vim_deploy.cuda.driver import Gpu
from vim_deploy.errors import VimDeployError
from vim_deploy.ops import contract
from vim_deploy.plugin.build import PluginSettings, build_plugin
from vim_deploy.plugin.describe import (
    LIBRARY_VARIABLE,
    PluginInfo,
    built_libraries,
    describe_plugin,
    find_plugin_library,
)
from vim_deploy.runtimes import AUTO
from vim_deploy.runtimes.tensorrt.capability import Capabilities, generation_of

_log = logging.getLogger(__name__)


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
    for path in built_libraries():
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


def load_plugins(module: ModuleType, info: PluginInfo) -> None:
    """Make the ops of a library known to TensorRT, before it parses or deserialises.

    One way for all releases: TensorRT's own ``load_library``, which 8.6 has as 10 and 11 have it
    (NVIDIA/TensorRT v8.6.1, python/src/infer/pyPlugin.cpp; its C++ side asks a library for
    ``getPluginCreators`` and ``setLoggerFinder``, from 10 on for ``getCreators``, and ours exports
    those of its generation). A library that was opened before has registered itself; it hands
    over when TensorRT loads it, so the ops are there once and TensorRT's logger is known to it.
    The answer is None both for a library that TensorRT has already and for one it refuses; what
    counts is whether the ops are there.

    Raises:
        VimDeployError: VIM-903 (made for another generation, or TensorRT does not take it).
    """
    version = str(module.__version__)
    generation = generation_of(version)
    if generation not in info.serves:
        raise VimDeployError(
            "VIM-903",
            f"{info.path} is made for TensorRT {' and '.join(info.serves)}, this is {version}",
            why=f"it has plugins of the interface {info.interface}",
            fix=f"vim-deploy plugin build --tensorrt {generation}",
        )
    module.get_plugin_registry().load_library(str(Path(info.path).resolve()))
    missing = [op for op in info.ops if not is_registered(module, op)]
    if missing:
        raise VimDeployError(
            "VIM-903",
            f"TensorRT {version} did not take the plugins of {info.path}",
            why="not registered: " + ", ".join(missing),
            fix="run it again with -v to see TensorRT's log; vim-deploy plugin info describes the "
            "library",
        )


def is_registered(module: ModuleType, op: str) -> bool:
    """Whether TensorRT finds a plugin for ``op``; plugins of V3 are found by another name."""
    registry = module.get_plugin_registry()
    find = getattr(registry, "get_creator", None) or registry.get_plugin_creator
    return find(op, contract.PLUGIN_VERSION, contract.PLUGIN_NAMESPACE) is not None
