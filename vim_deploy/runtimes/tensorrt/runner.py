"""TensorRT runner: engines of TensorRT 8.6, 10 and 11 (and of TensorRT-RTX), without torch.

Arrays come from the host (``run``), or stay on the GPU (``run_device``: any array with DLPack or
``__cuda_array_interface__``, such as a torch CUDA tensor, without a copy). Several threads may call
one runner; each call takes a free lane (context, stream, buffers), and waits when there is none.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.marked_tensors import DEBUG, OUTPUT
from vim_deploy.artifact.profiles import Shape
from vim_deploy.cuda.buffers import DeviceArray
from vim_deploy.cuda.device_view import DeviceView, view_of
from vim_deploy.errors import VimDeployError
from vim_deploy.paths import StrPath, as_path, optional_path
from vim_deploy.places import Place
from vim_deploy.runtimes.base import (
    Array,
    DeviceMemory,
    PartSource,
    Runner,
    RunnerOptions,
    for_others,
)
from vim_deploy.runtimes.inputs import fits, given_inputs, given_sizes
from vim_deploy.runtimes.tensorrt.capability import context_bytes
from vim_deploy.runtimes.tensorrt.engine import LoadedEngine
from vim_deploy.runtimes.tensorrt.lane import Lane, run_all
from vim_deploy.runtimes.tensorrt.opening import cuda_for, open_engine
from vim_deploy.specs import TensorSpec

_log = logging.getLogger(__name__)


class TrtRunner(Runner):
    """Runs an engine.

    Args:
        engine: the plan, or its path; its record ``NAME.plan.json`` is read when it is there.
        plugin: plugin library; by default the one the record names.
        contexts: calls that may run at the same time. Each takes memory of its own.
        cuda_graph: replay captured CUDA graphs; worth it where launches take longer than kernels.
        allow_plan_code: let a version-compatible plan run code that it carries.
        batch: images at once, when that is known: refused before loading if no profile takes it.
        timed: let the GPU time each ``run``, for ``device_seconds``.
        module: instead of the installed ``tensorrt``, for tests.

    Raises:
        VimDeployError: VIM-202 (``contexts``), VIM-301 (a package is missing), VIM-302 (no GPU),
            VIM-413 (not a whole engine), VIM-901 (other runtime or GPU), VIM-902 (record),
            VIM-903 (plugin library), VIM-905 (``batch``), VIM-906 (memory).
    """

    def __init__(
        self,
        engine: StrPath | Artifact,
        *,
        plugin: StrPath | None = None,
        contexts: int = 1,
        cuda_graph: bool = False,
        allow_plan_code: bool = False,
        batch: int | None = None,
        timed: bool = False,
        module: ModuleType | None = None,
    ) -> None:
        if contexts < 1:
            raise VimDeployError("VIM-202", f"{contexts} contexts are too few", fix="one or more")
        self._lanes: list[Lane] = []
        self._free: list[Lane] = []
        self._condition = threading.Condition()
        self._closed = False
        self._loaded: LoadedEngine | None = None
        if isinstance(engine, Artifact):
            artifact = engine
        else:
            artifact = Artifact.engine(as_path(engine, "engine"))
        self._artifact = artifact
        self._cuda = cuda_for(artifact)
        before = self._cuda.memory()[0]
        loaded, self.name, self.notes = open_engine(
            artifact,
            self._cuda,
            optional_path(plugin, "plugin"),
            allow_plan_code=allow_plan_code,
            batch=batch,
            module=module,
        )
        self._loaded = loaded
        try:
            self._engine_bytes = max(before - self._cuda.memory()[0], 0)
            self.info = artifact.info
            self.input, self.size = loaded.input, loaded.size
            self._inner = artifact.record.inner_tensors if artifact.record else ()
            # Inner tensors that the engine gives out are no outputs of the model.
            inner = {item.name for item in self._inner if item.how == OUTPUT}
            names = (item.name for item in loaded.outputs)
            self.outputs = tuple(name for name in names if name not in inner)
            if cuda_graph:
                artifact.refuse_diagnosis("captured in a CUDA graph")
            _require_shareable(loaded, contexts)
            for _ in range(contexts):
                self._lanes.append(Lane(self._cuda, loaded, cuda_graph, timed))
        except BaseException:
            self._release()
            raise
        self._free = list(self._lanes)
        for note in self.notes:
            _log.info("note: %s", note)

    @property
    def _engine(self) -> LoadedEngine:
        if self._loaded is None:
            raise VimDeployError("VIM-202", "the runner was closed", fix="open the engine again")
        return self._loaded

    @property
    def parts(self) -> PartSource | None:
        """Inner tensors of a batch by place, of an engine built with them; None of any other."""
        return self._run_parts if self._inner else None

    @property
    def batches(self) -> tuple[tuple[int, int, int], ...]:
        """Smallest, tuned and largest batch of each profile."""
        return tuple(
            (item.min[0], item.opt[0], item.max[0]) for item in self._engine.profiles if item.min
        )

    def run(self, image: Array, size: Array | None = None) -> Mapping[str, Array]:
        """Outputs for a batch on the host; int64 of the model as int64, also from TensorRT 8.6.

        Raises:
            VimDeployError: VIM-415 (not this input), VIM-905 (no profile takes the batch), VIM-906
                (memory), VIM-904 (TensorRT or CUDA failed).
        """
        given = given_inputs(self.input, self.size, image, size)
        with self._lane(image.shape) as lane:
            values = lane.run(given)
        return {name: self._widened(values[name]) for name in self.outputs}

    def _widened(self, value: Array) -> Array:
        narrow = value.dtype == np.int32 and not self._engine.has_int64
        return value.astype(np.int64) if narrow else value

    def _run_parts(self, image: Array, size: Array | None = None) -> dict[Place, Array]:
        """As ``run``; what the engine cannot give out is VIM-904."""
        given = given_inputs(self.input, self.size, image, size)
        names = dict.fromkeys(item.name for item in self._inner if item.how == DEBUG)
        with self._lane(image.shape) as lane:
            values = lane.run_inner(given, tuple(names)) if names else lane.run(given)
        return {item.place: item.read(values[item.name]) for item in self._inner}

    def run_device(
        self,
        image: Any,  # noqa: ANN401 - any array on the GPU
        outputs: Mapping[str, Any] | None = None,
        stream: int | None = None,
        size: Any = None,  # noqa: ANN401 - of NumPy, or any array on the GPU
    ) -> Mapping[str, Any]:
        """Outputs for a batch that is on the GPU; but for a size on the host, nothing is copied.

        Args:
            image: dense array with DLPack or ``__cuda_array_interface__``, of the input's dtype and
                shape.
            outputs: arrays to write to, by name, one for each output; None makes new ones
                (``DeviceArray``).
            stream: a CUDA stream (in PyTorch ``torch.cuda.current_stream().cuda_stream``) that the
                work is enqueued on; the call returns before it is done, and image and outputs
                have to stay until then. None takes a stream of the runner's and waits.
            size: for a model that takes one: int64 [B,2] of NumPy, or on the GPU an array of the
                engine's type, whose values nobody looks at. None: every picture fills its input.

        Returns:
            The output arrays by name.

        Raises:
            VimDeployError: as ``run``; VIM-415 also for an output that does not fit.
        """
        self._artifact.refuse_diagnosis("run on arrays of the GPU")
        self._cuda.use()
        with self._lane(_shape_of(image)) as lane:
            ours = lane.stream if stream is None else stream
            source = view_of(image, self._cuda, ours, name=repr(self.input.name))
            _check_view(self.input, source)
            shapes = lane.prepare(source.shape)
            results = self._outputs(outputs, shapes)
            addresses = {self.input.name: source.pointer}
            kept = [source.owner, *self._place_size(lane, ours, size, source.shape, addresses)]
            for tensor in self._engine.outputs:
                spec = TensorSpec(tensor.name, tensor.dtype, shapes[tensor.name])
                view = view_of(results[tensor.name], self._cuda, ours, name=repr(tensor.name))
                _check_view(spec, view)
                addresses[tensor.name] = view.pointer
                kept.append(view.owner)
            lane.run_at(addresses, ours, wait=stream is None)
        return results

    def _place_size(
        self,
        lane: Lane,
        stream: int,
        size: Any,  # noqa: ANN401
        shape: Shape,
        addresses: dict[str, int],
    ) -> tuple[Any, ...]:
        """Put where the sizes of images of ``shape`` are into ``addresses``; what keeps them."""
        own = self.size
        if own is None or size is None or isinstance(size, np.ndarray):
            for name, sizes in given_sizes(self.input, own, shape[0], size).items():
                addresses[name] = lane.upload(name, sizes, stream)
            return ()
        view = view_of(size, self._cuda, stream, name=repr(own.name))
        _check_view(TensorSpec(own.name, own.dtype, (shape[0], 2)), view)
        addresses[own.name] = view.pointer
        return (view.owner,)

    def _outputs(
        self, given: Mapping[str, Any] | None, shapes: Mapping[str, Shape]
    ) -> dict[str, Any]:
        if given is None:
            return {
                tensor.name: DeviceArray(self._cuda, tensor.dtype, shapes[tensor.name])
                for tensor in self._engine.outputs
            }
        if set(given) != set(self.outputs):
            raise VimDeployError(
                "VIM-415",
                "the output arrays are not those of the engine",
                why=f"given {sorted(given)}, the engine has {sorted(self.outputs)}",
                fix="give one array for each output",
            )
        return dict(given)

    def device_seconds(self) -> float | None:
        """GPU time of the latest ``run`` to end, copies not included; None without ``timed``."""
        with self._condition:
            return self._free[-1].device_seconds if self._free else None

    def memory(self) -> DeviceMemory:
        """What the runner takes of the GPU's memory."""
        self._cuda.use()
        free, total = self._cuda.memory()
        return DeviceMemory(
            engine=self._engine_bytes,
            context=context_bytes(self._engine.engine),
            contexts=len(self._lanes),
            buffers=sum(lane.buffer_bytes for lane in self._lanes),
            free=free,
            total=total,
        )

    @contextmanager
    def _lane(self, shape: Shape) -> Iterator[Lane]:
        """A free lane, one that has this shape already if there is one."""
        with self._condition:
            self._condition.wait_for(lambda: self._free or self._closed)
            if self._closed:
                raise VimDeployError(
                    "VIM-202", "the runner was closed", fix="open the engine again"
                )
            lane = next((item for item in self._free if item.shape == shape), self._free[0])
            self._free.remove(lane)
        try:
            self._cuda.use()
            yield lane
        finally:
            with self._condition:
                # To the end, so that the lane unused for longest takes the next new shape.
                self._free.append(lane)
                self._condition.notify_all()

    def close(self) -> None:
        """Wait for running calls, then give everything back; a second call does nothing."""
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._condition.notify_all()
            self._condition.wait_for(lambda: len(self._free) == len(self._lanes))
        self._release()

    def _release(self) -> None:
        self._closed = True
        lanes, self._lanes, self._free = self._lanes, [], []
        loaded, self._loaded = self._loaded, None
        steps = [lane.close for lane in lanes]
        run_all(steps if loaded is None else [*steps, loaded.close])


