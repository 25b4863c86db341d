"""A stand-in for ``cuda.bindings.runtime``: device memory as host memory, and strict.

Work on a stream is not done when it is enqueued but when somebody waits for it, as late as CUDA may
do it, so a missing synchronisation or a buffer freed too early shows. A copy outside of what was
allocated, a free of what was not, or waiting inside a capture is an AssertionError; ``leaks`` names
what was never given back.
"""

# The names are those of the bindings.
# ruff: noqa: N802, N815

from __future__ import annotations

import ctypes
import enum
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

Work = Callable[[], None]
_GUARD = 0xA5
_GUARD_BYTES = 64


class _Error(enum.IntEnum):
    SUCCESS = 0
    OUT_OF_MEMORY = 2
    OLD_DRIVER = 35
    NO_DEVICE = 100
    ILLEGAL_ADDRESS = 700
    CAPTURE_UNSUPPORTED = 900
    CAPTURE_INVALIDATED = 901


@dataclass
class _Block:
    """One allocation with guard bytes behind it."""

    size: int
    device: bool
    memory: Any

    @property
    def start(self) -> int:
        return ctypes.addressof(self.memory)

    def intact(self) -> bool:
        return all(byte == _GUARD for byte in bytes(self.memory)[self.size :])


@dataclass
class _Stream:
    """Work enqueued and not done; the graph it is captured into, if any."""

    work: list[Work] = field(default_factory=list)
    capture: list[Work] | None = None
    broken: bool = False
    thread: int = 0


