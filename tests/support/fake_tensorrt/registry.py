"""The plugin registry, and libraries it can load.

A library is a JSON file, ``{"interface": "V3", "ops": [...]}``, made by ``write_library``.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.support.fake_tensorrt.api import Base, attribute, only

_TEN, _ELEVEN = (10, 0), (11, 0)
OPS = ("VimSelectiveScan", "VimBiCausalConv", "VimBiSelectiveScan")


def write_library(path: Path, interface: str = "V3", ops: tuple[str, ...] = OPS) -> Path:
    """A file that the fake registry takes for a plugin library."""
    path.write_text(json.dumps({"interface": interface, "ops": list(ops)}))
    return path


class Creator:
    """A registered creator."""

    def __init__(self, name: str) -> None:
        self.name, self.plugin_version, self.plugin_namespace = name, "1", ""


class IPluginRegistry(Base):
    """What is registered; ``load_library`` gives None for everything that goes wrong."""

    parent_search_enabled = attribute(True)

    def load_library(self, path: str) -> Any:
        try:
            library = json.loads(Path(path).read_text())
        except (OSError, ValueError):
            return None
        wanted = "V2" if self.fake.release < _TEN else "V3"
        if library["interface"] != wanted or set(library["ops"]) & set(self.fake.creators):
            return None
        self.fake.creators.update(dict.fromkeys(library["ops"], path))
        return object()

    def deregister_library(self, handle: Any) -> None:
        self.fake.creators.clear()

    @only(until=_ELEVEN)
    def get_plugin_creator(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        # In 10, this finds creators of the old interface only.
        if self.fake.release >= _TEN:
            return None
        return self._find(type, version, plugin_namespace)

    @property
    def plugin_creator_list(self) -> list[Creator]:
        if self.fake.release >= _TEN:
            return []
        return [Creator(name) for name in self.fake.creators]

    plugin_creator_list.fget.span = ((0, 0), _ELEVEN)  # type: ignore[attr-defined]

    @only(since=_TEN)
    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        return self._find(type, version, plugin_namespace)

    @property
    def all_creators(self) -> list[Creator]:
        return [Creator(name) for name in self.fake.creators]

    all_creators.fget.span = (_TEN, (99, 0))  # type: ignore[attr-defined]

    def _find(self, name: str, version: str, namespace: str) -> Creator | None:
        known = name in self.fake.creators and version == "1" and namespace == ""
        return Creator(name) if known else None


def functions_of(module: ModuleType) -> dict[str, Any]:
    """The module's functions around plugins; one registry for each module."""
    registry = module.IPluginRegistry()

    def get_plugin_registry() -> Any:
        return registry

    def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
        module.fake.note("init_libnvinfer_plugins", namespace)
        return True

    return {
        "get_plugin_registry": get_plugin_registry,
        "init_libnvinfer_plugins": init_libnvinfer_plugins,
    }


CLASSES = (IPluginRegistry,)
