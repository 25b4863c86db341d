"""The process that builds with TensorRT-RTX: ``python -m vim_deploy.runtimes.tensorrt_rtx.worker``.

The plugin library is never loaded here: TensorRT-RTX aborts when a node becomes a plugin. The
timing cache is left alone: touching it makes TensorRT-RTX ask for a GPU.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.worker import (
    CancelledError,
    Events,
    ReportedError,
    add_profiles,
    check_interface,
    make_logger,
    make_monitor,
    mark_debug_tensors,
    parse_model,
    peak_memory_bytes,
    serve,
    tensor_facts,
    write_plan,
)
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx


def _configure(
    module: ModuleType,
    builder: Any,  # noqa: ANN401
    job: Mapping[str, Any],
) -> Any:  # noqa: ANN401
    config = builder.create_builder_config()
    add_profiles(builder, config, job)
    named = job["compute_capabilities"]
    if named:
        config.num_compute_capabilities = len(named)
        for index, capability in enumerate(named):
            member = getattr(module.ComputeCapability, "SM" + capability.replace(".", ""), None)
            if member is None or not config.set_compute_capability(member, index):
                raise ReportedError("target", capability=capability)
    return config


def build(job: Mapping[str, Any], events: Events, stop: threading.Event) -> dict[str, Any]:
    """Build one engine into ``job["output"]``; the facts of the ``done`` event.

    Raises:
        ReportedError: anything that is not a fault of this program.
        CancelledError: ``stop`` was set.
    """
    try:
        module = trt_rtx.load()
    except VimDeployError as error:
        raise ReportedError("import", text=f"{error.message}\n{error.why}".strip()) from error
    errors: list[str] = []
    logger = make_logger(module, events, errors)
    builder = module.Builder(logger)
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    events.send("phase", name="Parsing the ONNX model", parent=None, steps=0)
    parse_model(module, network, logger, job["model"])
    check_interface(network, job)
    mark_debug_tensors(network, job["debug_tensors"])
    events.send("phase_end", name="Parsing the ONNX model")
    config = _configure(module, builder, job)
    # The monitor must outlive the build; the configuration does not keep it alive.
    monitor = make_monitor(module, events, stop)
    config.progress_monitor = monitor
    errors.clear()
    plan = builder.build_serialized_network(network, config)
    if stop.is_set():
        raise CancelledError
    if plan is None:
        raise ReportedError("build", errors=errors)
    events.send("phase", name="Writing the engine", parent=None, steps=0)
    size = write_plan(plan, job["output"])
    events.send("phase_end", name="Writing the engine")
    return {
        "runtime_version": str(module.__version__),
        "layers": network.num_layers,
        "inputs": [tensor_facts(network.get_input(i)) for i in range(network.num_inputs)],
        "outputs": [tensor_facts(network.get_output(i)) for i in range(network.num_outputs)],
        "bytes": size,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def main() -> int:
    """Run one job from standard input; the exit status."""
    return serve(build)


if __name__ == "__main__":
    sys.exit(main())
