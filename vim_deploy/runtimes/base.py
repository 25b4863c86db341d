"""What every runner offers: arrays in, named arrays out, and answers for what most have not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.paths import OptionalPath
from vim_deploy.places import Place
from vim_deploy.ranges import BATCH, SERVED_THREADS, require_all
from vim_deploy.runtimes import runtime_named
from vim_deploy.specs import OpsChoice, OpsWay, TensorSpec

if TYPE_CHECKING:
    # Python 3.10 has none.
    from typing import Self


Array = NDArray[Any]


class PartSource(Protocol):
    """Inner tensors of one run."""

    def __call__(self, image: Array, size: Array | None = None, /) -> Mapping[Place, Array]:
        """Float32 arrays by place, of what ``Runner.run`` takes."""


@dataclass(frozen=True)
class RunnerOptions:
    """Where and how an artifact runs; what a runtime does not know is refused or without meaning.

    Attributes:
        runtime: name of the one to run in; None for the first that takes the file, which is ONNX
            Runtime for an ONNX file.
        provider: for ONNX Runtime: ``cpu`` (None means it), ``cuda`` or ``tensorrt``.
        ops: whose kernels compute our ops in ONNX Runtime (``specs.OpsChoice``).
        plugin: TensorRT plugin library, for an engine or the provider ``tensorrt``.
        allow_plan_code: let an engine run code that its file carries.
        max_batch: largest batch to come; the provider ``tensorrt`` and OpenVINO are made ready for
            it, and an engine that does not take it is refused before it is loaded.
        threads: threads inside one operator on the CPU; 0 for the runtime's own choice.
        as_stored: run a float16 ONNX file as the provider does by itself (``OrtRunner``).
        cuda_graph: replay captured CUDA graphs of an engine.
        timed: let the device time each ``run``, for ``Runner.device_seconds``.
    """

    runtime: str | None = None
    provider: str | None = None
    ops: OpsChoice = "auto"
    plugin: OptionalPath = OptionalPath()
    allow_plan_code: bool = False
    max_batch: int | None = None
    threads: int = 0
    as_stored: bool = False
    cuda_graph: bool = False
    timed: bool = False

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, max_batch=BATCH, threads=SERVED_THREADS)
        if self.runtime is not None:
            runtime_named(self.runtime)
        if self.ops not in get_args(OpsChoice):
            raise VimDeployError(
                "VIM-202", f"ops {self.ops!r}", fix=nearest(self.ops, get_args(OpsChoice))
            )


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of the GPU's memory.

    Attributes:
        engine: how much less was free after loading the engine than before; other programs that
            took or gave memory meanwhile are in it.
        context: what TensorRT says one execution context takes.
        contexts: how many there are.
        buffers: input and output buffers of all of them.
        free, total: of the whole GPU now.
    """

    engine: int
    context: int
    contexts: int
    buffers: int
    free: int
    total: int


