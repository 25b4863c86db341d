"""A plugin library into TensorRT's registry, before an engine is parsed or deserialised."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from vim_deploy.errors import VimDeployError
from vim_deploy.ops import contract
from vim_deploy.plugin.library import PluginInfo, describe_plugin, register_plugins


def load_plugins(module: ModuleType, path: Path) -> PluginInfo:
    """Make the ops of the library at ``path`` known to TensorRT.

    From TensorRT 10 on its registry loads the library; 8.6 gets it opened by us, and the library
    registers itself.

    Raises:
        VimDeployError: VIM-401, VIM-417 (not our library), VIM-903 (made for another generation of
            TensorRT, of another contract, or TensorRT does not take it).
    """
    info = describe_plugin(path)
    old = str(module.__version__).startswith("8.")
    if info.interface != ("V2" if old else "V3"):
        raise VimDeployError(
            "VIM-903",
            f"{path} is made for TensorRT {' and '.join(info.serves)}, this is "
            f"{module.__version__}",
            why=f"it has plugins of the interface {info.interface}",
            fix=f"vim-deploy plugin build --tensorrt {'8.6' if old else '10'}",
        )
    if old:
        register_plugins(path)
    else:
        # The registry answers None both for a library it has already and for one it refuses;
        # what counts is whether the ops are there.
        module.get_plugin_registry().load_library(str(path.resolve()))
    missing = [op for op in info.ops if not is_registered(module, op)]
    if missing:
        raise VimDeployError(
            "VIM-903",
            f"TensorRT {module.__version__} did not take the plugins of {path}",
            why="not registered: " + ", ".join(missing),
            fix="run it again with -v to see TensorRT's log; vim-deploy plugin info describes the "
            "library",
        )
    return info


def is_registered(module: ModuleType, op: str) -> bool:
    """Whether TensorRT finds a plugin for ``op``; plugins of V3 are found by another name."""
    registry = module.get_plugin_registry()
    find = getattr(registry, "get_creator", None) or registry.get_plugin_creator
    return find(op, contract.PLUGIN_VERSION, contract.PLUGIN_NAMESPACE) is not None
