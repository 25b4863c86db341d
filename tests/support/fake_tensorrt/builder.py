"""Logger, builder, configuration, profiles, timing cache and progress monitor of the fake."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from tests.support.fake_tensorrt.api import Base, attribute, only
from tests.support.fake_tensorrt.plan import encode_plan

_TEN, _ELEVEN = (10, 0), (11, 0)
_STEPS = 4
_HALF = ("HALF", "BF16")
#: Each release's word for a type in the inspector's text.
_WORDS = {
    "FLOAT": "Row major linear FP32",
    "HALF": "Row major linear FP16 format",
    "BF16": "Row major linear BFloat16 format",
    "INT32": "Row major linear INT32 format",
    "INT64": "Row major linear INT64 format",
    "BOOL": "Row major linear BOOL format",
    "UINT8": "Row major linear UInt8 format",
    "INT8": "Row major linear Int8 format",
    "FP8": "Row major linear FP8 format",
}
_DATATYPES = {"FLOAT": "FP32", "HALF": "FP16", "BF16": "BF16"}
CACHE_MAGIC = b"fake timing cache "


class ILogger:
    """Base of loggers; severities as in TensorRT."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = (
        "Severity.INTERNAL_ERROR",
        "Severity.ERROR",
        "Severity.WARNING",
        "Severity.INFO",
        "Severity.VERBOSE",
    )

    def __init__(self) -> None:
        pass

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


@only(since=_TEN)
class IProgressMonitor:
    """Base of progress monitors."""

    def __init__(self) -> None:
        pass


class IOptimizationProfile(Base):
    """Shapes by input."""

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        low, usual, high = (tuple(shape) for shape in (min, opt, max))
        if not all(a <= b <= c for a, b, c in zip(low, usual, high, strict=True)):
            raise ValueError(f"Shape provided for {input} is not valid")
        self._shapes[input] = (low, usual, high)


