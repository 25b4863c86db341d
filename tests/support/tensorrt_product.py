"""The tool's own code on the classes of full TensorRT's bindings, without TensorRT's libraries.

``python -m tests.support.tensorrt_product MODULE`` prints what came of it as JSON. The libraries
are stand-ins (``tensorrt_wheels``), so nothing that a library makes is there.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
import json
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import ml_dtypes
import numpy as np

from tests.support.tensorrt_api import api_of, fake_parameters
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.compiler import Compiler, make_logger, make_monitor
from vim_deploy.runtimes.building.worker import Events
from vim_deploy.runtimes.tensorrt.capability import capabilities_of
from vim_deploy.runtimes.tensorrt.debug import DebugReader
from vim_deploy.runtimes.tensorrt.engine import LoadedEngine, TrtLog
from vim_deploy.runtimes.tensorrt.refit_worker import as_weights


def _listener(module: ModuleType) -> Any:
    """What the tool gives an execution context to hear of debug tensors."""
    given: list[Any] = []
    loaded = SimpleNamespace(
        module=module, ask=lambda _what, _call, listener: given.append(listener)
    )
    context = SimpleNamespace(set_debug_listener=None)
    DebugReader(cast("Any", None), cast("Any", loaded), context)
    return given[0]


def _called_back(module: ModuleType, events: Events) -> dict[str, Any]:
    """By class of TensorRT's, the methods that the tool defines for it, with their parameters."""
    made = [make_logger(module, events, []), TrtLog(module).logger]
    if hasattr(module, "IProgressMonitor"):
        made.append(make_monitor(module, events, threading.Event()))
    if hasattr(module, "IDebugListener"):
        made.append(_listener(module))
    found: dict[str, Any] = {}
    for item in made:
        own = {
            name: len(fake_parameters(method))
            for name, method in vars(type(item)).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }
        found.setdefault(type(item).__bases__[0].__name__, []).append(own)
    return found


def _logged(module: ModuleType, events: Events) -> list[list[str]]:
    """Errors that both loggers keep, of one message a severity."""
    kept: list[str] = []
    forwarder, log = make_logger(module, events, kept), TrtLog(module)
    for name in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
        severity = getattr(module.ILogger.Severity, name)
        forwarder.log(severity, name)
        log.logger.log(severity, name)
    return [kept, log.take_errors()]


def _weights(module: ModuleType) -> dict[str, list[Any] | None]:
    """Type, number and values of weights that are made from arrays; None where there are none."""
    found: dict[str, list[Any] | None] = {}
    for kind in (np.float32, np.float16, ml_dtypes.bfloat16):
        values = np.arange(6).reshape(2, 3).astype(kind)
        made = as_weights(module, values)
        found[values.dtype.name] = made if made is None else [made.dtype.name, made.size]
    return found


def _refusals(module: ModuleType, events: Events) -> dict[str, list[str]]:
    """What the tool says where TensorRT makes no runtime and no builder."""
    job = SimpleNamespace(model_name="m.onnx", title="TensorRT")
    compiler = Compiler(module, cast("Any", job), events, threading.Event())
    found = {}
    for name, call in {
        "engine": lambda: LoadedEngine(module, b"plan", "m.plan", allow_plan_code=True),
        "build": compiler.build,
    }.items():
        try:
            call()
        except VimDeployError as error:
            found[name] = [error.code, error.why]
    return found


def main() -> None:
    """Print all of it."""
    module = importlib.import_module(sys.argv[1])
    events = Events(io.BytesIO())
    capabilities = dataclasses.asdict(capabilities_of(module))
    told = {
        "api": api_of(module),
        "capabilities": {
            name: sorted(value) if isinstance(value, frozenset) else value
            for name, value in capabilities.items()
        },
        "called_back": _called_back(module, events),
        "logged": _logged(module, events),
        "weights": _weights(module),
        "refusals": _refusals(module, events),
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
