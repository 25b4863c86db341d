"""Host memory behind the interface of a GPU, for the kernels that run on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

_ALIGNMENT = 64


class HostDevice:
    """Allocates and copies in host memory; streams and graphs run at once."""

    streams = (0, 0)

    def __init__(self) -> None:
        self._memory: dict[int, object] = {}

    def allocate(self, size: int) -> int:
        buffer = ctypes.create_string_buffer(size + _ALIGNMENT)
        address = -(-ctypes.addressof(buffer) // _ALIGNMENT) * _ALIGNMENT
        self._memory[address] = buffer
        return address

    def write(self, pointer: int, data: bytes) -> None:
        ctypes.memmove(pointer, data, len(data))

    def read(self, pointer: int, size: int) -> bytes:
        return ctypes.string_at(pointer, size)

    def synchronize(self) -> None:
        pass

    def capture(self, enqueue: Callable[[int], None]) -> Callable[[], None]:
        return lambda: enqueue(0)

    def free(self) -> None:
        self._memory.clear()
