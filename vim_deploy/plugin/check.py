"""Try every op of a plugin library on a GPU against float64: ``vim-deploy plugin test``.

Each case runs with every tactic the library offers for it, three ways: launched, replayed from a
CUDA graph, and on two streams at once. Outputs are prefilled with NaN and stand between guard
bytes, so that a value left out and a write outside are both seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vim_deploy.codec import stored
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin.cases import Case, cases, decode, encode
from vim_deploy.plugin.describe import describe_plugin, find_plugin_library
from vim_deploy.plugin.kernels import DataType, ScanLibrary

#: Largest relative L2 distance to float64 that the arithmetic may give, which is fp32 for every
#: element type: the bound that the kernels are developed to.
#:
#: It is enough for sums that do not cancel over states that remember M tokens, too. Such a state is
#: rounded at every token, by up to 2^-24 of it; where the steps differ from token to token these
#: errors have both signs, and sqrt(M / 2) of them are left: 7.3e-7 of the largest M of
#: ``cases.MEMORIES``, before the mean over states. Errors of one sign add up to M / 2^24 or more.
ARITHMETIC = 1e-6
#: The same on a GPU, where 2^x is one instruction that is good to two units in the last place and
#: 1 / x another, good to one (CUDA C++ Programming Guide, table of single-precision functions; PTX
#: ISA, ex2.approx and rcp.approx), and nobody promises errors of both signs. Errors of this size
#: were put into the reference's powers and reciprocals: of random sign they leave 3.5e-8 to 3.0e-7
#: over the cases, all of one sign 4.8e-8 to 6.1e-6; ``ARITHMETIC`` comes on top. Cases that
#: remember 300 tokens are beyond that, and have a term of their own (``tolerance``). A test
#: repeats it.
GPU_ARITHMETIC = 1e-5
#: Relative error of 2^x just below 1 on a GPU, two units in the last place: in a state that
#: remembers M tokens errors of one sign may add up to M times this.
GPU_POWER_ERROR = 2 * 2.0**-24
#: Storing a result rounds each value by at most half a unit in the last place of its type.
ROUNDING = {DataType.FP32: 0.0, DataType.FP16: 2.0**-11, DataType.BF16: 2.0**-8}
#: What a result may be off by where powers are good to half a unit: on CPUs.
TOLERANCES = {dtype: ARITHMETIC + rounding for dtype, rounding in ROUNDING.items()}
#: The library offers no tactic that would leave most of a GPU idle. Asked for a GPU of one
#: multiprocessor it offers every tactic that runs the shape.
_ALL_TACTICS = 1
#: Bytes on either side of an output that nothing may touch.
_GUARD = 256
#: Every byte 0xFF is a NaN in fp32, fp16 and bf16 alike.
_POISON = 0xFF


@stored(also=("ok",))
@dataclass(frozen=True)
class CheckResult:
    """One case with one tactic.

    Attributes:
        op, dtype, case: what ran.
        tactic: its id.
        error: largest relative L2 distance to float64 of the three ways; None when a value is
            not finite.
        tolerance: what ``error`` may be.
        fault: what else went wrong, empty when nothing did.
    """

    op: str
    dtype: str
    case: str
    tactic: int
    error: float | None
    tolerance: float
    fault: str

    @property
    def ok(self) -> bool:
        """Whether the case passed."""
        return not self.fault and self.error is not None and self.error <= self.tolerance


@dataclass(frozen=True)
class CheckLine:
    """All runs of one op and element type: how many, and of the run that comes nearest to what it
    may be, or goes furthest beyond, the error and what it may be."""

    op: str
    dtype: str
    cases: int
    worst: float
    tolerance: float


@stored(keys=("library", "gpu=place", "ok", "runs", "failures", "results"))
@dataclass(frozen=True)
class CheckReport:
    """Every result of one library in one place: a GPU's name, or that of a runtime."""

    library: str
    place: str
    results: tuple[CheckResult, ...]
    #: What the number of a result's tactic counts.
    way: ClassVar[str] = "tactic"

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The results that did not pass."""
        return tuple(result for result in self.results if not result.ok)

    def summary(self) -> list[CheckLine]:
        """One line for each op and element type; an error of infinity where a value was lost."""
        groups: dict[tuple[str, str], list[CheckResult]] = {}
        for result in self.results:
            groups.setdefault((result.op, result.dtype), []).append(result)
        lines = []
        for (op, dtype), group in groups.items():
            errors = [(math.inf if r.error is None else r.error, r.tolerance) for r in group]
            worst = max(errors, key=lambda pair: pair[0] / pair[1])
            lines.append(CheckLine(op, dtype, len(group), *worst))
        return lines

    @property
    def ok(self) -> bool:
        """Whether something ran and nothing failed."""
        return bool(self.results) and not self.failures

    @property
    def runs(self) -> int:
        """How many runs there were."""
        return len(self.results)

    def require_ok(self) -> None:
        """VIM-701 with the first failures, when there are any or nothing ran."""
        if self.ok:
            return
        lines = [
            f"{r.op} {r.dtype} {r.case} {self.way} {r.tactic}: "
            + (r.fault or f"relative L2 {r.error:.3g}, allowed {r.tolerance:.3g}")
            for r in self.failures[:10]
        ]
        raise VimDeployError(
            "VIM-701",
            f"{len(self.failures)} of {len(self.results)} runs of {self.library} failed on "
            f"{self.place}",
            why="\n".join(lines) or "the library offered no tactic for any case",
            fix="build the library again with this machine's toolkit; if it stays, report it with "
            "the output of vim-deploy plugin test --json",
        )


def check_plugin_on_gpu(path: Path | None, say: Callable[[str], None]) -> CheckReport:
    """Check the library at ``path``, or the one built last, on the first GPU.

    Raises:
        VimDeployError: VIM-302 (no GPU), VIM-401, VIM-417, VIM-903 (no library, or not ours),
            VIM-904 (no code for this GPU, or CUDA refused).
    """
    library = find_plugin_library(path)
    gpu = cuda_driver.gpu()
    found = describe_plugin(library)
    if not found.runs_on(gpu.major, gpu.minor):
        raise VimDeployError(
            "VIM-904",
            f"{library} has no code for {gpu.name}",
            why=f"the GPU is of architecture {gpu.architecture}, the library has "
            + (", ".join(found.architectures) or "none"),
            fix="vim-deploy plugin build --arch native",
        )
    say(f"{library} on {gpu.name}, architecture {gpu.architecture}")
    with cuda_driver.Device() as device:
        results = tuple(check_library(ScanLibrary(library), device))
    return CheckReport(str(library), gpu.name, results)


def tolerance(case: Case, *, on_gpu: bool) -> float:
    """What ``CheckResult.error`` of a case may be (``plugins/tests/common/problem.h`` has the same
    for the programs in C++)."""
    if not on_gpu:
        return TOLERANCES[case.dtype]
    slow = ARITHMETIC + case.memory * GPU_POWER_ERROR
    return max(GPU_ARITHMETIC, slow) + ROUNDING[case.dtype]


def check_library(
    library: ScanLibrary,
    device: cuda_driver.Device,
    chosen: Iterable[Case] | None = None,
) -> Iterator[CheckResult]:
    """Run the cases; yields a result for each case and tactic as it is done.

    Args:
        library: the library under test.
        device: where it runs.
        chosen: what to run; everything by default.
    """
    for case in cases() if chosen is None else chosen:
        for tactic in library.tactics(case.params(), _ALL_TACTICS):
            try:
                yield _run(library, device, case, tactic)
            finally:
                device.free()


def _run(library: ScanLibrary, device: cuda_driver.Device, case: Case, tactic: int) -> CheckResult:
    pointers = {}
    for name in case.inputs:
        data = case.data(name)
        pointers[name] = device.allocate(len(data))
        device.write(pointers[name], data)
    runs = [_Launch(library, device, case, tactic, pointers) for _ in range(2)]
    first, second = runs
    distances, faults = [], []

    def look(launch: _Launch, way: str) -> None:
        distance, fault = launch.compare(way)
        distances.append(distance)
        if fault:
            faults.append(fault)

    first.poison()
    first.enqueue(device.streams[0])
    device.synchronize()
    look(first, "launched")
    first.poison()
    replay = device.capture(first.enqueue)
    replay()
    device.synchronize()
    look(first, "CUDA graph")
    for launch in runs:
        launch.poison()
    for launch, stream in zip(runs, device.streams, strict=True):
        launch.enqueue(stream)
    device.synchronize()
    look(first, "first of two streams")
    look(second, "second of two streams")
    known = [distance for distance in distances if distance is not None]
    return CheckResult(
        op=case.op,
        dtype=case.dtype.name.lower(),
        case=case.name,
        tactic=tactic,
        error=max(known) if len(known) == len(distances) else None,
        tolerance=tolerance(case, on_gpu=True),
        fault="; ".join(faults),
    )


class _Launch:
    """One output with its guards, one workspace, and the parameters that point there."""

    def __init__(
        self,
        library: ScanLibrary,
        device: cuda_driver.Device,
        case: Case,
        tactic: int,
        pointers: dict[str, int],
    ) -> None:
        self._library, self._device, self._case, self._tactic = library, device, case, tactic
        self._size = len(encode(case.expected, case.dtype))
        self._output = device.allocate(self._size + 2 * _GUARD)
        self._params = case.params()
        self._wanted = library.workspace_bytes(self._params, tactic)
        self._workspace = device.allocate(self._wanted + _GUARD)
        for name, pointer in pointers.items():
            setattr(self._params, name, pointer)
        setattr(self._params, case.output, self._output + _GUARD)

    def poison(self) -> None:
        """Fill output, guards and workspace with NaN."""
        self._device.write(self._output, bytes([_POISON]) * (self._size + 2 * _GUARD))
        self._device.write(self._workspace, bytes([_POISON]) * (self._wanted + _GUARD))

    def enqueue(self, stream: int) -> None:
        """Launch on a stream."""
        self._library.launch(
            self._params,
            tactic=self._tactic,
            workspace=self._workspace if self._wanted else 0,
            stream=stream,
        )

    def compare(self, way: str) -> tuple[float | None, str]:
        """Relative L2 distance to the truth (None: not finite), and what else is wrong."""
        data = self._device.read(self._output, self._size + 2 * _GUARD)
        behind = self._device.read(self._workspace + self._wanted, _GUARD)
        untouched = bytes([_POISON]) * _GUARD
        faults = []
        if data[:_GUARD] != untouched or data[-_GUARD:] != untouched:
            faults.append(f"{way}: wrote outside the output")
        if behind != untouched:
            faults.append(f"{way}: wrote outside the workspace")
        given = decode(data[_GUARD:-_GUARD], self._case.dtype, self._case.expected.shape)
        distance, fault = self._case.compare(given)
        if fault:
            faults.append(f"{way}: {fault}")
        return distance, "; ".join(faults)
