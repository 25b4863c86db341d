"""The process that builds with full TensorRT: ``python -m vim_deploy.runtimes.tensorrt.worker``.

The job says everything that was decided (``build_trt``); what differs between versions of TensorRT
is asked of its capabilities here, where it is loaded. The engine is loaded once after the build,
on the GPU it was built on, to be described by TensorRT's own inspector.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.ops import contract
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
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.capability import Capabilities
from vim_deploy.runtimes.tensorrt.timing_cache import read_cache, save_cache

_PLUGIN_LAYERS = ("PLUGIN", "PLUGIN_V2", "PLUGIN_V3")
#: Layers without a precision of their own in weakly typed networks: constants, casts, shapes,
#: loop parts, plugins (which choose by the types of their tensors).
_WITHOUT_PRECISION = frozenset(
    {"CONSTANT", "CAST", "IDENTITY", "SHAPE", "TRIP_LIMIT", "RECURRENCE", "ITERATOR",
     "LOOP_OUTPUT", "CONDITION", "CONDITIONAL_INPUT", "CONDITIONAL_OUTPUT", *_PLUGIN_LAYERS}
)  # fmt: skip
_FLOAT_TYPES = ("FLOAT", "HALF")


def load_plugins(module: ModuleType, path: str, ops: list[str]) -> None:
    """Register the library's ops with TensorRT, and make sure that they can be found.

    Raises:
        ReportedError: ``plugin``; ``load_library`` gives None for whatever goes wrong.
    """
    registry = module.get_plugin_registry()
    handle = registry.load_library(path)
    find = getattr(registry, "get_creator", None) or registry.get_plugin_creator
    missing = [
        op for op in ops if find(op, contract.PLUGIN_VERSION, contract.PLUGIN_NAMESPACE) is None
    ]
    if missing:
        raise ReportedError("plugin", path=path, missing=missing, loaded=handle is not None)


def _network_flags(module: ModuleType, capabilities: Capabilities) -> int:
    creation = module.NetworkDefinitionCreationFlag
    flags = 0
    if capabilities.explicit_batch_flag:
        flags |= 1 << int(creation.EXPLICIT_BATCH)
    if capabilities.typing_flag:
        flags |= 1 << int(creation.STRONGLY_TYPED)
    return flags


def _require_plugin_layers(network: Any, expected: Mapping[str, int]) -> None:  # noqa: ANN401
    """Known before the minutes of the build: did the parser take the plugin for our nodes?"""
    kinds: Counter[str] = Counter(
        network.get_layer(index).type.name for index in range(network.num_layers)
    )
    found = sum(kinds[name] for name in _PLUGIN_LAYERS)
    if found < sum(expected.values()):
        raise ReportedError("plugin-layers", expected=dict(expected), found=found)


def constrain_types(module: ModuleType, network: Any, types: Mapping[str, str]) -> int:  # noqa: ANN401
    """Give each layer of a weakly typed network the types of the graph; how many got them.

    A layer computes in half precision only when all of its float outputs are half in the graph, so
    the graph's fp32 islands stay what they are.
    """
    members = {"float32": module.DataType.FLOAT, "float16": module.DataType.HALF}
    constrained = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name in _WITHOUT_PRECISION:
            continue
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        if any(tensor.dtype.name not in _FLOAT_TYPES for tensor in outputs):
            continue
        asked = [types.get(tensor.name, "") for tensor in outputs]
        if not outputs or any(dtype not in members for dtype in asked):
            continue
        half = all(dtype == "float16" for dtype in asked)
        layer.precision = members["float16" if half else "float32"]
        for output, dtype in enumerate(asked):
            layer.set_output_type(output, members[dtype])
        constrained += 1
    return constrained


def _configure(
    module: ModuleType,
    builder: Any,  # noqa: ANN401
    capabilities: Capabilities,
    job: Mapping[str, Any],
) -> Any:  # noqa: ANN401
    config = builder.create_builder_config()
    add_profiles(builder, config, job)
    # The inspector tells types only of engines with this verbosity.
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    for name in job["flags"]:
        config.set_flag(getattr(module.BuilderFlag, name))
    for name in job["clear_flags"]:
        if name in capabilities.builder_flags:
            config.clear_flag(getattr(module.BuilderFlag, name))
    if job["opt_level"] is not None:
        config.builder_optimization_level = job["opt_level"]
    if job["workspace_bytes"] is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, job["workspace_bytes"])
    if job["hardware_level"] != "NONE":
        level = getattr(module.HardwareCompatibilityLevel, job["hardware_level"])
        config.hardware_compatibility_level = level
    if job["embed_plugin"]:
        config.plugins_to_serialize = [job["plugin"]]
    if job["tactic_sources"]:
        _choose_tactic_sources(module, config, job["tactic_sources"])
    return config


def _choose_tactic_sources(module: ModuleType, config: Any, text: str) -> None:  # noqa: ANN401
    """Apply trtexec's list, ``-CUDNN,+JIT_CONVOLUTIONS``, to the default sources."""
    sources = int(config.get_tactic_sources())
    known = module.TacticSource.__members__
    for part in text.split(","):
        sign, name = part.strip()[:1], part.strip()[1:].upper()
        if sign not in "+-" or name not in known:
            raise ReportedError("tactics", part=part, known=sorted(known))
        bit = 1 << int(known[name])
        sources = sources | bit if sign == "+" else sources & ~bit
    if not config.set_tactic_sources(sources):
        raise ReportedError("tactics", part=text, known=sorted(known))


