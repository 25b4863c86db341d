"""The CUDA driver (libcuda) through ctypes: GPUs, memory, streams and graphs, without torch.

The driver comes with the GPU's kernel module, so nothing has to be installed. Memory and streams
made here are those of the device's primary context, which the CUDA runtime uses as well.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vim_deploy.errors import VimDeployError

_ATTRIBUTE_MULTIPROCESSORS = 16
_ATTRIBUTE_MAJOR = 75
_ATTRIBUTE_MINOR = 76
#: cuStreamBeginCapture: an unsafe call of any other thread does not end the capture.
_CAPTURE_THREAD_LOCAL = 1
#: cuStreamCreate: no implicit waiting for the default stream.
_STREAM_NON_BLOCKING = 1


@dataclass(frozen=True)
class Gpu:
    """A GPU: name, compute capability, number of multiprocessors."""

    name: str
    major: int
    minor: int
    multiprocessors: int

    @property
    def architecture(self) -> str:
        """As nvcc writes it, without the prefix: ``90``."""
        return f"{self.major}{self.minor}"


def _no_gpu(why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-302",
        "no usable GPU",
        why=why,
        fix="run this on a machine with an NVIDIA GPU and its driver",
    )


@functools.lru_cache(maxsize=1)
def _load() -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise _no_gpu(f"the CUDA driver is not installed: {error}") from error
    status = driver.cuInit(0)
    if status != 0:
        raise _no_gpu(f"the CUDA driver does not start: {_name(driver, status)}")
    return driver


def _name(driver: ctypes.CDLL, status: int) -> str:
    text = ctypes.c_char_p()
    driver.cuGetErrorName(status, ctypes.byref(text))
    return f"{(text.value or b'unknown error').decode()} ({status})"


def _check(driver: ctypes.CDLL, status: int, what: str) -> None:
    if status != 0:
        raise VimDeployError(
            "VIM-904", f"the GPU refused to {what}", why=f"CUDA driver: {_name(driver, status)}"
        )


def gpu() -> Gpu:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves; VIM-302 when there is none."""
    driver = _load()
    device = _first_device(driver)
    name = ctypes.create_string_buffer(256)
    _check(driver, driver.cuDeviceGetName(name, len(name), device), "tell its name")

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        status = driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        _check(driver, status, "describe itself")
        return value.value

    return Gpu(
        name.value.decode(errors="replace"),
        attribute(_ATTRIBUTE_MAJOR),
        attribute(_ATTRIBUTE_MINOR),
        attribute(_ATTRIBUTE_MULTIPROCESSORS),
    )


def _first_device(driver: ctypes.CDLL) -> ctypes.c_int:
    count = ctypes.c_int()
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        raise _no_gpu("the CUDA driver lists no device")
    device = ctypes.c_int()
    _check(driver, driver.cuDeviceGet(ctypes.byref(device), 0), "be opened")
    return device


class Device:
    """The first GPU, with its primary context current in this thread and two streams.

    A context manager; everything made through it is freed at the end.

    Raises:
        VimDeployError: VIM-302 (no GPU), VIM-904 (a call failed).
    """

    def __init__(self) -> None:
        self._driver = _load()
        self._ordinal = _first_device(self._driver)
        self._memory: list[ctypes.c_uint64] = []
        self._graphs: list[ctypes.c_void_p] = []
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._ordinal)
        self._call("cuCtxSetCurrent", context)
        self._streams = [self._new_stream(), self._new_stream()]

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()
        for stream in self._streams:
            self._driver.cuStreamDestroy_v2(stream)
        self._streams = []
        self._driver.cuDevicePrimaryCtxRelease_v2(self._ordinal)

    def _call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401 - ctypes values
        _check(self._driver, getattr(self._driver, name)(*arguments), name)

    def _new_stream(self) -> ctypes.c_void_p:
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), _STREAM_NON_BLOCKING)
        return stream

    @property
    def streams(self) -> tuple[int, int]:
        """Handles of two streams, as ``cudaStream_t``."""
        first, second = (stream.value or 0 for stream in self._streams)
        return first, second

    def allocate(self, size: int) -> int:
        """Pointer to ``size`` bytes of device memory, at least 256-byte aligned."""
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        self._memory.append(pointer)
        return pointer.value

    def write(self, pointer: int, data: bytes) -> None:
        """Copy bytes to the device; waits until they are there.

        CUDA's call may return as soon as it has read them, and the two streams do not wait for the
        default one, on which the copy is.
        """
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(pointer), data, ctypes.c_size_t(len(data)))
        self.synchronize()

    def read(self, pointer: int, size: int) -> bytes:
        """Copy bytes from the device; waits."""
        buffer = ctypes.create_string_buffer(size)
        self._call("cuMemcpyDtoH_v2", buffer, ctypes.c_uint64(pointer), ctypes.c_size_t(size))
        return buffer.raw

    def synchronize(self) -> None:
        """Wait for everything enqueued."""
        self._call("cuCtxSynchronize")

    def capture(self, enqueue: Callable[[int], None]) -> Callable[[], None]:
        """A CUDA graph of what ``enqueue`` puts on the stream it is given; calling it replays."""
        stream = self._streams[0]
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", stream, _CAPTURE_THREAD_LOCAL)
        try:
            enqueue(stream.value or 0)
        finally:
            self._call("cuStreamEndCapture", stream, ctypes.byref(graph))
        self._call(
            "cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_uint64(0)
        )
        self._call("cuGraphDestroy", graph)
        self._graphs.append(executable)
        return lambda: self._call("cuGraphLaunch", executable, stream)

    def free(self) -> None:
        """Free all memory and graphs made so far."""
        for graph in self._graphs:
            self._driver.cuGraphExecDestroy(graph)
        for pointer in self._memory:
            self._driver.cuMemFree_v2(pointer)
        self._graphs, self._memory = [], []
