"""The process that exchanges an engine's weights, started by ``refit``.

The job names the plan, the ONNX file with the new weights (lowered as the engine's graph was), the
plugin library and the output. Weights go by the names of the ONNX initialisers. The engine is
written only when every refittable weight was set.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from vim_deploy.artifact.engine_file import DATA_TYPES
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin.describe import PluginInfo
from vim_deploy.runtimes.building.compiler import (
    make_logger,
    peak_memory_bytes,
    some,
    write_plan,
)
from vim_deploy.runtimes.building.request import Job
from vim_deploy.runtimes.building.worker import Events, serve
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.errors import make_runtime
from vim_deploy.runtimes.tensorrt.plugins import load_plugins

#: NumPy's types -> TensorRT's.
_TYPES = {dtype: name for name, dtype in DATA_TYPES.items()}


@dataclass(frozen=True)
class RefitJob(Job):
    """An exchange of weights; ``model`` is the ONNX file with the new ones.

    Attributes:
        plan: the engine.
        plugin: the library to load it with; None when it needs none.
        host_code: the plan carries its library, and may run it.
        stripped: it holds no weights yet.
        keep: the new engine can be refitted again.
    """

    plan: Path
    plugin: PluginInfo | None
    host_code: bool
    stripped: bool
    keep: bool


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


def as_weights(module: ModuleType, values: np.ndarray[Any, Any]) -> Any:  # noqa: ANN401
    """TensorRT's weights of an array, which has to outlive them; None where it lacks the type.

    TensorRT 8.6 takes nothing but arrays. No release takes those of a type that is not NumPy's own,
    as bfloat16 is; from 10 on, an address does for it.
    """
    member = getattr(module.DataType, _TYPES.get(values.dtype.name, ""), None)
    if member is None:
        return None
    if values.dtype.isbuiltin == 1:
        return module.Weights(values)
    return module.Weights(member, values.ctypes.data, int(values.size))


def set_weights(
    module: ModuleType,
    refitter: Any,  # noqa: ANN401
    weights: Mapping[str, np.ndarray[Any, Any]],
    model: str,
    errors: list[str],
) -> int:
    """Set every weight that can be refitted; how many there were.

    Raises:
        VimDeployError: VIM-607 naming those without a value, or refused by TensorRT.
    """
    wanted = list(refitter.get_all_weights())
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise _refused(model, missing)
    errors.clear()
    refused = []
    for name in wanted:
        values = weights[name]
        # The caller keeps the arrays alive until the refit is done.
        given = as_weights(module, values)
        if given is None or not refitter.set_named_weights(name, given):
            refused.append(f"{name} ({values.dtype.name}, {values.size} values)")
    if refused:
        raise _refused(model, refused=refused, errors=errors)
    return len(wanted)


def _refused(
    model: str,
    missing: Sequence[str] = (),
    refused: Sequence[str] = (),
    errors: Sequence[str] = (),
) -> VimDeployError:
    lines = []
    if missing:
        lines.append(f"{len(missing)} weights without a value: " + some(missing))
    if refused:
        lines.append(f"{len(refused)} weights refused: " + some(refused))
    return VimDeployError(
        "VIM-607",
        f"the engine cannot take the weights of {model}",
        why="\n".join([*lines, *errors]),
        fix="export the checkpoint with the options of the engine's own ONNX file; nothing was "
        "changed",
    )


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


def build(job: RefitJob, events: Events, _stop: threading.Event) -> dict[str, Any]:
    """Refit one engine into the job's output; the facts of the ``done`` event.

    Raises:
        VimDeployError: anything that is not a fault of this program.
    """
    module = trt.load()
    errors: list[str] = []
    logger = make_logger(module, events, errors)
    if job.plugin is not None:
        load_plugins(module, job.plugin)
    with events.phase("Loading the engine"):
        engine = _load(module, logger, job, errors)
        refitter = module.Refitter(engine, logger)
    with events.phase("Setting the weights"):
        weights = weights_of(onnx.load(job.model))
        count = set_weights(module, refitter, weights, job.model_name, errors)
        if not refitter.refit_cuda_engine():
            missing = list(refitter.get_missing_weights())
            raise _refused(job.model_name, missing, errors=errors)
    plan = _serialise(module, trt.capabilities_of(module), engine, job.keep)
    kept = job.keep and (
        not job.stripped or "INCLUDE_REFIT" in module.SerializationFlag.__members__
    )
    return {
        "weights": count,
        "bytes": write_plan(plan, job.output),
        "refittable": kept,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _load(module: ModuleType, logger: Any, job: RefitJob, errors: list[str]) -> Any:  # noqa: ANN401
    """The engine; VIM-607 when it is not loaded or cannot be refitted; as ``make_runtime``."""

    def refused() -> VimDeployError:
        return VimDeployError(
            "VIM-607",
            "TensorRT does not load the engine that is to be refitted",
            why="\n".join(errors) or "the runtime gave no reason",
            fix="refit it with the TensorRT and on the GPU that its record names",
        )

    runtime = make_runtime(module, logger, lambda: errors, job.plan.name, refused())
    # Only an engine that says in its record that it carries our own library may run code of its.
    runtime.engine_host_code_allowed = job.host_code
    engine = runtime.deserialize_cuda_engine(job.plan.read_bytes())
    if engine is None:
        raise refused()
    if not engine.refittable:
        raise VimDeployError(
            "VIM-607",
            "the engine cannot be refitted",
            why="TensorRT says that it was not built for that",
            fix="build it again with --refit or --strip-weights",
        )
    return engine


def main() -> int:
    """Run one job from standard input; the exit status."""
    return serve(build, RefitJob)


if __name__ == "__main__":
    sys.exit(main())
