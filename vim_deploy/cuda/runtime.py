"""The CUDA runtime: the only module that imports NVIDIA's bindings of it (cuda-bindings).

Memory, streams, events and graphs as plain integers and handles, each failure as a coded error.
The bindings import without a driver; the first call finds out that there is none.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from vim_deploy.errors import VimDeployError, import_package, missing_package

_MODULE = "cuda.bindings.runtime"

#: cudaErrorMemoryAllocation.
_OUT_OF_MEMORY = 2
#: Errors that mean there is no GPU to work with: initialisation, stub library, old driver, no
#: device, driver and library of different versions, compatibility mode not supported (CUDA Runtime
#: API, enum cudaError).
_NO_GPU = frozenset({3, 34, 35, 100, 803, 804})
#: cudaStreamNonBlocking: no implicit waiting for the default stream.
_NON_BLOCKING = 1
#: cudaEventDisableTiming: an event to wait for, not to measure with.
_NO_TIMING = 2
#: cudaMemoryTypeDevice and cudaMemoryTypeManaged.
_ON_GPU = frozenset({2, 3})


@dataclass(frozen=True)
class DeviceInfo:
    """A GPU: number, name, compute capability such as ``9.0``, bytes of memory."""

    index: int
    name: str
    compute_capability: str
    total_bytes: int


def is_installed() -> bool:
    """Whether the package can be found; says nothing about a driver."""
    try:
        return importlib.util.find_spec(_MODULE) is not None
    except ModuleNotFoundError:
        return False


def load() -> ModuleType:
    """The module ``cuda.bindings.runtime``.

    Raises:
        VimDeployError: VIM-301 when it is not installed or does not load.
    """
    if not is_installed():
        raise missing_package("cuda-bindings", "trt-run", "running an engine")
    return import_package(_MODULE, "cuda-bindings", "--force-reinstall", "cuda-bindings")


class Cuda:
    """The CUDA runtime on the GPU that is current in this thread.

    Handles are what the bindings give; a stream is an int. Nothing is freed by itself.

    Raises:
        VimDeployError: VIM-301 (no bindings), VIM-302 (no usable GPU). Every method: VIM-906 when
            the GPU's memory does not suffice, VIM-904 when CUDA refuses for another reason.
    """

    def __init__(self) -> None:
        self._runtime = load()
        self._call("cudaGetDeviceCount")
        self.device = int(self._call("cudaGetDevice"))

    def _call(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - untyped bindings
        status, *values = getattr(self._runtime, name)(*arguments)
        if int(status) != 0:
            raise self._error(name, status)
        return values[0] if len(values) == 1 else values

    def _error(self, name: str, status: Any) -> VimDeployError:  # noqa: ANN401
        text = self._runtime.cudaGetErrorString(status)[1]
        said = f"{name}: {text.decode(errors='replace')} (CUDA error {int(status)})"
        if int(status) in _NO_GPU:
            return VimDeployError(
                "VIM-302",
                "no usable GPU",
                why=said,
                fix="run this on a machine with an NVIDIA GPU and a driver for this CUDA version",
            )
        if int(status) == _OUT_OF_MEMORY:
            return out_of_memory(said)
        return VimDeployError(
            "VIM-904",
            "the GPU refused to go on",
            why=said,
            fix="other errors of this process may be the cause: run one engine at a time with -v",
        )

    def use(self) -> None:
        """Make the GPU of this object current in the calling thread."""
        self._call("cudaSetDevice", self.device)

    def info(self) -> DeviceInfo:
        """What the GPU is."""
        found = self._call("cudaGetDeviceProperties", self.device)
        name = found.name.decode(errors="replace") if isinstance(found.name, bytes) else found.name
        return DeviceInfo(
            self.device, name, f"{found.major}.{found.minor}", int(found.totalGlobalMem)
        )

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the GPU's memory, all processes together."""
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        """Pointer to at least ``size`` bytes on the GPU, aligned for any tensor."""
        return int(self._call("cudaMalloc", max(size, 1)))

    def free(self, pointer: int) -> None:
        """Free what ``allocate`` gave."""
        self._call("cudaFree", pointer)

    def allocate_host(self, size: int) -> int:
        """Pointer to at least ``size`` bytes of page-locked host memory."""
        return int(self._call("cudaMallocHost", max(size, 1)))

    def free_host(self, pointer: int) -> None:
        """Free what ``allocate_host`` gave."""
        self._call("cudaFreeHost", pointer)

    def on_gpu(self, pointer: int) -> bool:
        """Whether ``pointer`` is memory of this GPU, or managed memory."""
        found = self._call("cudaPointerGetAttributes", pointer)
        managed = self._runtime.cudaMemoryType.cudaMemoryTypeManaged
        return int(found.type) in _ON_GPU and (
            found.type == managed or int(found.device) == self.device
        )

    def create_stream(self) -> int:
        """A stream that does not wait for the default stream."""
        return int(self._call("cudaStreamCreateWithFlags", _NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream after its work is done."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait for everything enqueued on ``stream``."""
        self._call("cudaStreamSynchronize", stream)

    def synchronize_device(self) -> None:
        """Wait for everything enqueued on any stream."""
        self._call("cudaDeviceSynchronize")

    def to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Enqueue a copy from page-locked host memory."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Enqueue a copy to page-locked host memory."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def create_event(self) -> Any:  # noqa: ANN401 - an opaque handle
        """An event to wait for."""
        return self._call("cudaEventCreateWithFlags", _NO_TIMING)

    def create_timer(self) -> Any:  # noqa: ANN401 - an opaque handle
        """An event to measure with: see ``elapsed_seconds``."""
        return self._call("cudaEventCreate")

    def elapsed_seconds(self, start: Any, end: Any) -> float:  # noqa: ANN401
        """GPU time between two recorded timers that were both reached, to about 0.5 us."""
        return float(self._call("cudaEventElapsedTime", start, end)) / 1e3

    def record(self, event: Any, stream: int) -> None:  # noqa: ANN401
        """Let ``event`` stand for everything enqueued on ``stream`` so far."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: Any) -> None:  # noqa: ANN401
        """Let ``stream`` wait for ``event`` on the GPU."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: Any) -> None:  # noqa: ANN401
        """Wait for ``event``."""
        self._call("cudaEventSynchronize", event)

    def destroy_event(self, event: Any) -> None:  # noqa: ANN401
        """Destroy an event."""
        self._call("cudaEventDestroy", event)

    def begin_capture(self, stream: int) -> None:
        """Capture what is enqueued on ``stream``; other threads may go on using CUDA meanwhile."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> Any:  # noqa: ANN401 - an opaque handle
        """The captured graph, ready to be launched."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: int) -> None:  # noqa: ANN401
        """Enqueue a captured graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:  # noqa: ANN401
        """Destroy what ``end_capture`` gave."""
        self._call("cudaGraphExecDestroy", graph)


def out_of_memory(why: str) -> VimDeployError:
    """VIM-906."""
    return VimDeployError(
        "VIM-906",
        "the GPU's memory does not suffice",
        why=why,
        fix="end other programs on this GPU (nvidia-smi lists them), use a smaller batch or fewer "
        "contexts, or build the engine with a smaller --max-batch",
    )
