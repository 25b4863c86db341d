"""The runtime of the stand-in TensorRT: Runtime, ICudaEngine, IExecutionContext, in four releases.

An engine computes ``logits = image @ w`` per pixel row in NumPy, on the memory of a
``FakeCudart``, so that results can be checked; one that takes the pictures' sizes, too, adds
``height + width / 4`` and counts the pixels in an output that is an integer. ``plan_bytes`` writes
a plan of it and ``runtime_module`` makes a module of one release; names that a release does not
have raise AttributeError.

Like TensorRT, it refuses what is not done in order: an address before a shape, a context without a
profile, a capture right after a change of shape.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tests.support.fake_cudart import FakeCudart
from tests.support.fake_tensorrt import VERSIONS

HEADER_BYTES = 64
#: Names of ICudaEngine that came or went: name -> first release, first release without.
_ENGINE_SPANS = {
    "device_memory_size": ((0, 0), (11, 0)),
    "device_memory_size_v2": ((10, 3), (99, 0)),
    "get_device_memory_size_for_profile_v2": ((10, 3), (99, 0)),
    "num_bindings": ((0, 0), (10, 0)),
}
CLASSES, FEATURES = 4, 6
#: Output that is an integer, of engines that take sizes.
COUNT = "count"

DataType = enum.IntEnum(
    "DataType", ["FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "FP8", "BF16", "INT64"], start=0
)
_DATA_TYPE_OF_8 = enum.IntEnum(
    "DataType", {item.name: item.value for item in DataType if item.name not in ("BF16", "INT64")}
)
TensorIOMode = enum.IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"], start=0)
TensorLocation = enum.IntEnum("TensorLocation", ["DEVICE", "HOST"], start=0)
Severity = enum.IntEnum(
    "Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0
)


def weights() -> np.ndarray[Any, Any]:
    """The matrix of the tiny network, float32 [FEATURES, CLASSES]."""
    return np.random.default_rng(5).standard_normal((FEATURES, CLASSES)).astype(np.float32)


def expected(
    image: np.ndarray[Any, Any], size: np.ndarray[Any, Any] | None = None
) -> np.ndarray[Any, Any]:
    """What an engine computes for ``image`` [B, 1, 2, 3], and ``size`` [B, 2]."""
    logits = image.reshape(len(image), FEATURES).astype(np.float32) @ weights()
    if size is not None:
        logits = logits + (size @ [[1.0], [0.25]])
    return logits.astype(np.float32)


def plan_bytes(
    version: str = "10.14.1.48",
    *,
    profiles: tuple[tuple[int, int, int], ...] = ((1, 2, 4),),
    cc: str = "9.0",
    plugins: tuple[str, ...] = (),
    **other: Any,
) -> bytes:
    """A plan as TensorRT begins one; the rest is JSON.

    Args:
        version: of the TensorRT that built it.
        profiles: batch sizes, (min, opt, max) each; one with equal sizes makes a fixed batch.
        cc: compute capability it was built for.
        plugins: ops it needs.
        other: ``dtype``, ``inputs``, ``outputs``, ``size_profiles``, ``context_bytes``, ``lean``,
            ``uncapturable``.
    """
    numbers = [int(part) for part in version.split(".")]
    numbers += [0] * (4 - len(numbers))
    body = {"version": version, "profiles": profiles, "cc": cc, "plugins": plugins, **other}
    data = json.dumps(body).encode()
    header = b"ftrt" + bytes(4) + (1).to_bytes(8, "little")
    header += (HEADER_BYTES + len(data)).to_bytes(8, "little") + bytes(numbers)
    return header.ljust(HEADER_BYTES, b"\0") + data


@dataclass
class State:
    """What a module knows and how it is to behave.

    Attributes:
        cuda: the GPU it works on.
        creators: names of registered plugins.
        fail: calls that answer False: ``execute``, ``shape``, ``address``, ``profile``.
        calls: names of calls, in order.
        engines: classes of engines by the ``kind`` of their plans; others are the tiny network.
        alive: objects not yet released, by class name.
        released: class names of objects in the order they were released.
    """

    version: str
    release: tuple[int, int]
    cuda: FakeCudart
    creators: set[str] = field(default_factory=set)
    fail: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    engines: dict[str, Any] = field(default_factory=dict)
    alive: dict[str, int] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)

    def made(self, name: str, step: int) -> None:
        self.alive[name] = self.alive.get(name, 0) + step
        if step < 0:
            self.released.append(name)


class _DebugListener:
    def __init__(self) -> None:
        pass


class _Logger:
    def __init__(self) -> None:
        pass

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class _Context:
    def __init__(self, engine: _Engine, state: State) -> None:
        self._engine, self._state = engine, state
        first = state.release >= (10, 0) or state.alive.get("context", 0) == 0
        self.active_optimization_profile = 0 if first else -1
        self._shape: tuple[int, ...] | None = None
        self._sizes: tuple[int, ...] | None = None
        self._addresses: dict[str, int] = {}
        self._warm = False
        state.made("context", 1)

    def __del__(self) -> None:
        self._state.made("context", -1)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        index = profile_index
        self._state.calls.append(f"profile {index}")
        if "profile" in self._state.fail or not 0 <= index < self._engine.num_optimization_profiles:
            raise RuntimeError("Error in set optimization profile async.")
        self._state.cuda.enqueue(stream_handle, lambda: None)
        self.active_optimization_profile = index
        self._shape = self._sizes = None
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name in self._engine.inputs
        low, _, high = self._engine._profiles_of(name)[self.active_optimization_profile]
        if "shape" in self._state.fail or not low <= shape[0] <= high:
            return self._engine._error(
                "Error Code 3: API Usage Error (Parameter check failed, condition: supplied shape "
                "does not satisfy any optimization profiles)"
            )
        if name == "size":
            assert tuple(shape[1:]) == (2,)
            self._sizes, self._warm = tuple(shape), False
        else:
            self._shape, self._warm = tuple(shape), False
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self._shape is None:
            return tuple(-1 for _ in self._engine.get_tensor_shape(name))
        if self._engine.plan.get("data_dependent"):
            return (-1, CLASSES)
        if name in self._engine.inputs:
            return self._shape if name == "image" else self._sizes
        return (self._shape[0], *self._engine.get_tensor_shape(name)[1:])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if "address" in self._state.fail:
            return self._engine._error(f"No address for {name}")
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        stream, state, shape = stream_handle, self._state, self._shape
        cuda = state.cuda
        state.calls.append("execute")
        assert stream != 0, "the default stream"
        inputs = self._engine.inputs
        assert set(self._addresses) == {*inputs, *self._engine.outputs}, "no address set"
        assert shape is not None, "no shape set"
        assert len(inputs) == 1 or self._sizes == (shape[0], 2), "the inputs' batches differ"
        if cuda.capturing(stream) and (not self._warm or self._engine.plan.get("uncapturable")):
            cuda.break_capture(stream)
            return self._engine._error("CUDA error 900: operation not permitted in a capture")
        if "execute" in state.fail:
            return self._engine._error("Error Code 1: Cask (Cask convolution execution)")
        addresses, dtype = dict(self._addresses), self._engine.plan.get("dtype", "float32")
        integer = self._engine.integer

        def compute() -> None:
            image, size = cuda.view(addresses["image"], dtype, shape), None
            if "size" in inputs:
                size = cuda.view(addresses["size"], integer, (shape[0], 2))
            for index, name in enumerate(self._engine.outputs):
                if name == COUNT:
                    cuda.view(addresses[name], integer, shape[:1])[:] = size.prod(axis=1)
                    continue
                target = cuda.view(addresses[name], np.float32, (shape[0], CLASSES))
                target[:] = expected(image, size) * (index + 1)

        cuda.enqueue(stream, compute)
        self._warm = True
        return True


class _Engine:
    def __init__(self, plan: dict[str, Any], runtime: _Runtime) -> None:
        self.plan, self._runtime, self._state = plan, runtime, runtime.state
        self.outputs = list(plan.get("outputs", ["logits"]))
        self.inputs = list(plan.get("inputs", ["image"]))
        # TensorRT 8.6 knows no other integers (its parser casts those of ONNX down).
        self.integer = "int64" if runtime.state.release >= (10, 0) else "int32"
        self._state.made("engine", 1)

    def __del__(self) -> None:
        self._state.made("engine", -1)

    def __getattr__(self, name: str) -> Any:
        span = _ENGINE_SPANS.get(name)
        if span is None or not span[0] <= self._state.release < span[1]:
            raise AttributeError(f"'ICudaEngine' object has no attribute {name!r}")
        if name == "num_bindings":
            return len(self.inputs) + len(self.outputs)
        size = self.plan.get("context_bytes", 1000)
        return (lambda index: size) if name.startswith("get_") else size

    def _error(self, text: str) -> bool:
        self._runtime._say(Severity.ERROR, text)
        return False

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + len(self.outputs)

    @property
    def num_optimization_profiles(self) -> int:
        return max(len(self.plan["profiles"]), len(self.plan.get("size_profiles") or ()))

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        if name in ("size", COUNT):
            return DataType[self.integer.upper()]
        if name not in self.inputs:
            return DataType.FLOAT
        kinds = {"float32": DataType.FLOAT, "uint8": DataType.UINT8, "bfloat16": DataType.BF16}
        return kinds[self.plan.get("dtype", "float32")]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes = {size for profile in self._profiles_of(name) for size in profile}
        batch = -1 if len(sizes) > 1 else sizes.pop()
        return (batch, *self._tail(name))

    def _tail(self, name: str) -> tuple[int, ...]:
        if name in self.inputs:
            return (2,) if name == "size" else (1, 2, 3)
        return () if name == COUNT else (CLASSES,)

    def _profiles_of(self, name: str) -> list[list[int]]:
        """Batch sizes of each profile; those of ``size`` may be others than the images'."""
        other = self.plan.get("size_profiles") if name == "size" else None
        found = other or self.plan["profiles"]
        return found if len(found) > 1 else found * self.num_optimization_profiles

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [(batch, *self._tail(name)) for batch in self._profiles_of(name)[profile_index]]

    def create_execution_context(self) -> Any:
        cuda = self._state.cuda
        if cuda.used + self.plan.get("context_bytes", 1000) > cuda.total:
            self._error("Error Code 2: OutOfMemory (Requested amount of GPU memory is too much)")
            return None
        return _Context(self, self._state)


