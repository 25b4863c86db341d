"""A deserialised engine: loaded, described, and released in the order TensorRT wants.

Works on the module ``tensorrt`` of the releases 8.6, 10 and 11, and on ``tensorrt_rtx``, which has
the shape of 11. Only names that all of them have are used.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from vim_deploy.artifact.engine_file import DATA_TYPES
from vim_deploy.artifact.metadata import require_inputs
from vim_deploy.artifact.profiles import Shape, ShapeRange, narrowed
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.tensorrt.errors import explain, make_runtime, notes_in
from vim_deploy.specs import TensorSpec

_log = logging.getLogger(__name__)


class TrtLog:
    """TensorRT's log: into vim-deploy's, and errors kept until somebody asks for them."""

    def __init__(self, module: ModuleType) -> None:
        self._errors: list[str] = []
        self._warnings: list[str] = []
        outer = self

        class Logger(module.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:  # noqa: ANN401
                outer._take(str(getattr(severity, "name", severity)), text)

        self.logger = Logger()

    def _take(self, severity: str, text: str) -> None:
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self._errors.append(text)
        elif severity == "WARNING":
            self._warnings.append(text)
        _log.debug("TensorRT: %s: %s", severity.lower(), text)

    def take_errors(self) -> list[str]:
        """Errors since the last call."""
        taken, self._errors = self._errors, []
        return taken

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings so far."""
        return tuple(self._warnings)