class ITimingCache(Base):
    """Timings; knows whether it is new."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return CACHE_MAGIC + self.fake.version.encode() + b" " + self._content


class IBuilderConfig(Base):
    """Settings of a build."""

    builder_optimization_level = attribute(3)
    hardware_compatibility_level = attribute()
    plugins_to_serialize = attribute(())
    profiling_verbosity = attribute()
    progress_monitor = attribute(None, since=_TEN)

    def __init__(self) -> None:
        self._flags: set[Any] = set()
        self._profiles: list[Any] = []
        self._pools: dict[Any, int] = {}
        self._cache: Any = None

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[pool.name] = pool_size

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        return True

    def get_tactic_sources(self) -> int:
        return (1 << len(self.fake.module.TacticSource.__members__)) - 1

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        content = bytes(serialized_timing_cache)
        if content and not content.startswith(CACHE_MAGIC):
            return None
        return self.fake.module.ITimingCache(content)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        known = CACHE_MAGIC + self.fake.version.encode()
        if cache._content and not cache._content.startswith(known) and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        if self._cache is not None:
            self._cache._content = b"timed"
        return self._cache


class Builder(Base):
    """Makes plans from networks, in the way ``fake.fail`` says."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> Any:
        module, release = self.fake.module, self.fake.release
        creation = module.NetworkDefinitionCreationFlag.__members__
        if release < _TEN and not flags & 1 << int(creation["EXPLICIT_BATCH"]):
            raise RuntimeError("implicit batch networks are not what this project builds")
        typed = release >= _ELEVEN or (
            release >= _TEN and bool(flags & 1 << int(creation["STRONGLY_TYPED"]))
        )
        return module.INetworkDefinition(typed)

    def create_builder_config(self) -> Any:
        return self.fake.module.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self.fake.module.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        fault = self._fault_of(network, config)
        if fault:
            self._logger.log(ILogger.ERROR, fault)
            return None
        if not self._steps(config):
            self._logger.log(ILogger.ERROR, "Error Code 7: BuildCanceled (Build canceled by user)")
            return None
        if self.fake.fail == "memory":
            self._logger.log(
                ILogger.ERROR,
                "[virtualMemoryBuffer.cpp] Error Code 2: OutOfMemory (no further "
                "information): requested 8589934592 bytes",
            )
            return None
        if self.fake.fail == "none":
            return None
        return encode_plan(self._engine(network, config))

    def _fault_of(self, network: Any, config: Any) -> str:
        dynamic = any(-1 in network.get_input(i).shape for i in range(network.num_inputs))
        if dynamic and not config._profiles:
            return (
                "Error Code 4: API Usage Error (Network has dynamic or shape inputs, but no "
                "optimization profile has been defined.)"
            )
        if network._strongly_typed and config._flags & {"FP16", "BF16", "INT8"}:
            return "Error Code 3: builder flags are not compatible with a strongly typed network"
        half = any(
            tensor.dtype.name in _HALF for layer in network._layers for tensor in layer._outputs
        )
        if half and not network._strongly_typed and "FP16" not in config._flags:
            return (
                "Error Code 4: fp16 precision has been set for a layer or layer output, but fp16 "
                "is not configured in the builder"
            )
        narrow = any(layer.type.name == "QUANTIZE" for layer in network._layers)
        if narrow and not network._strongly_typed and "INT8" not in config._flags:
            return "Error Code 3: networks with Q/DQ layers need the Int8 builder flag"
        return self._constrained(network, config)

    @staticmethod
    def _constrained(network: Any, config: Any) -> str:
        """A float type that a layer must have, and that its quantized inputs cannot give."""
        if "OBEY_PRECISION_CONSTRAINTS" not in config._flags:
            return ""
        read = {
            layer._outputs[0].name for layer in network._layers if layer.type.name == "DEQUANTIZE"
        }
        bound = [
            layer.name
            for layer in network._layers
            if layer.precision is not None and read & {item.name for item in layer._inputs}
        ]
        return f"Error Code 10: no implementation for node {bound[0]}" if bound else ""

    def _steps(self, config: Any) -> bool:
        monitor = config.progress_monitor if self.fake.release >= _TEN else None
        if monitor is not None:
            monitor.phase_start("Building engine", None, _STEPS)
        for step in range(_STEPS):
            time.sleep(self.fake.step_seconds)
            if self.fake.fail == "kill" and step == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if monitor is not None and not monitor.step_complete("Building engine", step):
                return False
        if monitor is not None:
            monitor.phase_finish("Building engine")
        return True

    def _engine(self, network: Any, config: Any) -> dict[str, Any]:
        level = config.hardware_compatibility_level
        profiles = [
            {
                name: dict(zip(("min", "opt", "max"), map(list, shapes), strict=True))
                for name, shapes in profile._shapes.items()
            }
            for profile in config._profiles
        ]
        layers = [
            self._layer(layer)
            for layer in network._layers
            if not (self.fake.lose_plugins and layer.type.name.startswith("PLUGIN"))
        ]
        refit = bool(config._flags & {"REFIT", "REFIT_IDENTICAL", "STRIP_PLAN"})
        return {
            "version": self.fake.version,
            "compute_capability": self.fake.compute_capability,
            "hardware": level.name if level is not None else "NONE",
            "inputs": [_tensor(tensor) for tensor in network._inputs],
            "outputs": [_tensor(tensor) for tensor in network._outputs],
            "debug": sorted(tensor.name for tensor in network._debug),
            "profiles": profiles,
            "layers": layers,
            "plugins": sorted(
                {layer._op for layer in network._layers if layer.type.name.startswith("PLUGIN")}
            ),
            "refit": refit,
            "stripped": "STRIP_PLAN" in config._flags,
            "weights": network._weights if refit else {},
            "host_code": bool(config.plugins_to_serialize),
            "version_compatible": "VERSION_COMPATIBLE" in config._flags,
        }

    def _layer(self, layer: Any) -> dict[str, Any]:
        """A layer as the engine inspector of this release describes it."""
        kind = layer.type.name
        described = {
            "Name": layer.name,
            "LayerType": {"PLUGIN_V2": "PluginV2", "PLUGIN_V3": "PluginV3"}.get(kind, kind.title()),
            "Inputs": [self._inspected(tensor) for tensor in layer._inputs],
            "Outputs": [
                self._inspected(tensor, layer._output_types.get(index))
                for index, tensor in enumerate(layer._outputs)
            ],
            "Metadata": f"[ONNX Layer: {layer.name}]",
        }
        if kind.startswith("PLUGIN"):
            described["PluginType"] = layer._op
        return described

    def _inspected(self, tensor: Any, chosen: Any = None) -> dict[str, Any]:
        kind = (chosen or tensor.dtype).name
        if self.fake.ignore_types and kind in _HALF:
            kind = "FLOAT"
        common = {"Name": tensor.name, "Dimensions": list(tensor.shape)}
        if self.fake.release >= _ELEVEN:
            words = {"Format": "Row major linear", "Datatype": _DATATYPES.get(kind, kind.title())}
            return {**common, **words}
        return {**common, "Format/Datatype": _WORDS[kind]}


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype.name, "shape": list(tensor.shape)}


CLASSES = (
    ILogger, IProgressMonitor, IOptimizationProfile, ITimingCache, IBuilderConfig, Builder,
)  # fmt: skip
