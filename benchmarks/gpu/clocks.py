"""How long a launch takes, and what the machine could do: clock and bandwidth of the same run.

On a GPU a CUDA graph of several launches is replayed between events, so that neither Python nor the
launching of a single graph is in the time. On the CPU, for rehearsals, launches are called in turn.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

Call = Callable[[], object]
#: Replays before the first that counts.
_WARM_UP = 3
#: Bytes of the copy that bandwidth is measured with: far more than any cache.
_COPIED = {"cuda": 1 << 30, "cpu": 1 << 24}
#: Nanoseconds of one count of cycles, and seconds of load before and after it.
_COUNTED = 2_000_000
_LOADED = 0.02


class Replay:
    """Launches as one piece of work, captured once."""

    def __init__(self, launches: Sequence[Call], device: torch.device) -> None:
        self._launches, self._device = list(launches), device
        self._run: Call = self._one_by_one
        for launch in self._launches:  # what is made at the first call is not captured
            launch()
        if device.type == "cuda":
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._one_by_one()
            self._run = graph.replay

    def _one_by_one(self) -> None:
        for launch in self._launches:
            launch()

    def __call__(self) -> None:
        self._run()

    def microseconds(self, replays: int) -> float:
        """Median over replays of the time of one launch."""
        if self._device.type == "cuda":
            for _ in range(_WARM_UP):
                self._run()
        times = [self._timed() for _ in range(replays)]
        return 1e6 * statistics.median(times) / len(self._launches)

    def _timed(self) -> float:
        if self._device.type != "cuda":
            began = time.perf_counter()
            self._run()
            return time.perf_counter() - began
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self._run()
        stop.record()
        stop.synchronize()
        return 1e-3 * float(start.elapsed_time(stop))


def copy_bandwidth(device: torch.device, replays: int = 8) -> float:
    """Bytes a second of a copy in device memory, read and written."""
    source = torch.zeros(_COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    replay = Replay([lambda: target.copy_(source)], device)
    return 2 * source.numel() / (1e-6 * replay.microseconds(replays))


class SmClock:
    """The clock of the multiprocessors, counted by a thread that runs while they work.

    Args:
        path: ``sm_clock.cu`` as a shared library.

    Raises:
        OSError: it cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self._count = ctypes.CDLL(str(path)).vim_count_cycles
        self._count.argtypes = [ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p]
        self._stream = torch.cuda.Stream()
        self._counted = torch.zeros(2, dtype=torch.int64, device="cuda")

    def hertz(self, load: Replay, microseconds: float) -> float:
        """Cycles a second during a load.

        Args:
            load: what is replayed before, during and after the count.
            microseconds: about what one replay takes.
        """
        times = max(1, round(1e6 * _LOADED / microseconds))
        for _ in range(times):
            load()
        # On a stream of its own it need not wait for the load; one thread finds room beside it.
        status = self._count(_COUNTED, self._counted.data_ptr(), self._stream.cuda_stream)
        if status != 0:
            raise RuntimeError(f"the count of cycles was not launched: CUDA error {status}")
        for _ in range(times):
            load()
        torch.cuda.synchronize()
        cycles, nanoseconds = self._counted.tolist()
        return 1e9 * float(cycles) / float(nanoseconds)