class FakeCudart:
    """The functions of the bindings that are used, on one pretended GPU.

    Attributes:
        total: bytes of the GPU's memory.
        failing: function name -> error number it answers with.
        calls: names of all functions called.
    """

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaMemoryType = SimpleNamespace(cudaMemoryTypeManaged=3)
    cudaStreamCaptureMode = SimpleNamespace(
        cudaStreamCaptureModeGlobal=0, cudaStreamCaptureModeThreadLocal=1
    )

    def __init__(self, total: int = 1 << 20, name: str = "Fake H200", cc: str = "9.0") -> None:
        self.total, self.name, self.cc = total, name, cc
        self.failing: dict[str, int] = {}
        self.calls: list[str] = []
        self._blocks: dict[int, _Block] = {}
        self._streams: dict[int, _Stream] = {}
        self._events: dict[int, tuple[int, int]] = {}
        self._timers: dict[int, bool] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._templates: dict[int, list[Work]] = {}
        self._handles = itertools.count(0x1000)
        self._lock = threading.RLock()

    def __getattribute__(self, name: str) -> Any:
        member = super().__getattribute__(name)
        if not name.startswith("cuda") or not callable(member):
            return member

        def call(*arguments: Any) -> Any:
            with self._lock:
                self.calls.append(name)
                if name in self.failing:
                    return (_Error(self.failing[name]), None)
                return member(*arguments)

        return call

    # Device

    def cudaGetDeviceCount(self) -> Any:
        return _Error.SUCCESS, 1

    def cudaGetDevice(self) -> Any:
        return _Error.SUCCESS, 0

    def cudaSetDevice(self, device: int) -> Any:
        assert device == 0
        return (_Error.SUCCESS,)

    def cudaGetDeviceProperties(self, device: int) -> Any:
        assert device == 0
        major, minor = (int(part) for part in self.cc.split("."))
        found = SimpleNamespace(
            name=self.name.encode(), major=major, minor=minor, totalGlobalMem=self.total
        )
        return _Error.SUCCESS, found

    def cudaGetErrorString(self, error: int) -> Any:
        return _Error.SUCCESS, f"text of error {int(error)}".encode()

    # Memory

    @property
    def used(self) -> int:
        """Bytes of device memory taken."""
        return sum(block.size for block in self._blocks.values() if block.device)

    def cudaMemGetInfo(self) -> Any:
        return _Error.SUCCESS, self.total - self.used, self.total

    def _allocate(self, size: int, device: bool) -> Any:
        self._refuse_in_capture()
        if device and self.used + size > self.total:
            return _Error.OUT_OF_MEMORY, None
        memory = (ctypes.c_uint8 * (size + _GUARD_BYTES))()
        ctypes.memset(memory, _GUARD, size + _GUARD_BYTES)
        block = _Block(size, device, memory)
        self._blocks[block.start] = block
        return _Error.SUCCESS, block.start

    def cudaMalloc(self, size: int) -> Any:
        return self._allocate(size, True)

    def cudaMallocHost(self, size: int) -> Any:
        return self._allocate(size, False)

    def _release(self, pointer: int, device: bool) -> Any:
        block = self._blocks.pop(pointer, None)
        assert block is not None, f"free of {pointer:#x}, which is not allocated"
        assert block.device is device, "device and host memory mixed up in a free"
        assert block.intact(), "somebody wrote behind an allocation"
        # cudaFree waits for the device; what is pending may use the block.
        self._drain()
        return (_Error.SUCCESS,)

    def cudaFree(self, pointer: int) -> Any:
        self._drain()
        return self._release(pointer, True)

    def cudaFreeHost(self, pointer: int) -> Any:
        return self._release(pointer, False)

    def view(self, pointer: int, dtype: Any, shape: tuple[int, ...], *, device: bool = True) -> Any:
        """The memory at ``pointer`` as an array, after a check of its bounds."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        for block in self._blocks.values():
            if block.start <= pointer and pointer + size <= block.start + block.size:
                assert block.device is device, "device and host memory mixed up"
                offset = pointer - block.start
                return np.ndarray(shape, kind, block.memory, offset)
        raise AssertionError(f"{size} bytes at {pointer:#x} are not allocated")

    def cudaPointerGetAttributes(self, pointer: int) -> Any:
        for block in self._blocks.values():
            if block.start <= pointer < block.start + block.size:
                kind = 2 if block.device else 1
                return _Error.SUCCESS, SimpleNamespace(type=kind, device=0)
        return _Error.SUCCESS, SimpleNamespace(type=0, device=-2)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> Any:
        upload = kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice

        def copy() -> None:
            data = self.view(source, np.uint8, (size,), device=not upload)
            self.view(target, np.uint8, (size,), device=upload)[:] = data

        self.enqueue(stream, copy)
        return (_Error.SUCCESS,)

    # Streams and events

    def enqueue(self, stream: int, work: Work) -> None:
        """Put work on a stream, or into the graph it is captured into."""
        with self._lock:
            assert stream in self._streams, f"stream {stream:#x} does not exist"
            found = self._streams[stream]
            (found.work if found.capture is None else found.capture).append(work)

    def break_capture(self, stream: int) -> bool:
        """Let a capture on ``stream`` come to nothing, as a call that waits does."""
        found = self._streams[stream]
        found.broken = found.capture is not None
        return found.broken

    def capturing(self, stream: int) -> bool:
        """Whether ``stream`` is being captured."""
        return self._streams[stream].capture is not None

    def _refuse_in_capture(self) -> None:
        here = threading.get_ident()
        capturing = [
            item
            for item in self._streams.values()
            if item.capture is not None and item.thread == here
        ]
        assert not capturing, "an allocation or a wait inside a capture"

    def _drain(self, stream: int | None = None) -> None:
        for handle in [stream] if stream is not None else list(self._streams):
            found = self._streams[handle]
            while found.work:
                found.work.pop(0)()

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        assert flags == 1, "a stream that waits for the default stream"
        handle = next(self._handles)
        self._streams[handle] = _Stream()
        return _Error.SUCCESS, handle

    def cudaStreamDestroy(self, stream: int) -> Any:
        assert stream in self._streams, "a stream destroyed twice"
        assert not self._streams[stream].work, "a stream destroyed before its work was waited for"
        del self._streams[stream]
        return (_Error.SUCCESS,)

    def cudaStreamSynchronize(self, stream: int) -> Any:
        self._refuse_in_capture()
        assert stream in self._streams
        self._drain(stream)
        return (_Error.SUCCESS,)

    def cudaDeviceSynchronize(self) -> Any:
        self._refuse_in_capture()
        self._drain()
        return (_Error.SUCCESS,)

    def cudaEventCreateWithFlags(self, flags: int) -> Any:
        assert flags == 2
        handle = next(self._handles)
        self._events[handle] = (0, 0)
        return _Error.SUCCESS, handle

    def cudaEventCreate(self) -> Any:
        handle = next(self._handles)
        self._events[handle] = (0, 0)
        self._timers[handle] = False
        return _Error.SUCCESS, handle

    def cudaEventElapsedTime(self, start: int, end: int) -> Any:
        """Always a quarter of a millisecond, for timers that were recorded and reached."""
        for timer in (start, end):
            assert self._timers[timer], "a timer that was not recorded"
            stream, count = self._events[timer]
            assert not (count and self._streams[stream].work), "a timer that was not reached"
        return _Error.SUCCESS, 0.25

    def cudaEventRecord(self, event: int, stream: int) -> Any:
        assert self._streams[stream].capture is None, "a timer recorded into a graph"
        self._events[event] = (stream, len(self._streams[stream].work))
        if event in self._timers:
            self._timers[event] = True
        return (_Error.SUCCESS,)

    def _reach(self, stream: int, count: int) -> None:
        found = self._streams.get(stream)
        for _ in range(count):
            if found is not None and found.work:
                found.work.pop(0)()

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> Any:
        recorded = self._events[event]
        self.enqueue(stream, lambda: self._reach(*recorded))
        return (_Error.SUCCESS,)

    def cudaEventSynchronize(self, event: int) -> Any:
        self._refuse_in_capture()
        self._reach(*self._events[event])
        return (_Error.SUCCESS,)

    def cudaEventDestroy(self, event: int) -> Any:
        del self._events[event]
        return (_Error.SUCCESS,)

    # Graphs

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> Any:
        assert mode == 1, "a capture that other threads can break"
        self._streams[stream].capture = []
        self._streams[stream].broken = False
        self._streams[stream].thread = threading.get_ident()
        return (_Error.SUCCESS,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        found = self._streams[stream]
        work, found.capture = found.capture, None
        if found.broken:
            return _Error.CAPTURE_INVALIDATED, None
        handle = next(self._handles)
        self._templates[handle] = work or []
        return _Error.SUCCESS, handle

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:
        handle = next(self._handles)
        self._graphs[handle] = self._templates[graph]
        return _Error.SUCCESS, handle

    def cudaGraphDestroy(self, graph: int) -> Any:
        del self._templates[graph]
        return (_Error.SUCCESS,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> Any:
        for work in self._graphs[graph]:
            self.enqueue(stream, work)
        return (_Error.SUCCESS,)

    def cudaGraphExecDestroy(self, graph: int) -> Any:
        self._drain()
        del self._graphs[graph]
        return (_Error.SUCCESS,)

    def leaks(self) -> dict[str, int]:
        """What is still there: kind -> how many."""
        counts = {
            "blocks": len(self._blocks),
            "streams": len(self._streams),
            "events": len(self._events),
            "graphs": len(self._graphs) + len(self._templates),
        }
        return {name: count for name, count in counts.items() if count}
