"""The plugin library in the registry of a real TensorRT: what its steps lead to.

``python -m tests.support.plugin_registry MODULE LIBRARY SCENARIOS`` prints them as JSON. A scenario
is a list of steps, and runs in a process of its own, since a registry belongs to its process. Each
step gives ``answer``, the ``creators`` that are there after it, and the ``messages`` of the library
during it: those in TensorRT's log or, where TensorRT has no logger, on standard error. TensorRT
has none before a runtime was made, and makes none without CUDA, TensorRT-RTX excepted.

Steps: ``dlopen``; ``load`` and ``unload`` by the registry; ``product``, as the tool loads a library
before it builds or opens an engine; ``fields`` of the creators; ``["create", op, fields]``, with
fields as ``[name, NumPy type, values]``; ``refused``, what ``make_runtime`` raised.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vim_deploy.errors import VimDeployError
from vim_deploy.plugin.describe import describe_plugin
from vim_deploy.runtimes.tensorrt.engine import TrtLog
from vim_deploy.runtimes.tensorrt.errors import make_runtime
from vim_deploy.runtimes.tensorrt.plugins import is_registered, load_plugins

_FIELD_TYPES = {"int32": "INT32", "int64": "INT64", "float32": "FLOAT32", "float64": "FLOAT64"}


class _Registry:
    """One process's TensorRT, and the steps."""

    def __init__(self, module: ModuleType, library: str) -> None:
        self._module, self._library = module, library
        self._log = TrtLog(module)
        self.refused: str | None = None
        try:
            otherwise = VimDeployError("VIM-413", "no runtime", fix="-")
            said = self._log.take_errors
            self._runtime = make_runtime(module, self._log.logger, said, "a runtime", otherwise)
        except VimDeployError as error:
            self.refused = error.code
        self._registry = module.get_plugin_registry()
        self._handle: Any = None

    def creators(self) -> list[list[str]]:
        found = [item for item in self._registry.all_creators if item.name.startswith("Vim")]
        return [[item.name, item.plugin_version, item.plugin_namespace] for item in found]

    def take(self, step: Any) -> Any:
        name, *words = [step] if isinstance(step, str) else step
        return getattr(self, f"_{name}")(*words)

    def messages(self) -> list[str]:
        return [text for text in self._log.take_errors() if text.startswith("vim_plugins: ")]

    def _dlopen(self) -> None:
        ctypes.CDLL(self._library, mode=os.RTLD_NOW | os.RTLD_LOCAL)

    def _load(self) -> bool:
        handle = self._registry.load_library(self._library)
        self._handle = handle or self._handle
        return handle is not None

    def _unload(self) -> None:
        self._registry.deregister_library(self._handle)

    def _refused(self) -> str | None:
        return self.refused

    def _product(self) -> list[str]:
        info = describe_plugin(Path(self._library))
        load_plugins(self._module, info)
        return [op for op in info.ops if is_registered(self._module, op)]

    def _creator(self, op: str) -> Any:
        return self._registry.get_creator(op, "1", "")

    def _fields(self) -> dict[str, list[list[Any]]]:
        return {
            op: [[item.name, item.type.name, item.size] for item in self._creator(op).field_names]
            for op, _, _ in self.creators()
        }

    def _create(self, op: str, fields: list[tuple[str, str, list[Any]]]) -> Any:
        """What the plugin says of itself; None where none is made."""
        trt = self._module
        given = [
            trt.PluginField(
                name, np.array(values, kind), getattr(trt.PluginFieldType, _FIELD_TYPES[kind])
            )
            for name, kind, values in fields
        ]
        collection = trt.PluginFieldCollection(given)
        plugin = self._creator(op).create_plugin("node", collection, trt.TensorRTPhase.BUILD)
        if plugin is None:
            return None
        core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
        build = plugin.get_capability_interface(trt.PluginCapabilityType.BUILD)
        runtime = plugin.get_capability_interface(trt.PluginCapabilityType.RUNTIME)
        return {
            "is": [core.plugin_name, core.plugin_version, core.plugin_namespace],
            "outputs": build.num_outputs,
            "timing": build.timing_cache_id,
            "runtime": type(runtime).__name__,
        }


def run(module: str, library: str, steps: list[Any]) -> list[dict[str, Any]]:
    """The steps of a scenario, in this process."""
    registry = _Registry(importlib.import_module(module), library)
    told = []
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        for step in steps:
            start = written.seek(0, os.SEEK_END)
            answer = registry.take(step)
            written.seek(start)
            lines = written.read().decode().splitlines()
            said = [line for line in lines if line.startswith("vim_plugins: ")]
            # Where there is a logger, nothing of ours goes past it.
            assert not said or registry.refused, said
            messages = registry.messages() + said
            told.append({"answer": answer, "creators": registry.creators(), "messages": messages})
    return told


def apart(work: Callable[[], Any]) -> Any:
    """What ``work`` gives, in a copy of this process; how that ended where it gave nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, json.dumps(work()).encode())
            status = 0
        except BaseException as error:
            os.write(writer, json.dumps({"failed": repr(error)}).encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        told = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(told) if told else {"failed": f"the process ended with {status}"}


def main() -> None:
    """Run the scenarios that are given by name."""
    module, library, text = sys.argv[1:]
    told = {
        name: apart(lambda steps=steps: run(module, library, steps))
        for name, steps in json.loads(text).items()
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