class _Runtime:
    state: State

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self.engine_host_code_allowed = False
        self.state.made("runtime", 1)

    def __del__(self) -> None:
        self.state.made("runtime", -1)

    def _say(self, severity: Any, text: str) -> None:
        self._logger.log(severity, text)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        data = serialized_engine
        self.state.calls.append("deserialize")
        refusal = self._refusal(data)
        if refusal:
            self._say(Severity.ERROR, refusal)
            return None
        plan = json.loads(data[HEADER_BYTES:])
        made = self.state.engines.get(plan.get("kind", ""), _Engine)
        return made(plan, self)

    def _refusal(self, data: bytes) -> str:
        """What TensorRT says about a plan it does not take; empty for one it takes."""
        if not data:
            return "Cannot deserialize with an empty memory buffer."
        if int.from_bytes(data[16:24], "little") != len(data):
            return "Serialization assertion plan.header.size == blobSize failed."
        plan = json.loads(data[HEADER_BYTES:])
        here = self.state.version
        if plan["version"].split(".")[:3] != here.split(".")[:3] and not plan.get("lean"):
            return (
                "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization "
                "assertion failed. The engine plan file is not compatible with this version of "
                f"TensorRT, expecting library version {here} got {plan['version']}, please "
                "rebuild.)"
            )
        if plan.get("lean") and not self.engine_host_code_allowed:
            return (
                "Cannot deserialize engine with lean runtime since "
                "IRuntime::getEngineHostCodeAllowed() is false."
            )
        if plan["cc"] != self.state.cuda.cc:
            return (
                "The engine plan file is generated on an incompatible device, expecting compute "
                f"{self.state.cuda.cc} got compute {plan['cc']}, please rebuild."
            )
        missing = [name for name in plan["plugins"] if name not in self.state.creators]
        if missing and not (plan.get("lean") and self.engine_host_code_allowed):
            return (
                "Error Code 1: Serialization (Cannot deserialize plugin since corresponding "
                "IPluginCreatorInterface not found in Plugin Registry)"
            )
        return ""