class LoadedEngine:
    """An engine in TensorRT's hands.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        data: bytes of the plan.
        name: of its file, for messages.
        allow_plan_code: let a version-compatible plan run the code it carries.

    Raises:
        VimDeployError: VIM-301 or VIM-302 (no runtime), VIM-413, VIM-901, VIM-903, VIM-906 as
            TensorRT says, VIM-415 (other inputs than a picture and its size, or a type that
            NumPy has not).
    """

    def __init__(
        self, module: ModuleType, data: bytes, name: str, *, allow_plan_code: bool = False
    ) -> None:
        self.module, self.name = module, name
        self.log = TrtLog(module)
        self.runtime: Any = None
        self.engine: Any = None
        try:
            self._deserialise(data, allow_plan_code)
            self._describe()
        except BaseException:
            self.close()
            raise
        self.notes = notes_in(self.log.warnings)

    def _deserialise(self, data: bytes, allow_plan_code: bool) -> None:
        refused = VimDeployError(
            "VIM-413",
            f"TensorRT {self.module.__version__} does not load {self.name}",
            fix="run it again with -v to see TensorRT's whole log, or build the engine again",
        )
        said = self.log.take_errors
        self.runtime = make_runtime(self.module, self.log.logger, said, self.name, refused)
        if allow_plan_code:
            self.runtime.engine_host_code_allowed = True
        self.engine = self._made(refused, self.runtime.deserialize_cuda_engine, data)

    def _made(self, refused: VimDeployError, make: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        """What ``make`` gives; ``refused``, or what TensorRT's messages mean, for None."""
        try:
            made = make(*arguments)
        # pybind11 turns any C++ exception of TensorRT into a RuntimeError or another of the
        # built-in errors; all of them mean that nothing was made.
        except Exception as error:
            texts = [*self.log.take_errors(), str(error)]
            raise explain(texts, self.name, refused) from error
        if made is None:
            raise explain(self.log.take_errors(), self.name, refused)
        return made

    def _describe(self) -> None:
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        modes = {name: self.engine.get_tensor_mode(name) for name in names}
        inputs = [name for name in names if modes[name] == self.module.TensorIOMode.INPUT]
        self.input, self.size = require_inputs(
            [self._tensor(name) for name in inputs],
            self.name,
            "give an engine built from a model made by vim-deploy export",
        )
        self.inputs = (self.input,) if self.size is None else (self.input, self.size)
        self.outputs = tuple(self._tensor(name) for name in names if name not in inputs)
        self.profiles = self._profiles()

    def _profiles(self) -> tuple[ShapeRange, ...]:
        """Shapes of the image in each profile; of an engine without dynamic sizes, its one.

        Where an engine takes sizes, too, these are the batches that both inputs take.
        """
        every = [self._ranges(tensor) for tensor in self.inputs]
        # An input without dynamic sizes has one range, whatever the other has.
        most = max(map(len, every))
        spread = (ranges if len(ranges) == most else ranges * most for ranges in every)
        return tuple(itertools.starmap(narrowed, zip(*spread, strict=True)))

    def _ranges(self, tensor: TensorSpec) -> tuple[ShapeRange, ...]:
        fixed = tuple(size for size in tensor.shape if isinstance(size, int))
        if len(fixed) == len(tensor.shape):
            return (ShapeRange(fixed, fixed, fixed),)
        return tuple(
            ShapeRange(
                *(
                    tuple(int(size) for size in shape)
                    for shape in self.engine.get_tensor_profile_shape(tensor.name, index)
                )
            )
            for index in range(self.engine.num_optimization_profiles)
        )

    def _tensor(self, name: str) -> TensorSpec:
        """An input or output; sizes known at run time are named."""
        kind = self.engine.get_tensor_dtype(name)
        dtype = DATA_TYPES.get(kind.name)
        if dtype in (None, "bfloat16"):
            raise VimDeployError(
                "VIM-415",
                f"{self.name}: NumPy has no type for {name!r}, which is {kind.name}",
                fix="export the model with inputs and outputs of float32, as ours have them",
            )
        shape = tuple(
            int(size) if size >= 0 else ("batch" if axis == 0 else f"size_{axis}")
            for axis, size in enumerate(self.engine.get_tensor_shape(name))
        )
        return TensorSpec(name, dtype, shape)

    @property
    def has_int64(self) -> bool:
        """Whether this release knows 64-bit integers; TensorRT 8.6 has int32 in their places."""
        return hasattr(self.module.DataType, "INT64")

    def choose_profile(self, shape: Shape) -> int:
        """Number of the profile to run ``shape`` with.

        Of those that take it: one that is tuned for it, else the one with the smallest range.

        Raises:
            VimDeployError: VIM-905 when none takes it.
        """
        fitting = [
            (profile.opt != shape, int(np.prod(profile.max)), index)
            for index, profile in enumerate(self.profiles)
            if all(
                low <= size <= high
                for low, size, high in zip(profile.min, shape, profile.max, strict=True)
            )
        ]
        if fitting:
            return min(fitting)[2]
        asked = "x".join(map(str, shape))
        ranges = "; ".join(
            f"{'x'.join(map(str, item.min))} to {'x'.join(map(str, item.max))}"
            for item in self.profiles
        )
        raise VimDeployError(
            "VIM-905",
            f"{self.name} was not built for the shape {asked}",
            why=f"its profiles take {ranges}",
            fix="give a batch within a profile, or build it again with --max-batch "
            f"{shape[0] if shape else 1} or more",
        )

    def create_context(self) -> Any:  # noqa: ANN401 - a TensorRT object
        """A new execution context; VIM-906 when the GPU's memory does not suffice."""
        refused = VimDeployError(
            "VIM-904",
            f"TensorRT makes no execution context for {self.name}",
            fix="run it again with -v to see TensorRT's whole log",
        )
        return self._made(refused, self.engine.create_execution_context)

    def refused(self, what: str, said: str = "") -> VimDeployError:
        """The coded error for a call that TensorRT did not accept; ``said`` of an exception."""
        otherwise = VimDeployError(
            "VIM-904",
            f"TensorRT did not {what} for {self.name}",
            fix="run it again with -v to see TensorRT's whole log",
        )
        return explain([*self.log.take_errors(), *filter(None, [said])], self.name, otherwise)

    def ask(self, what: str, call: Callable[..., Any], *arguments: Any) -> None:  # noqa: ANN401
        """Call TensorRT, which refuses by False or, in some of its bindings, by an exception.

        Raises:
            VimDeployError: VIM-904, or what TensorRT's messages mean.
        """
        try:
            accepted = call(*arguments)
        except Exception as error:
            raise self.refused(what, str(error)) from error
        if not accepted:
            raise self.refused(what)

    def close(self) -> None:
        """Give engine and runtime back, in this order; contexts have to be gone."""
        self.engine = None
        self.runtime = None
