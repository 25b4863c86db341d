"""The process that exchanges an engine's weights, started by ``refit``.

The job names the plan, the ONNX file with the new weights (lowered as the engine's graph was), the
plugin library and the output. Weights go by the names of the ONNX initialisers. The engine is
written only when every refittable weight was set.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from vim_deploy.runtimes.building.worker import (
    Events,
    ReportedError,
    make_logger,
    peak_memory_bytes,
    serve,
    write_plan,
)
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.worker import load_plugins, load_tensorrt

_TYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16", "int32": "INT32",
          "int64": "INT64", "int8": "INT8", "bool": "BOOL"}  # fmt: skip


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    """Constants of a graph by the name TensorRT's parser gives them: that of the tensor."""
    weights = {
        tensor.name: np.ascontiguousarray(numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
    }
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain == "":
            for attribute in node.attribute:
                if attribute.name == "value":
                    values = numpy_helper.to_array(attribute.t)
                    weights[node.output[0]] = np.ascontiguousarray(values)
    return weights


def set_weights(
    module: ModuleType,
    refitter: Any,  # noqa: ANN401
    weights: Mapping[str, np.ndarray[Any, Any]],
    errors: list[str],
) -> int:
    """Set every weight that can be refitted; how many there were.

    Raises:
        ReportedError: ``refit`` naming those without a value, or refused by TensorRT.
    """
    wanted = list(refitter.get_all_weights())
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise ReportedError("refit", missing=missing, refused=[], errors=[])
    errors.clear()
    refused = []
    for name in wanted:
        values = weights[name]
        member = getattr(module.DataType, _TYPES.get(values.dtype.name, ""), None)
        # The caller keeps the arrays alive until the refit is done.
        if member is None or not refitter.set_named_weights(
            name, module.Weights(member, values.ctypes.data, int(values.size))
        ):
            refused.append(f"{name} ({values.dtype.name}, {values.size} values)")
    if refused:
        raise ReportedError("refit", missing=[], refused=refused, errors=list(errors))
    return len(wanted)


def _serialise(module: ModuleType, capabilities: trt.Capabilities, engine: Any, keep: bool) -> Any:  # noqa: ANN401
    """The engine with its weights, which a stripped one leaves out unless it is told otherwise."""
    if not capabilities.serialization_config:
        return engine.serialize()
    config = engine.create_serialization_config()
    flags = module.SerializationFlag.__members__
    config.clear_flag(flags["EXCLUDE_WEIGHTS"])
    if keep and "INCLUDE_REFIT" in flags:
        config.set_flag(flags["INCLUDE_REFIT"])
    return engine.serialize_with_config(config)


def build(job: Mapping[str, Any], events: Events, _stop: threading.Event) -> dict[str, Any]:
    """Refit one engine into ``job["output"]``; the facts of the ``done`` event.

    Raises:
        ReportedError: anything that is not a fault of this program.
    """
    module, capabilities = load_tensorrt()
    errors: list[str] = []
    logger = make_logger(module, events, errors)
    if job["plugin"]:
        load_plugins(module, job["plugin"], list(job["plugin_ops"]))
    events.send("phase", name="Loading the engine", parent=None, steps=0)
    runtime = module.Runtime(logger)
    # Only an engine that says in its record that it carries our own library may run code of its.
    runtime.engine_host_code_allowed = bool(job["host_code"])
    engine = runtime.deserialize_cuda_engine(Path(job["plan"]).read_bytes())
    if engine is None:
        raise ReportedError("load", errors=list(errors))
    if not engine.refittable:
        raise ReportedError("not-refittable")
    refitter = module.Refitter(engine, logger)
    events.send("phase_end", name="Loading the engine")
    events.send("phase", name="Setting the weights", parent=None, steps=0)
    weights = weights_of(onnx.load(job["model"]))
    count = set_weights(module, refitter, weights, errors)
    if not refitter.refit_cuda_engine():
        missing = list(refitter.get_missing_weights())
        raise ReportedError("refit", missing=missing, refused=[], errors=list(errors))
    events.send("phase_end", name="Setting the weights")
    size = write_plan(_serialise(module, capabilities, engine, job["keep"]), job["output"])
    kept = bool(job["keep"]) and (
        not job["stripped"] or "INCLUDE_REFIT" in module.SerializationFlag.__members__
    )
    return {
        "weights": count,
        "bytes": size,
        "refittable": kept,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def main() -> int:
    """Run one job from standard input; the exit status."""
    return serve(build)


if __name__ == "__main__":
    sys.exit(main())
