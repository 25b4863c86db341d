"""Debug tensors of TensorRT 10 and later: copied to the host while an engine runs.

TensorRT calls the listener on the host as it enqueues the work; what the address holds is
guaranteed for the duration of that call only (TensorRT's documentation of ``IDebugListener``). So
each call copies, on the stream that it is told, and waits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from vim_deploy.artifact.engine_file import DATA_TYPES
from vim_deploy.cuda.runtime import Cuda
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import Array
from vim_deploy.runtimes.tensorrt.engine import LoadedEngine

#: Names an error lists before it only counts.
_LISTED = 3


class DebugReader:
    """Takes the debug tensors of one execution context.

    Args:
        cuda: the GPU.
        loaded: the engine.
        context: of it, which keeps the listener.

    Raises:
        VimDeployError: VIM-904 when TensorRT takes no listener.
    """

    def __init__(self, cuda: Cuda, loaded: LoadedEngine, context: Any) -> None:  # noqa: ANN401
        self._cuda, self._loaded, self._context = cuda, loaded, context
        self._found: dict[str, Array] = {}
        self._failure: VimDeployError | None = None
        reader, module = self, loaded.module

        class Listener(module.IDebugListener):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                module.IDebugListener.__init__(self)

            def process_debug_tensor(
                self,
                addr: Any,  # noqa: ANN401 - a capsule
                location: Any,  # noqa: ANN401
                type: Any,  # noqa: ANN401 - TensorRT's name
                shape: Any,  # noqa: ANN401
                name: str,
                stream: int,
            ) -> bool:
                return reader._take(addr, location, type, shape, name, int(stream))

        self._listener = Listener()
        loaded.ask("take a debug listener", context.set_debug_listener, self._listener)

    def _take(
        self,
        address: Any,  # noqa: ANN401
        location: Any,  # noqa: ANN401
        kind: Any,  # noqa: ANN401
        shape: Any,  # noqa: ANN401
        name: str,
        stream: int,
    ) -> bool:
        """Keep a copy; False when that failed, and the reason for ``reading`` to raise."""
        try:
            sizes = tuple(int(size) for size in shape)
            dtype = DATA_TYPES[kind.name]
            half = dtype == "bfloat16"
            raw = np.empty(sizes, np.dtype(np.uint16 if half else dtype))
            if location.name == "HOST":
                ctypes.memmove(raw.ctypes.data, pointer_of(address), raw.nbytes)
            else:
                self._download(raw, pointer_of(address), stream)
            self._found[name] = _widened(raw) if half else raw
        # Nothing may reach TensorRT, whose C++ code calls this.
        except VimDeployError as error:
            self._failure = self._failure or error
            return False
        except Exception as error:
            what = f"hand over the inner tensor {name!r}"
            self._failure = self._failure or self._loaded.refused(what, repr(error))
            return False
        return True

    def _download(self, target: Array, source: int, stream: int) -> None:
        """Copy from the GPU by way of page-locked memory; waits."""
        host = self._cuda.allocate_host(target.nbytes)
        try:
            self._cuda.to_host(host, source, target.nbytes, stream)
            self._cuda.synchronize(stream)
            ctypes.memmove(target.ctypes.data, host, target.nbytes)
        finally:
            self._cuda.free_host(host)

    @contextmanager
    def reading(self, names: Sequence[str]) -> Iterator[dict[str, Array]]:
        """Fill a dictionary with the debug tensors ``names`` of a run inside the block.

        bfloat16 comes as float32, other types as they are.

        Raises:
            VimDeployError: VIM-904 when TensorRT does not give one of them out, or a copy fails.
        """
        self._found, self._failure = {}, None
        state = self._context.set_tensor_debug_state
        for name in names:
            self._loaded.ask(f"give out the inner tensor {name!r}", state, name, True)
        try:
            yield self._found
        except VimDeployError as error:
            if self._failure is None:
                raise
            # The run ended because the copy did.
            raise self._failure from error
        finally:
            self._context.set_all_tensors_debug_state(False)
        if self._failure is not None:
            raise self._failure
        missing = [name for name in names if name not in self._found]
        if missing:
            more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
            listed = ", ".join(map(repr, missing[:_LISTED])) + more
            raise self._loaded.refused(f"give out the inner tensors {listed}")

    def close(self) -> None:
        """Let go of the context; it holds the listener, and so neither would ever go by itself."""
        self._context = None


def pointer_of(address: Any) -> int:  # noqa: ANN401 - what a binding gives for a void pointer
    """The address in a capsule, as pybind11 passes ``void const*``, or in a plain number."""
    if isinstance(address, int):
        return address
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.argtypes, get.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
    return int(get(address, None) or 0)


def _widened(raw: Array) -> Array:
    """bfloat16, as 16-bit numbers, to float32: it is the upper half of one."""
    wide: Array = (raw.astype(np.uint32) << 16).view(np.float32)
    return wide