def open_runner(artifact: Artifact, options: RunnerOptions) -> TrtRunner:
    """The runner for an engine; VIM-203 for an option of ONNX files."""
    if options.provider is not None:
        raise for_others("--provider", "ONNX files, in ONNX Runtime", artifact.name)
    if options.ops == "native":
        raise for_others("--ops native", "ONNX files, in ONNX Runtime", artifact.name)
    return TrtRunner(
        artifact,
        plugin=options.plugin,
        cuda_graph=options.cuda_graph,
        allow_plan_code=options.allow_plan_code,
        batch=options.max_batch,
        timed=options.timed,
    )


def _require_shareable(loaded: LoadedEngine, contexts: int) -> None:
    """TensorRT 8.6 gives a profile to one context at a time."""
    if contexts > 1 and str(loaded.module.__version__).startswith("8."):
        raise VimDeployError(
            "VIM-202",
            f"{contexts} contexts were asked for, and TensorRT 8.6 runs one",
            why="there, a profile belongs to one execution context at a time",
            fix="use one context, or TensorRT 10",
        )


def _shape_of(image: Any) -> Shape:  # noqa: ANN401
    return tuple(int(size) for size in getattr(image, "shape", ()))


def _check_view(spec: TensorSpec, view: DeviceView) -> None:
    """VIM-415 when memory on the GPU has another dtype or shape."""
    if view.dtype != spec.dtype or not fits(spec, view.shape):
        raise VimDeployError(
            "VIM-415",
            f"{spec.name!r} does not take this array",
            why=f"found {view.dtype} {list(view.shape)}, expected {spec.dtype} {list(spec.shape)}",
            fix="convert it on the GPU first, or look at the runner's input and outputs",
        )
