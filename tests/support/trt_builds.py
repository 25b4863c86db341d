"""Engine builds on the fake TensorRT: machine, plugin library, models, the worker in process."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support import tiny_onnx
from tests.support.fake_tensorrt import personality
from tests.support.fake_tensorrt.registry import OPS, write_library
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.cuda.driver import Gpu
from vim_deploy.files import sha256_of
from vim_deploy.ops import contract
from vim_deploy.plugin.describe import PluginInfo
from vim_deploy.runtimes.building import build as building
from vim_deploy.runtimes.building.request import Job, decoded
from vim_deploy.runtimes.building.worker import CancelledError, Events
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt import plugins

H200 = Gpu("NVIDIA H200", 9, 0, 132)
VERSIONS = ("8.6", "10.3", "10.14", "11")


@dataclass
class Machine:
    """A machine with one TensorRT and one GPU.

    Attributes:
        module: the fake TensorRT; its ``fake`` holds the calls.
        library: a plugin library that fits it.
        jobs: of the builds that were run.
        events: what the workers said, without steps.
    """

    module: ModuleType
    library: Path
    jobs: list[Mapping[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def fake(self) -> Any:
        """State of the fake."""
        return self.module.fake

    def run_worker(self, job: Job, progress: Callable[[Any], None] | None = None) -> dict[str, Any]:
        """In place of ``process.run_worker``: the worker's build in this process."""
        self.jobs.append(json.loads(job.encoded()))
        stream = io.BytesIO()
        worker = importlib.import_module(job.worker)
        try:
            facts = worker.build(decoded(job.encoded(), type(job)), Events(stream), Event())
            return json.loads(json.dumps(facts))
        except CancelledError:
            raise KeyboardInterrupt from None
        finally:
            self.events += [json.loads(line) for line in stream.getvalue().splitlines()]

    def warnings(self) -> list[str]:
        """Texts of the warnings that the workers sent."""
        return [
            event["message"]
            for event in self.events
            if event["event"] == "log" and event["severity"] == "warning"
        ]


def describe_fake(path: Path) -> PluginInfo:
    """In place of ``describe_plugin``: what a library of the fake says of itself."""
    said = json.loads(path.read_text())
    return PluginInfo(
        path=str(path),
        sha256=sha256_of(path),
        version="1.0",
        contract_version=contract.CONTRACT_VERSION,
        plugin_version=contract.PLUGIN_VERSION,
        plugin_namespace=contract.PLUGIN_NAMESPACE,
        ops=tuple(said["ops"]),
        interface=said["interface"],
        tensorrt="8.6.1" if said["interface"] == "V2" else "10.14.1",
        cuda="13.0",
        architectures=("sm_80", "sm_90"),
        kernels="0" * 64,
    )


def make_machine(monkeypatch: Any, folder: Path, version: str, **behaviour: Any) -> Machine:
    """Put a fake TensorRT, a GPU and a fitting plugin library (named by the variable) in place."""
    module = personality(version, **behaviour)
    interface = "V2" if version == "8.6" else "V3"
    machine = Machine(module, write_library(folder / "libvim_plugins.so", interface, OPS))
    monkeypatch.setattr(trt, "load", lambda: module)
    monkeypatch.setattr(cuda_driver, "gpu", lambda: H200)
    monkeypatch.setattr(plugins, "describe_plugin", describe_fake)
    monkeypatch.setattr(building, "run_worker", machine.run_worker)
    monkeypatch.setenv("VIM_DEPLOY_PLUGIN", str(machine.library))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return machine


def half_scan_blocks(layers: int = 2) -> onnx.ModelProto:
    """``tiny_onnx.scan_blocks`` with float16 products, scans and residual stream; float32 at both
    ends and in the scans' parameters."""
    model = tiny_onnx.scan_blocks(layers)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.name.endswith(("dt_w", "bc_w")):
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in graph.node:
        names = ["tokens_half" if name == "tokens" else name for name in node.input]
        del node.input[:]
        node.input.extend(names)
    head = graph.node[-1]
    head.output[0] = "features_half"
    first = helper.make_node(
        "Cast", ["tokens"], ["tokens_half"], name="cast_in", to=TensorProto.FLOAT16
    )
    last = helper.make_node(
        "Cast", ["features_half"], ["features"], name="cast_out", to=TensorProto.FLOAT
    )
    nodes = [first, *graph.node, last]
    del graph.node[:]
    graph.node.extend(nodes)
    _half_function(model)
    return model


def _half_function(model: onnx.ModelProto) -> None:
    """Let the scan's function take and give float16, and compute in float32."""
    (function,) = model.functions
    names = {"u": "u32", "dt": "dt32", "bc": "bc32"}
    for node in function.node:
        inputs = [names.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        if node.output[0] == "y":
            node.output[0] = "y32"
    casts = [
        helper.make_node("Cast", [name], [wide], name=f"cast_{name}", to=TensorProto.FLOAT)
        for name, wide in names.items()
    ]
    last = helper.make_node("Cast", ["y32"], ["y"], name="cast_y", to=TensorProto.FLOAT16)
    nodes = [*casts, *function.node, last]
    del function.node[:]
    function.node.extend(nodes)


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model; its path."""
    onnx.save(model, path)
    return path
