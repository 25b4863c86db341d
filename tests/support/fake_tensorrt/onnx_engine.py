"""An engine of the stand-in that computes an ONNX file, with its debug tensors, in four releases.

The plan names the file, the outputs, and the debug tensors that were marked when it was built. All
tensors are computed by ONNX Runtime; a debug tensor reaches the listener only when it was marked
and is turned on, at the address of device memory that is taken back as soon as the listener
returns, as TensorRT guarantees it no longer. Like TensorRT's bindings it passes the address in a
capsule, and the names of debug tensors do not exist before TensorRT 10.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tests.support.fake_tensorrt.runtime import (
    DataType,
    Severity,
    State,
    TensorIOMode,
    TensorLocation,
)
from vim_deploy.onnx_graph import element_types
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner

#: ``kind`` of the plans, see ``runtime.State.engines``.
KIND = "onnx"
_TYPES = {
    TensorProto.FLOAT: DataType.FLOAT,
    TensorProto.FLOAT16: DataType.HALF,
    TensorProto.BFLOAT16: DataType.BF16,
    TensorProto.INT64: DataType.INT64,
}
_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT64: np.int64,
    DataType.INT32: np.int32,
}


def use_onnx_engines(state: State) -> None:
    """From now on plans of this kind are loaded."""
    state.engines[KIND] = OnnxEngine


class OnnxEngine:
    """A loaded plan: ``model`` (path), ``inputs``, ``outputs``, ``debug``, ``profiles``.

    Attributes:
        emitted: names of debug tensors given to a listener, in order.
    """

    def __init__(self, plan: dict[str, Any], runtime: Any) -> None:
        self.plan, self._runtime, self.state = plan, runtime, runtime.state
        self.emitted: list[str] = []
        model = onnx.load(plan["model"])
        self.types = {name: _TYPES[kind] for name, kind in element_types(model).items()
                      if kind in _TYPES}  # fmt: skip
        given = [value.name for value in model.graph.output]
        assert set(plan["outputs"]) | set(plan["debug"]) <= set(given)
        self.runner = OrtRunner(Path(plan["model"]), threads=1)
        if self.state.release < (10, 0):
            # TensorRT 8.6 knows no 64-bit integers.
            narrow = {DataType.INT64: DataType.INT32}
            self.types = {name: narrow.get(kind, kind) for name, kind in self.types.items()}
        specs = (self.runner.input, self.runner.size)
        self.tails = {spec.name: tuple(spec.shape[1:]) for spec in specs if spec is not None}
        self.state.made("engine", 1)

    def __del__(self) -> None:
        self.state.made("engine", -1)

    def _error(self, text: str) -> bool:
        self._runtime._say(Severity.ERROR, text)
        return False

    @property
    def num_io_tensors(self) -> int:
        return len(self.tails) + len(self.plan["outputs"])

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.plan["profiles"])

    def get_tensor_name(self, index: int) -> str:
        return [*self.tails, *self.plan["outputs"]][index]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name in self.tails else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType.FLOAT if name == self.runner.input.name else self.types[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.tails[name]) if name in self.tails else (-1, -1, -1)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [(batch, *self.tails[name]) for batch in self.plan["profiles"][profile_index]]

    def create_execution_context(self) -> Any:
        return _DebugContext(self) if self.state.release >= (10, 0) else _Context(self)


class _Context:
    def __init__(self, engine: OnnxEngine) -> None:
        self._engine = engine
        self.active_optimization_profile = 0
        self._given: dict[str, tuple[int, ...]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        engine.state.made("context", 1)

    def __del__(self) -> None:
        self._engine.state.made("context", -1)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        image = self._engine.runner.input.name
        assert tuple(shape[1:]) == self._engine.tails[name]
        self._given[name] = tuple(shape)
        if name == image:
            values = self._engine.runner.run(np.zeros(self._given[image], np.float32))
            self._shapes = {name: value.shape for name, value in values.items()}
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, stream = self._engine, stream_handle
        cuda = engine.state.cuda
        assert set(self._addresses) == {*engine.tails, *engine.plan["outputs"]}, "no address set"
        assert len({self._given[name][0] for name in engine.tails}) == 1, "the batches differ"
        # The listener is called while the work is enqueued, when what comes before has run.
        cuda.cudaStreamSynchronize(stream)
        given = [
            cuda.view(
                self._addresses[name], _NUMPY[engine.get_tensor_dtype(name)], self._given[name]
            )
            for name in engine.tails
        ]
        values = engine.runner.run(*given)
        for name in engine.plan["outputs"]:
            kind = _NUMPY[engine.types[name]]
            target = cuda.view(self._addresses[name], kind, values[name].shape)
            cuda.enqueue(stream, lambda to=target, value=values[name]: np.copyto(to, value))
        return self._emit(values, stream)

    def _emit(self, values: Any, stream: int) -> bool:
        return True


class _DebugContext(_Context):
    """With debug tensors, from TensorRT 10 on."""

    def __init__(self, engine: OnnxEngine) -> None:
        super().__init__(engine)
        self._listener: Any = None
        self._on: set[str] = set()

    def set_debug_listener(self, listener: Any) -> bool:
        self._listener = listener
        return True

    def set_tensor_debug_state(self, name: str, flag: bool) -> bool:
        if name not in self._engine.plan["debug"]:
            return self._engine._error(f"Tensor {name} is not a debug tensor")
        (self._on.add if flag else self._on.discard)(name)
        return True

    def set_all_tensors_debug_state(self, flag: bool) -> bool:
        self._on = set(self._engine.plan["debug"]) if flag else set()
        return True

    def _emit(self, values: Any, stream: int) -> bool:
        engine = self._engine
        lost = engine.plan.get("lost", ())
        for name in [name for name in engine.plan["debug"] if name in self._on]:
            if self._listener is not None and name not in lost:
                engine.emitted.append(name)
                if not self._give(name, np.ascontiguousarray(values[name]), stream):
                    return engine._error(f"the debug listener failed on {name}")
        return True

    def _give(self, name: str, value: Any, stream: int) -> bool:
        cuda, kind = self._engine.state.cuda, self._engine.types[name]
        if kind == DataType.BF16:
            data = (value.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        else:
            data = value.astype(_NUMPY[kind])
        status, pointer = cuda.cudaMalloc(data.nbytes)
        assert status == 0, "the pretended GPU is full"
        cuda.enqueue(stream, lambda: np.copyto(cuda.view(pointer, data.dtype, data.shape), data))
        try:
            return self._listener.process_debug_tensor(
                _capsule(pointer), TensorLocation.DEVICE, kind, data.shape, name, stream
            )
        finally:
            cuda.view(pointer, np.uint8, (data.nbytes,))[:] = 0xFF
            cuda.cudaFree(pointer)


def _capsule(pointer: int) -> Any:
    make = ctypes.pythonapi.PyCapsule_New
    make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    make.restype = ctypes.py_object
    return make(pointer, None, None)
