"""A CUDA driver over host memory, on which a copy to the device arrives when it is waited for."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from tests.support.host_device import HostDevice


class LateDriver:
    """What ``vim_deploy.cuda.driver`` calls of libcuda; kernels that run on the CPU can use its
    memory.

    A copy from pageable memory may be under way when its call returns (CUDA Driver API, "API
    synchronization behavior"). Here every one is, until somebody waits for all work. A captured
    launch runs when it is captured.

    Attributes:
        late: copies under way.
    """

    def __init__(self) -> None:
        self._memory = HostDevice()
        self.late: list[tuple[int, bytes]] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        """What has nothing to do here: contexts, streams, graphs."""
        if not name.startswith("cu"):
            raise AttributeError(name)
        return lambda *arguments: 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802 - libcuda's names
        count._obj.value = 1
        return 0

    def cuMemAlloc_v2(self, pointer: Any, size: ctypes.c_size_t) -> int:  # noqa: N802
        pointer._obj.value = self._memory.allocate(size.value)
        return 0

    def cuMemcpyHtoD_v2(  # noqa: N802
        self, pointer: ctypes.c_uint64, data: bytes, size: ctypes.c_size_t
    ) -> int:
        self.late.append((pointer.value, data[: size.value]))
        return 0

    def cuMemcpyDtoH_v2(  # noqa: N802
        self, buffer: Any, pointer: ctypes.c_uint64, size: ctypes.c_size_t
    ) -> int:
        ctypes.memmove(buffer, pointer.value, size.value)
        return 0

    def cuCtxSynchronize(self) -> int:  # noqa: N802
        for pointer, data in self.late:
            self._memory.write(pointer, data)
        self.late.clear()
        return 0