def use_timing_cache(config: Any, path: Path, note: Any) -> None:  # noqa: ANN401
    """Give ``config`` the timings in ``path``, or none of them when TensorRT refuses the file."""
    content, problem = read_cache(path)
    if problem:
        note(problem)
    cache = config.create_timing_cache(content)
    if content and (cache is None or not config.set_timing_cache(cache, False)):
        note(f"timing cache {path} is damaged or of another TensorRT or GPU; starting a new one")
        cache, content = config.create_timing_cache(b""), b""
    if not content and (cache is None or not config.set_timing_cache(cache, False)):
        note("TensorRT takes no timing cache here; building without")


def describe_engine(
    module: ModuleType,
    capabilities: Capabilities,
    logger: Any,  # noqa: ANN401
    plan: Any,  # noqa: ANN401
    errors: list[str],
) -> dict[str, Any]:
    """Load the new plan on this GPU and ask TensorRT what is in it.

    Raises:
        ReportedError: ``inspect`` when TensorRT does not load what it has just built.
    """
    errors.clear()
    runtime = module.Runtime(logger)
    # The plan was made in this process from a library that the user named or that was built here.
    runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ReportedError("inspect", errors=list(errors))
    inspector = engine.create_engine_inspector()
    size = engine.device_memory_size_v2 if capabilities.device_memory_v2 else (
        engine.device_memory_size
    )  # fmt: skip
    return {
        "inspection": inspector.get_engine_information(module.LayerInformationFormat.JSON),
        "device_memory_bytes": int(size),
        "refittable": bool(engine.refittable),
    }


def load_tensorrt() -> tuple[ModuleType, Capabilities]:
    """TensorRT and what it can do; ReportedError ``import`` when it does not load."""
    try:
        module = trt.load()
        return module, trt.capabilities_of(module)
    except VimDeployError as error:
        raise ReportedError("import", text=f"{error.message}\n{error.why}".strip()) from error


def build(job: Mapping[str, Any], events: Events, stop: threading.Event) -> dict[str, Any]:
    """Build one engine into ``job["output"]``; the facts of the ``done`` event.

    Raises:
        ReportedError: anything that is not a fault of this program.
        CancelledError: ``stop`` was set.
    """
    module, capabilities = load_tensorrt()
    errors: list[str] = []
    logger = make_logger(module, events, errors)
    if job["plugin"]:
        load_plugins(module, job["plugin"], sorted(job["plugin_counts"]))
    builder = module.Builder(logger)
    network = builder.create_network(_network_flags(module, capabilities))
    events.send("phase", name="Parsing the ONNX model", parent=None, steps=0)
    parse_model(module, network, logger, job["model"])
    check_interface(network, job)
    _require_plugin_layers(network, job["plugin_counts"])
    mark_debug_tensors(network, job["debug_tensors"])
    if not capabilities.strongly_typed and "FP16" in job["flags"]:
        constrain_types(module, network, job["types"])
    events.send("phase_end", name="Parsing the ONNX model")
    config = _configure(module, builder, capabilities, job)
    cache = Path(job["timing_cache"]) if job["timing_cache"] else None
    if cache is not None:
        use_timing_cache(config, cache, _noter(events))
    errors.clear()
    plan = _compile(module, capabilities, builder, network, config, events, stop)
    if plan is None:
        raise ReportedError("build", errors=errors)
    if cache is not None:
        _keep_timings(config, cache, events)
    events.send("phase", name="Writing and inspecting the engine", parent=None, steps=0)
    size = write_plan(plan, job["output"])
    described = describe_engine(module, capabilities, logger, plan, errors)
    events.send("phase_end", name="Writing and inspecting the engine")
    return {
        "runtime_version": str(module.__version__),
        "layers": network.num_layers,
        "inputs": [tensor_facts(network.get_input(i)) for i in range(network.num_inputs)],
        "outputs": [tensor_facts(network.get_output(i)) for i in range(network.num_outputs)],
        "bytes": size,
        "peak_memory_bytes": peak_memory_bytes(),
        **described,
    }


def _compile(
    module: ModuleType,
    capabilities: Capabilities,
    builder: Any,  # noqa: ANN401
    network: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    events: Events,
    stop: threading.Event,
) -> Any:  # noqa: ANN401
    """The serialised engine, or None; CancelledError when it was stopped meanwhile."""
    # The monitor must outlive the build; the configuration does not keep it alive.
    monitor = None
    if capabilities.progress_monitor:
        monitor = make_monitor(module, events, stop)
        config.progress_monitor = monitor
    else:
        events.send("phase", name="Building engine", parent=None, steps=0)
    plan = builder.build_serialized_network(network, config)
    if stop.is_set():
        raise CancelledError
    if monitor is None:
        events.send("phase_end", name="Building engine")
    return plan


def _noter(events: Events) -> Any:  # noqa: ANN401
    return lambda text: events.send("log", severity="warning", message=text)


def _keep_timings(config: Any, path: Path, events: Events) -> None:  # noqa: ANN401
    cache = config.get_timing_cache()
    if cache is None:
        return
    problem = save_cache(path, bytes(memoryview(cache.serialize())))
    if problem:
        _noter(events)(problem)


def main() -> int:
    """Run one job from standard input; the exit status."""
    return serve(build)


if __name__ == "__main__":
    sys.exit(main())