class Runner(ABC):
    """Runs one model in one runtime; a context manager that gives back what it holds.

    A runtime fills in the attributes and ``run``; the rest has an answer that holds for a runner
    without profiles, inner tensors or device.

    Attributes:
        name: runtime and version, for reports.
        input: the image input; a str in the shape is a dynamic size.
        size: the input for the sizes of pictures within images, int64 [batch, 2] (height and
            width; int32 where the runtime knows no other), of a model whose pictures are fitted
            into its input; None for others.
        outputs: output names in order.
        notes: what a reader of its results has to know.
        ops: whether native ops compute ours in ONNX Runtime, or the functions in the file; None
            where there are none of ours, or where something else computes them.
        kernels: the native ops that compute in it, in words; empty where none do.
    """

    name: str
    input: TensorSpec
    size: TensorSpec | None = None
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    ops: OpsWay | None = None
    kernels: str = ""

    @property
    def told(self) -> tuple[str, ...]:
        """``notes``, and what the native ops are: what a report says of a runner."""
        return (*self.notes, *([self.kernels] if self.kernels else []))

    @abstractmethod
    def run(self, image: Array, size: Array | None = None) -> Mapping[str, Array]:
        """Outputs for one batch of images of the input's dtype and shape.

        Args:
            image: the batch.
            size: whole numbers [batch, 2], for a model with that input; None for pictures that
                fill it.
        """

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size it takes; None when there are several."""
        size = self.input.shape[0]
        return size if isinstance(size, int) else None

    @property
    def batches(self) -> tuple[tuple[int, int, int], ...]:
        """Smallest, tuned and largest batch of each range it was made for; none: any batch."""
        size = self.fixed_batch
        return () if size is None else ((size, size, size),)

    @property
    def most(self) -> int | None:
        """Most images at once; None when there is no limit."""
        return max((high for _, _, high in self.batches), default=None)

    @property
    def usual_batch(self) -> int | None:
        """Batch that the first range is tuned for; None when it takes any."""
        return self.batches[0][1] if self.batches else None

    def batch_for(self, count: int) -> int:
        """The smallest batch of at least ``count`` images that a range takes, if there is one."""
        fitting = [max(low, count) for low, _, high in self.batches if count <= high]
        return min(fitting, default=count)

    def batch_within(self, wanted: int) -> int:
        """``wanted``, or what it takes instead: its fixed batch, or the most when that is less."""
        return self.fixed_batch or min(wanted, self.most or wanted)

    @property
    def parts(self) -> PartSource | None:
        """Inner tensors of a batch by place; None when it gives none out."""
        return None

    def memory(self) -> DeviceMemory | None:
        """What it takes of a GPU's memory; None when it cannot say."""
        return None

    def device_seconds(self) -> float | None:
        """Seconds its device worked on the latest ``run``, by the device's own clock, or None."""
        return None

    def close(self) -> None:  # noqa: B027 - most hold nothing that Python does not give back
        """Give back what it holds; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _at: object) -> None:
        try:
            self.close()
        except VimDeployError:
            # After an error of the GPU everything that follows fails as well; the first counts.
            if kind is None:
                raise


def for_others(option: str, kind: str, artifact: str) -> VimDeployError:
    """VIM-203 for an option that was given and is for another ``kind`` of artifact."""
    return VimDeployError(
        "VIM-203",
        f"{option} is for {kind}, and {artifact} is none",
        fix=f"leave {option} away",
    )


def run_padded(runner: Runner, images: Array, sizes: Array | None = None) -> dict[str, Array]:
    """Outputs for ``images``, also where the runner takes no batch of that size, but a larger one.

    The last image is repeated to fill the batch, and the rows of the copies are dropped. VIM-415
    when sizes are not one for each image, or an output does not have one row for each.

    Args:
        runner: of the model.
        images, sizes: as ``Runner.run`` takes them.
    """
    count = len(images)
    _require_each(sizes, count)
    wanted = runner.batch_for(count)
    if count < wanted:
        images = _filled(images, wanted)
        sizes = None if sizes is None else _filled(sizes, wanted)
    outputs = runner.run(images, sizes)
    if not outputs:
        raise VimDeployError(
            "VIM-415", "the model has no outputs", fix="export the model again with vim-deploy"
        )
    for name, value in outputs.items():
        _require_rows(name, value, len(images))
    return {name: value[:count] for name, value in outputs.items()}


def _require_each(sizes: Array | None, count: int) -> None:
    """VIM-415 for sizes of other pictures than the ``count`` at hand, before they are cut."""
    if sizes is not None and np.shape(sizes)[:1] != (count,):
        raise VimDeployError(
            "VIM-415",
            "the sizes are not those of the images",
            why=f"their shape is {list(np.shape(sizes))} for {count} images",
            fix="give height and width of each picture",
        )


def _filled(rows: Array, count: int) -> Array:
    """``rows``, and the last one again, up to ``count`` of them."""
    return np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])


def _require_rows(name: str, value: Array, rows: int) -> None:
    """VIM-415 for an output that is not one answer for each image; else one would be shared."""
    if value.ndim == 0 or len(value) != rows or not value.size:
        raise VimDeployError(
            "VIM-415",
            f"the model's output {name!r} does not answer each image",
            why=f"its shape is {list(value.shape)} for {rows} images",
            fix="export the model again with vim-deploy",
        )


def answers_both(runner: Runner, given: Collection[str]) -> list[str]:
    """Outputs of ``runner`` that the reference has ``given``, too; VIM-415 for none.

    A tool may have renamed them or cut the graph, and a comparison of nothing says nothing.
    """
    both = [output for output in runner.outputs if output in given]
    if not both:
        raise VimDeployError(
            "VIM-415",
            f"{runner.name} and the reference have no output in common",
            why=f"{', '.join(runner.outputs)}; the reference gives {', '.join(given)}",
            fix="compare files whose outputs have the names that they had when they were exported",
        )
    return both


def run_in_batches(
    runner: Runner, images: Array, batch: int, sizes: Array | None = None
) -> dict[str, Array]:
    """Run ``images`` in batches of ``batch`` (the last may be smaller) and join the outputs.

    VIM-415 as ``run_padded``.
    """
    _require_each(sizes, len(images))
    parts = [
        run_padded(
            runner,
            images[start : start + batch],
            None if sizes is None else sizes[start : start + batch],
        )
        for start in range(0, len(images), batch)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in runner.outputs}


# Whether outputs are fit to be judged: numbers throughout, and some of them. NaN and Inf are an
# answer to nothing: they have no class, no distance and no agreement, not even with themselves.
# Whoever shows, stores or compares outputs asks here first. Integers (classes, labels) are always
# numbers; every other type is looked at, bfloat16 too, which NumPy counts as no float.

_FIX = (
    "verify the artifact against its checkpoint; a half-precision graph may need more in float32 "
    "(vim-deploy export --precision-policy)"
)


def strays(values: Array) -> int:
    """How many elements are NaN or Inf."""
    return 0 if _whole(values) else int(np.count_nonzero(~np.isfinite(values)))


def is_finite(values: Array) -> bool:
    """Whether no element is NaN or Inf."""
    return _whole(values) or bool(np.isfinite(values).all())


def finite_rows(values: Array) -> Array:
    """For each row whether all of it is finite: bool [rows]."""
    if _whole(values):
        return np.ones(len(values), bool)
    rows: Array = np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    return rows


def unfit(outputs: Mapping[str, Array]) -> str:
    """What keeps outputs from being judged, in words; empty when nothing does."""
    if not outputs:
        return "there are no outputs"
    found = []
    for name, values in outputs.items():
        if not values.size:
            found.append(f"output {name!r} of shape {list(values.shape)} holds no values")
        elif count := strays(values):
            found.append(f"{count} of {values.size} values of output {name!r} are NaN or Inf")
    return "; ".join(found)


def not_finite(what: str, why: str) -> VimDeployError:
    """VIM-430: ``what`` the outputs are for, and ``why`` they are no answer."""
    return VimDeployError("VIM-430", f"the model gives NaN or Inf for {what}", why=why, fix=_FIX)


def require_fit(outputs: Mapping[str, Array], what: str) -> None:
    """VIM-430 for outputs that cannot be judged.

    Args:
        outputs: by name, the first axis is the batch.
        what: the pictures they are for, for the message.
    """
    why = unfit(outputs)
    if why:
        raise not_finite(what, why)


def _whole(values: Array) -> bool:
    return values.dtype.kind in "biu"
