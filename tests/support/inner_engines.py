"""Engines with inner tensors: built by the fake's builder, computed by its runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import onnx
import pytest
from onnx import helper

from tests.support.builds import build_engine_trt
from tests.support.fake_cudart import FakeCudart
from tests.support.fake_tensorrt.onnx_engine import KIND, use_onnx_engines
from tests.support.fake_tensorrt.plan import decode_plan
from tests.support.fake_tensorrt.runtime import plan_bytes, runtime_module
from tests.support.trt_builds import make_machine
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import EngineRecord, FileIdentity, read_record, record_path
from vim_deploy.codec import encode
from vim_deploy.files import write_json
from vim_deploy.onnx_graph import element_types
from vim_deploy.runtimes.building.graph import graph_of_precision, marked_model
from vim_deploy.runtimes.building.request import TrtOptions
from vim_deploy.runtimes.tensorrt import capability as trt

INNER = TrtOptions(inner_tensors=True, plugin="none")
BATCHES = ProfileOptions(min_batch=1, opt_batch=2, max_batch=4)


class Built(NamedTuple):
    """An engine on disk that runs, its record, what was marked when it was built, the runtime."""

    plan: Path
    record: EngineRecord
    marked: list[str]
    module: ModuleType


def build(
    monkeypatch: pytest.MonkeyPatch,
    gpu: FakeCudart,
    folder: Path,
    source: Path,
    version: str,
    *,
    precision: str = "",
    options: TrtOptions = INNER,
    fault: Callable[[onnx.ModelProto], None] = lambda model: None,
    **behaviour: Any,
) -> Built:
    """Build with the fake's builder; then the plan is one that the fake's runtime computes."""
    make_machine(monkeypatch, folder, version)
    plan = folder / "model.plan"
    record = build_engine_trt(source, plan, options=options, precision=precision, profiles=BATCHES)
    assert read_record(plan) == record
    made = decode_plan(plan.read_bytes())
    outputs = [tensor["name"] for tensor in made["outputs"]]
    graph = onnx.load(source)
    fault(graph)
    wrong = folder / "computed.onnx"
    onnx.save(graph, wrong)
    typed = graph_of_precision(Artifact.open(wrong), precision)
    model = marked_model(typed, version != "8.6").model
    types = element_types(model)
    model.graph.output.extend(
        helper.make_tensor_value_info(name, types[name], None) for name in made["debug"]
    )
    onnx.save(model, wrong)
    content = {"kind": KIND, "model": str(wrong), "outputs": outputs, "debug": made["debug"]}
    plan.write_bytes(
        plan_bytes(record.runtime_version, profiles=((1, 2, 4),), **content, **behaviour)
    )
    record = dataclasses.replace(record, plan=FileIdentity.of(plan))
    write_json(record_path(plan), encode(record))
    module = runtime_module(version, gpu)
    use_onnx_engines(module.state)
    monkeypatch.setattr(trt, "load", lambda: module)
    return Built(plan, record, made["debug"], module)
