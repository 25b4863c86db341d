"""A lane: one execution context with its stream, buffers and CUDA graph; one call at a time.

A graph is captured on the second call of the same shape and addresses: TensorRT's first call after
a change of shape does things that cannot be captured. A context keeps what depends on the shape in
memory of its own, which a captured graph reads as well, so a lane's graphs go when its shape
changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vim_deploy.artifact.profiles import Shape
from vim_deploy.cuda.buffers import StagingBuffer
from vim_deploy.cuda.runtime import Cuda
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import Array
from vim_deploy.runtimes.tensorrt.debug import DebugReader
from vim_deploy.runtimes.tensorrt.engine import LoadedEngine

#: Addresses of each tensor, by name.
Addresses = Mapping[str, int]
#: Sets of addresses a lane keeps a graph for; beyond that the oldest goes.
_MAX_GRAPHS = 8


class Lane:
    """One execution context and what belongs to it.

    Args:
        cuda: the GPU.
        loaded: the engine; it has to outlive the lane.
        cuda_graph: capture the second call of a shape, and replay that from then on.
        timed: measure on the GPU how long ``run`` computes.

    Attributes:
        device_seconds: GPU time of the latest ``run``, copies not included; None when not timed.

    Raises:
        VimDeployError: VIM-906 when the GPU's memory does not suffice.
    """

    def __init__(
        self, cuda: Cuda, loaded: LoadedEngine, cuda_graph: bool, timed: bool = False
    ) -> None:
        self._cuda, self._loaded, self._cuda_graph = cuda, loaded, cuda_graph
        self.shape: Shape | None = None
        self.device_seconds: float | None = None
        self._timers: tuple[Any, ...] = ()
        self._profile: int | None = None
        self._graphs: dict[tuple[tuple[str, int], ...], Any] = {}
        self._buffers: dict[str, StagingBuffer] = {}
        self._pending: Any = None
        self._reader: DebugReader | None = None
        self._context = loaded.create_context()
        try:
            self.stream = cuda.create_stream()
        except BaseException:
            self._context = None
            raise
        if timed:
            self._timers = (cuda.create_timer(), cuda.create_timer())
        tensors = (*loaded.inputs, *loaded.outputs)
        self._buffers = {tensor.name: StagingBuffer(cuda) for tensor in tensors}

    @property
    def buffer_bytes(self) -> int:
        """Device memory of its buffers."""
        return sum(buffer.bytes for buffer in self._buffers.values())

    def prepare(self, shape: Shape) -> dict[str, Shape]:
        """Set the image's shape, and with it the batch of all inputs; the outputs' shapes.

        Raises:
            VimDeployError: VIM-905 when no profile takes it, VIM-415 when an output's shape
                depends on values.
        """
        self._wait_for_pending()
        profile = self._loaded.choose_profile(shape)
        if self.shape != shape or self._profile != profile:
            self._drop_graphs()
            self.shape = None
            self._set_profile(profile)
            self._set_shape(self._loaded.input.name, shape)
            if self._loaded.size is not None:
                self._set_shape(self._loaded.size.name, (shape[0], 2))
            self.shape, self._profile = shape, profile
        shapes = {}
        for tensor in self._loaded.outputs:
            found = tuple(int(size) for size in self._context.get_tensor_shape(tensor.name))
            if any(size < 0 for size in found):
                raise VimDeployError(
                    "VIM-415",
                    f"the shape of the output {tensor.name!r} depends on values",
                    why=f"TensorRT says {list(found)}",
                    fix="build the engine from a model made by vim-deploy export",
                )
            shapes[tensor.name] = found
        return shapes

    def _set_shape(self, name: str, shape: Shape) -> None:
        text = "x".join(map(str, shape))
        self._loaded.ask(f"take the shape {text}", self._context.set_input_shape, name, shape)

    def _set_profile(self, profile: int) -> None:
        if self._context.active_optimization_profile == profile:
            return
        switch = self._context.set_optimization_profile_async
        self._loaded.ask(f"switch to profile {profile}", switch, profile, self.stream)
        # Later work may come on another stream than the switch.
        self._cuda.synchronize(self.stream)

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """Copy in, compute, copy out; waits. The arrays are the caller's.

        Args:
            given: arrays of the engine's inputs by name, of the engine's types.
        """
        shapes = self.prepare(given[self._loaded.input.name].shape)
        for name, array in given.items():
            self._stage(name, array)
        sizes = {}
        for tensor in self._loaded.outputs:
            sizes[tensor.name] = math.prod(shapes[tensor.name]) * np.dtype(tensor.dtype).itemsize
            self._buffers[tensor.name].fit(sizes[tensor.name])
        with _Finished(self._cuda, self.stream):
            for name, array in given.items():
                self._buffers[name].upload(array.nbytes, self.stream)
            self._mark(0)
            self._enqueue({name: b.device for name, b in self._buffers.items()}, self.stream)
            self._mark(1)
            for name, size in sizes.items():
                self._buffers[name].download(size, self.stream)
        if self._timers:
            self.device_seconds = self._cuda.elapsed_seconds(*self._timers)
        return {
            tensor.name: self._buffers[tensor.name].host(tensor.dtype, shapes[tensor.name]).copy()
            for tensor in self._loaded.outputs
        }

    def _stage(self, name: str, array: Array) -> StagingBuffer:
        """Copy an input's array to where it is uploaded from."""
        buffer = self._buffers[name]
        # Only another shape makes a buffer grow, and that has dropped the graphs already.
        buffer.fit(array.nbytes)
        np.copyto(buffer.host(array.dtype.name, array.shape), array)
        return buffer

    def run_inner(self, given: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """As ``run``, and the engine's debug tensors ``names`` beside the outputs.

        A captured graph would not give them out: for lanes without.
        """
        if self._reader is None:
            self._reader = DebugReader(self._cuda, self._loaded, self._context)
        with self._reader.reading(names) as found:
            outputs = self.run(given)
        return {**outputs, **found}

    def _mark(self, index: int) -> None:
        if self._timers:
            self._cuda.record(self._timers[index], self.stream)

    def upload(self, name: str, array: Array, stream: int) -> int:
        """Enqueue the copy of an input's array to the GPU, after ``prepare``; its address there.

        It stays until the lane prepares again, which waits for the work that reads it.
        """
        buffer = self._stage(name, array)
        buffer.upload(array.nbytes, stream)
        return buffer.device

    def run_at(self, addresses: Addresses, stream: int, *, wait: bool) -> None:
        """Compute on the given addresses, after ``prepare``; waits, or leaves that to the caller.

        What the addresses point at has to stay until the work on ``stream`` is done.
        """
        if wait:
            with _Finished(self._cuda, stream):
                self._enqueue(addresses, stream)
            return
        self._enqueue(addresses, stream)
        event = self._cuda.create_event()
        try:
            self._cuda.record(event, stream)
        except BaseException:
            self._cuda.destroy_event(event)
            raise
        self._pending = event

    def _enqueue(self, addresses: Addresses, stream: int) -> None:
        key = tuple(sorted(addresses.items()))
        graph = self._graphs.get(key)
        if graph is not None:
            self._cuda.launch(graph, stream)
            return
        for name, pointer in addresses.items():
            put = self._context.set_tensor_address
            self._loaded.ask(f"take the address of {name!r}", put, name, pointer)
        if not self._cuda_graph or key not in self._graphs:
            self._execute(stream)
            if self._cuda_graph:
                self._remember(key, None)
            return
        graph = self._captured(lambda: self._execute(self.stream))
        self._remember(key, graph)
        self._cuda.launch(graph, stream)

    def _execute(self, stream: int) -> None:
        self._loaded.ask("run", self._context.execute_async_v3, stream)

    def _captured(self, enqueue: Callable[[], None]) -> Any:  # noqa: ANN401 - a handle
        """The graph of what ``enqueue`` does, captured on the lane's own stream."""
        self._cuda.begin_capture(self.stream)
        try:
            enqueue()
        except BaseException:
            self._abandon_capture()
            raise
        try:
            return self._cuda.end_capture(self.stream)
        except VimDeployError as error:
            raise VimDeployError(
                "VIM-904",
                f"{self._loaded.name} cannot be captured in a CUDA graph",
                why=error.why,
                fix="run it without a CUDA graph; a plugin that waits or allocates while it is "
                "enqueued cannot be captured",
            ) from error

    def _abandon_capture(self) -> None:
        """End a capture whose content is of no use."""
        try:
            self._cuda.destroy_graph(self._cuda.end_capture(self.stream))
        except VimDeployError:
            # CUDA has invalidated the capture itself and says so; there is no graph then.
            return

    def _remember(self, key: tuple[tuple[str, int], ...], graph: Any) -> None:  # noqa: ANN401
        self._graphs[key] = graph
        while len(self._graphs) > _MAX_GRAPHS:
            oldest = self._graphs.pop(next(iter(self._graphs)))
            if oldest is not None:
                self._cuda.destroy_graph(oldest)

    def _drop_graphs(self) -> None:
        graphs, self._graphs = self._graphs, {}
        for graph in graphs.values():
            if graph is not None:
                self._cuda.destroy_graph(graph)

    def _wait_for_pending(self) -> None:
        """Wait for work of the last call that was left running on a stream of the caller's."""
        event, self._pending = self._pending, None
        if event is not None:
            try:
                self._cuda.synchronize_event(event)
            finally:
                self._cuda.destroy_event(event)

    def close(self) -> None:
        """Wait for its work and give everything back; the rest, too, when one part fails."""
        steps: list[Callable[[], None]] = [self._wait_for_pending, self._drop_graphs]
        steps += [buffer.close for buffer in self._buffers.values()]
        steps += [
            self._drop_timers,
            self._drop_context,
            lambda: self._cuda.destroy_stream(self.stream),
        ]
        run_all(steps)

    def _drop_timers(self) -> None:
        timers, self._timers = self._timers, ()
        for timer in timers:
            self._cuda.destroy_event(timer)

    def _drop_context(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        self._context = None


def run_all(steps: Sequence[Callable[[], None]]) -> None:
    """Run every step, also after one has failed; raises the first error at the end."""
    first: VimDeployError | None = None
    for step in steps:
        try:
            step()
        except VimDeployError as error:
            first = first or error
    if first is not None:
        raise first


class _Finished:
    """Waits for a stream at the end, also after an error, so that nothing runs on freed memory."""

    def __init__(self, cuda: Cuda, stream: int) -> None:
        self._cuda, self._stream = cuda, stream

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._cuda.synchronize(self._stream)
        except VimDeployError:
            # The first error is the one to tell; this one is its consequence.
            if kind is None:
                raise
