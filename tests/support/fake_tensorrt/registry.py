"""The plugin registry, and libraries it can load.

A library is a JSON file, ``{"interface": "V3", "ops": [...]}``, made by ``write_library``.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.support.fake_tensorrt.api import Base, only

_TEN, _ELEVEN = (10, 0), (11, 0)
OPS = ("VimSelectiveScan", "VimBiCausalConv", "VimBiSelectiveScan")


def write_library(path: Path, interface: str = "V3", ops: tuple[str, ...] = OPS) -> Path:
    """A file that the fake registry takes for a plugin library."""
    path.write_text(json.dumps({"interface": interface, "ops": list(ops)}))
    return path


class IPluginRegistry(Base):
    """What is registered; ``load_library`` gives None for everything that goes wrong."""

    def load_library(self, plugin_path: str) -> Any:
        try:
            library = json.loads(Path(plugin_path).read_text())
        except (OSError, ValueError):
            return None
        wanted = "V2" if self.fake.release < _TEN else "V3"
        if library["interface"] != wanted or set(library["ops"]) & set(self.fake.creators):
            return None
        self.fake.creators.update(dict.fromkeys(library["ops"], plugin_path))
        return object()

    @only(until=_ELEVEN)
    def get_plugin_creator(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        # In 10, this finds creators of the old interface only.
        if self.fake.release >= _TEN:
            return None
        return self._find(type, version, plugin_namespace)

    @only(since=_TEN)
    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        return self._find(type, version, plugin_namespace)

    def _find(self, name: str, version: str, namespace: str) -> Any:
        known = name in self.fake.creators and version == "1" and namespace == ""
        return object() if known else None


def functions_of(module: ModuleType) -> dict[str, Any]:
    """The module's function around plugins; one registry for each module."""
    registry = module.IPluginRegistry()
    return {"get_plugin_registry": lambda: registry}


CLASSES = (IPluginRegistry,)
