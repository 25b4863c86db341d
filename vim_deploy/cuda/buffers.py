"""Memory that belongs to somebody: growing pairs of device and host memory, and device arrays."""

from __future__ import annotations

import ctypes
import math
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vim_deploy.cuda.runtime import Cuda


class StagingBuffer:
    """Device memory for one tensor, with page-locked host memory for its copies.

    It grows and never shrinks, so its address changes only while it grows.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._size = 0
        self.device = 0
        self._host = 0

    def fit(self, size: int) -> None:
        """Make room for ``size`` bytes; what was in it may be lost."""
        if size <= self._size and self.device:
            return
        self.close()
        self.device = self._cuda.allocate(size)
        self._host = self._cuda.allocate_host(size)
        self._size = size

    @property
    def bytes(self) -> int:
        """Device memory taken."""
        return self._size

    def host(self, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """The host memory as an array; valid until the buffer grows or is closed."""
        return _as_array(self._host, np.dtype(dtype), shape)

    def upload(self, size: int, stream: int) -> None:
        """Enqueue the copy of ``size`` bytes to the device."""
        self._cuda.to_device(self.device, self._host, size, stream)

    def download(self, size: int, stream: int) -> None:
        """Enqueue the copy of ``size`` bytes to the host."""
        self._cuda.to_host(self._host, self.device, size, stream)

    def close(self) -> None:
        """Free both."""
        device, host = self.device, self._host
        self.device = self._host = self._size = 0
        try:
            if device:
                self._cuda.free(device)
        finally:
            if host:
                self._cuda.free_host(host)


def _as_array(pointer: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    size = math.prod(shape) * dtype.itemsize
    memory = (ctypes.c_uint8 * size).from_address(pointer)
    return np.ndarray(shape, dtype, memoryview(memory))


class DeviceArray:
    """An array on the GPU that owns its memory.

    ``torch.as_tensor(array, device="cuda")``, CuPy and others take it without a copy, through
    ``__cuda_array_interface__``. Its contents are complete when the call that gave it returned, or
    in stream order when that call was given a stream.
    """

    def __init__(self, cuda: Cuda, dtype: str, shape: tuple[int, ...]) -> None:
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self._cuda = cuda
        self.pointer = cuda.allocate(self.nbytes)
        self._finalizer = weakref.finalize(self, cuda.free, self.pointer)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if not self._finalizer.alive:
            raise ValueError("this array was closed")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def numpy(self) -> NDArray[Any]:
        """A copy on the host; waits for the whole device."""
        self._cuda.use()
        self._cuda.synchronize_device()
        stream = self._cuda.create_stream()
        host = self._cuda.allocate_host(self.nbytes)
        try:
            self._cuda.to_host(host, self.pointer, self.nbytes, stream)
            self._cuda.synchronize(stream)
            return _as_array(host, self.dtype, self.shape).copy()
        finally:
            self._cuda.free_host(host)
            self._cuda.destroy_stream(stream)

    def close(self) -> None:
        """Free the memory now; it is freed with the last reference anyway."""
        self._finalizer()
