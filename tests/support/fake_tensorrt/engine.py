"""Runtime, engine, inspector and refitter of the fake, as far as a build needs them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from tests.support.fake_tensorrt.api import Base, attribute, only
from tests.support.fake_tensorrt.plan import decode_plan, encode_plan

_TEN, _ELEVEN = (10, 0), (11, 0)
_NUMPY_TYPES = {"FLOAT": np.float32, "HALF": np.float16}
_BYTES = {"FLOAT": 4, "HALF": 2, "BF16": 2, "INT64": 8, "INT32": 4, "UINT8": 1, "BOOL": 1}


class Runtime(Base):
    """Turns plans into engines; None and a logged error where the real one does that."""

    engine_host_code_allowed = attribute(False)

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        fault, described = "", {}
        try:
            described = decode_plan(bytes(serialized_engine))
        except ValueError as error:
            fault = str(error)
        fault = fault or self._fault_of(described)
        if fault:
            self._logger.log(self.fake.module.ILogger.ERROR, fault)
            return None
        return self.fake.module.ICudaEngine(described)

    def _fault_of(self, engine: dict[str, Any]) -> str:
        if engine["version"] != self.fake.version and not engine["version_compatible"]:
            return (
                "The engine plan file is not compatible with this version of TensorRT, expecting "
                f"library version {self.fake.version} got {engine['version']}, please rebuild."
            )
        if engine["host_code"] and not self.engine_host_code_allowed:
            return (
                "Cannot deserialize engine with lean runtime since "
                "IRuntime::getEngineHostCodeAllowed() is false."
            )
        here, built = self.fake.compute_capability, engine["compute_capability"]
        if engine["hardware"] == "NONE" and here != built:
            return (
                "The engine plan file is generated on an incompatible device, expecting compute "
                f"{here} got compute {built}, please rebuild."
            )
        if set(engine["plugins"]) - set(self.fake.creators):
            return (
                "Cannot deserialize plugin since corresponding IPluginCreator not found in "
                "Plugin Registry"
            )
        return ""


@only(since=_TEN)
class IDebugListener:
    """Base of debug listeners."""

    def __init__(self) -> None:
        pass


@only(since=_TEN)
class ISerializationConfig(Base):
    """What to leave out of a plan."""

    flags = attribute(0)

    def clear_flag(self, flag: Any) -> bool:
        return True

    def set_flag(self, flag: Any) -> bool:
        return True


class ICudaEngine(Base):
    """An engine as its plan describes it."""

    def __init__(self, described: dict[str, Any]) -> None:
        self._described = described

    @property
    def refittable(self) -> bool:
        return bool(self._described["refit"])

    def _bytes(self) -> int:
        tensors = [*self._described["inputs"], *self._described["outputs"]]
        return sum(_BYTES[tensor["dtype"]] for tensor in tensors) << 20

    @property
    def device_memory_size(self) -> int:
        return self._bytes()

    device_memory_size.fget.span = ((0, 0), _ELEVEN)  # type: ignore[attr-defined]

    @property
    def device_memory_size_v2(self) -> int:
        return self._bytes()

    device_memory_size_v2.fget.span = ((10, 3), (99, 0))  # type: ignore[attr-defined]

    def create_engine_inspector(self) -> Any:
        return self.fake.module.EngineInspector(self._described)

    def serialize(self) -> bytes:
        return encode_plan(self._described)

    @only(since=_TEN)
    def create_serialization_config(self) -> Any:
        return self.fake.module.ISerializationConfig()

    @only(since=_TEN)
    def serialize_with_config(self, config: Any) -> bytes:
        return encode_plan({**self._described, "stripped": False})


class EngineInspector(Base):
    """Describes an engine; 11 calls the bindings I/O tensors."""

    def __init__(self, described: dict[str, Any]) -> None:
        self._described = described

    def get_engine_information(self, format: Any) -> str:
        ends = [item["name"] for item in (*self._described["inputs"], *self._described["outputs"])]
        key = "I/O Tensors" if self.fake.release >= _ELEVEN else "Bindings"
        return json.dumps({"Layers": self._described["layers"], key: ends})


class Weights:
    """Values for a refitter, in place; 10 and later also take a type, a pointer and a number."""

    def __init__(self, a: np.ndarray[Any, Any]) -> None:
        if a.dtype not in _NUMPY_TYPES.values():
            raise ValueError(f"Could not implicitly convert NumPy data type: {a.dtype}")
        self._values = a

    @property
    def size(self) -> int:
        return self._values.size

    @property
    def dtype(self) -> Any:
        return self._values.dtype


class Refitter(Base):
    """Gives an engine other weights, by name."""

    def __init__(self, engine: Any, logger: Any) -> None:
        if not engine._described["refit"]:
            raise RuntimeError("the engine is not refittable")
        self._engine, self._logger, self._set = engine, logger, {}

    def get_all_weights(self) -> list[str]:
        return [*self._engine._described["weights"], *self.fake.missing_weights]

    def get_missing_weights(self) -> list[str]:
        return list(self.fake.missing_weights)

    def set_named_weights(self, name: str, weights: Any) -> bool:
        kind, size, _ = self._engine._described["weights"].get(name, (None, -1, ""))
        if kind is None or weights.size != size or weights.dtype != _NUMPY_TYPES[kind]:
            self._logger.log(
                self.fake.module.ILogger.ERROR,
                f"Refit weights {name} have {weights.size} values of {weights.dtype}",
            )
            return False
        self._set[name] = [kind, size, hashlib.sha256(weights._values.tobytes()).hexdigest()]
        return True

    def refit_cuda_engine(self) -> bool:
        if self.fake.missing_weights:
            return False
        self._engine._described["weights"].update(self._set)
        return True


CLASSES = (
    Runtime, IDebugListener, ISerializationConfig, ICudaEngine, EngineInspector, Weights, Refitter,
)  # fmt: skip
