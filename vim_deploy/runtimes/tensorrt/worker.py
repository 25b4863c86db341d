"""The process that builds with full TensorRT: ``python -m vim_deploy.runtimes.tensorrt.worker``.

The job says everything that was decided (``build``); what differs between versions of TensorRT
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
from vim_deploy.precisions import TABLE
from vim_deploy.runtimes.building.compiler import Compiler
from vim_deploy.runtimes.building.request import HARDWARE_LEVELS, BuildJob
from vim_deploy.runtimes.building.worker import Events, serve
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.errors import make_runtime
from vim_deploy.runtimes.tensorrt.plugins import load_plugins
from vim_deploy.runtimes.tensorrt.timing_cache import read_cache, save_cache

_PLUGIN_LAYERS = ("PLUGIN", "PLUGIN_V2", "PLUGIN_V3")
#: Layers without a precision of their own in weakly typed networks: constants, casts, shapes,
#: loop parts, plugins (which choose by the types of their tensors).
_WITHOUT_PRECISION = frozenset(
    {"CONSTANT", "CAST", "IDENTITY", "QUANTIZE", "DEQUANTIZE", "SHAPE", "TRIP_LIMIT", "RECURRENCE",
     "ITERATOR", "LOOP_OUTPUT", "CONDITION", "CONDITIONAL_INPUT", "CONDITIONAL_OUTPUT",
     *_PLUGIN_LAYERS}
)  # fmt: skip
#: Types of weakly typed networks, NumPy's -> TensorRT's: what the flags of 8.6 know.
_FLOAT_TYPES = {TABLE[name].dtype: TABLE[name].tensorrt for name in ("fp32", "fp16")}


class TrtCompiler(Compiler):
    """A build with full TensorRT."""

    last_phase = "Writing and inspecting the engine"

    def __init__(self, job: BuildJob, events: Events, stop: threading.Event) -> None:
        super().__init__(trt.load(), job, events, stop)
        self.capabilities = trt.capabilities_of(self.module)
        if job.plugin is not None:
            load_plugins(self.module, job.plugin)

    def network_flags(self) -> int:
        """Explicit batch for 8.6, strongly typed for 10; 11 knows nothing else."""
        creation = self.module.NetworkDefinitionCreationFlag
        return sum(1 << int(getattr(creation, name)) for name in self.capabilities.network_flags)

    def check(self, network: Any) -> None:  # noqa: ANN401
        """VIM-606 when the parser did not take the plugin for our nodes; types where needed."""
        expected = self.job.plugin_counts
        layers = (network.get_layer(index) for index in range(network.num_layers))
        kinds = Counter(layer.type.name for layer in layers)
        found = sum(kinds[name] for name in _PLUGIN_LAYERS)
        if found < sum(expected.values()):
            asked = ", ".join(f"{count} {op}" for op, count in expected.items())
            raise VimDeployError(
                "VIM-606",
                f"TensorRT's parser did not take the plugin for the ops of {self.job.model_name}",
                why=f"the graph has {asked}; the network has {found} plugin layers",
                fix="report this with the version of TensorRT; --plugin none builds without the "
                "plugin",
            )
        if not self.capabilities.strongly_typed and "FP16" in self.job.flags:
            constrain_types(self.module, network, self.job.types)

    def configure(self, config: Any) -> None:  # noqa: ANN401
        """Flags, limits, levels, plugin to embed, tactics and timings."""
        module, job, options = self.module, self.job, self.job.request.tensorrt
        # The inspector tells types only of engines with this verbosity.
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
        for name in job.flags:
            config.set_flag(getattr(module.BuilderFlag, name))
        for name in job.cleared_flags:
            if name in self.capabilities.builder_flags:
                config.clear_flag(getattr(module.BuilderFlag, name))
        if options.opt_level is not None:
            config.builder_optimization_level = options.opt_level
        if options.workspace_mib is not None:
            workspace = options.workspace_mib << 20
            config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace)
        level = HARDWARE_LEVELS[options.hardware_compat]
        if level != "NONE":
            member = getattr(module.HardwareCompatibilityLevel, level)
            config.hardware_compatibility_level = member
        if options.embed_plugin and job.plugin is not None:
            config.plugins_to_serialize = [str(Path(job.plugin.path).resolve())]
        if options.tactic_sources:
            _choose_tactic_sources(module, config, options.tactic_sources)
        if job.timing_cache is not None:
            self._use_timings(config, job.timing_cache)

    def compile(self, builder: Any, network: Any, config: Any) -> Any:  # noqa: ANN401
        """As everywhere, but for 8.6, which reports no progress; timings are kept."""
        if self.capabilities.progress_monitor:
            plan = super().compile(builder, network, config)
        else:
            with self.events.phase("Building engine"):
                plan = builder.build_serialized_network(network, config)
        if plan is not None and self.job.timing_cache is not None and not self.stop.is_set():
            cache = config.get_timing_cache()
            if cache is not None:
                self._note(save_cache(self.job.timing_cache, bytes(memoryview(cache.serialize()))))
        return plan

    def describe(self, plan: Any) -> dict[str, Any]:  # noqa: ANN401
        """Load the new plan on this GPU and ask TensorRT what is in it.

        Raises:
            VimDeployError: VIM-603 when TensorRT does not load what it has just built; as
                ``make_runtime``.
        """
        self.errors.clear()
        name = self.job.model_name

        def refused() -> VimDeployError:
            return VimDeployError(
                "VIM-603",
                f"TensorRT built an engine from {name} that it does not load",
                why="\n".join(self.errors) or "the runtime gave no reason",
                fix="report this with the version of TensorRT; nothing was written",
            )

        runtime = make_runtime(self.module, self.logger, lambda: self.errors, name, refused())
        # The plan was made in this process from a library that the user named or that was built
        # here.
        runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise refused()
        inspector = engine.create_engine_inspector()
        form = self.module.LayerInformationFormat.JSON
        return {
            "inspection": inspector.get_engine_information(form),
            "device_memory_bytes": trt.context_bytes(engine),
            "refittable": bool(engine.refittable),
        }

    def _use_timings(self, config: Any, path: Path) -> None:  # noqa: ANN401
        """Give ``config`` the timings in ``path``, or none when TensorRT refuses the file."""
        content, problem = read_cache(path)
        self._note(problem)
        cache = config.create_timing_cache(content)
        if content and (cache is None or not config.set_timing_cache(cache, False)):
            self._note(
                f"timing cache {path} is damaged or of another TensorRT or GPU; starting a new one"
            )
            cache, content = config.create_timing_cache(b""), b""
        if not content and (cache is None or not config.set_timing_cache(cache, False)):
            self._note("TensorRT takes no timing cache here; building without")

    def _note(self, text: str) -> None:
        if text:
            self.events.send("log", severity="warning", message=text)


def constrain_types(module: ModuleType, network: Any, types: Mapping[str, str]) -> int:  # noqa: ANN401
    """Give each layer of a weakly typed network the types of the graph; how many got them.

    A layer computes in half precision only when all of its float outputs are half in the graph, so
    the graph's fp32 islands stay what they are.
    """
    members = {dtype: getattr(module.DataType, name) for dtype, name in _FLOAT_TYPES.items()}
    constrained = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name in _WITHOUT_PRECISION:
            continue
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        if any(tensor.dtype.name not in _FLOAT_TYPES.values() for tensor in outputs):
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


def _choose_tactic_sources(module: ModuleType, config: Any, text: str) -> None:  # noqa: ANN401
    """Apply trtexec's list, ``-CUDNN,+JIT_CONVOLUTIONS``, to the default sources."""
    sources = int(config.get_tactic_sources())
    known = module.TacticSource.__members__
    for part in text.split(","):
        sign, name = part.strip()[:1], part.strip()[1:].upper()
        if sign not in "+-" or name not in known:
            raise _no_tactic(part, known)
        bit = 1 << int(known[name])
        sources = sources | bit if sign == "+" else sources & ~bit
    if not config.set_tactic_sources(sources):
        raise _no_tactic(text, known)


def _no_tactic(part: str, known: Mapping[str, Any]) -> VimDeployError:
    return VimDeployError(
        "VIM-309",
        f"this TensorRT has no tactic source {part!r}",
        why=f"it has {', '.join(sorted(known))}",
        fix="write --tactic-sources as trtexec does, for example -CUDNN,-CUBLAS",
    )


def build(job: BuildJob, events: Events, stop: threading.Event) -> dict[str, Any]:
    """Build one engine; facts and errors as ``Compiler.build``, and those of ``TrtCompiler``."""
    return TrtCompiler(job, events, stop).build()


def main() -> int:
    """Run one job from standard input; the exit status."""
    return serve(build, BuildJob)


if __name__ == "__main__":
    sys.exit(main())