class _Registry:
    def __init__(self, state: State) -> None:
        self._state = state

    def load_library(self, plugin_path: str) -> Any:
        path = Path(plugin_path)
        self._state.calls.append(f"load {path.name}")
        new = set(json.loads(path.read_text())["ops"]) - self._state.creators
        self._state.creators |= new
        return object() if new else None

    def _find(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        known = (version, plugin_namespace) == ("1", "") and type in self._state.creators
        return object() if known else None

    def _find_old(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        return None


def runtime_module(version: str, cuda: FakeCudart) -> ModuleType:
    """A module ``tensorrt`` with the runtime of one release; its state is ``module.state``."""
    text = VERSIONS[version]
    numbers = tuple(int(part) for part in text.split(".")[:2])
    module = ModuleType("tensorrt")
    state = State(text, (numbers[0], numbers[1]), cuda)
    # The old name stays until 11, but finds plugins of the old interface only.
    finders = {"get_creator": _Registry._find} if numbers >= (10, 0) else {}
    if numbers < (11, 0):
        old = _Registry._find if numbers < (10, 0) else _Registry._find_old
        finders["get_plugin_creator"] = old
    registry = type("IPluginRegistry", (_Registry,), finders)(state)
    module.__dict__.update(
        __version__=text,
        state=state,
        ILogger=type("ILogger", (_Logger,), {"Severity": Severity}),
        Runtime=type("Runtime", (_Runtime,), {"state": state}),
        TensorIOMode=TensorIOMode,
        DataType=DataType if numbers >= (10, 0) else _DATA_TYPE_OF_8,
        get_plugin_registry=lambda: registry,
    )
    if numbers >= (10, 0):
        module.IDebugListener = type("IDebugListener", (_DebugListener,), {})
        module.TensorLocation = TensorLocation
    return module
