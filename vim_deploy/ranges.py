"""Which numbers a user can mean: the smallest and largest of every kind, with the reason.

The command line asks ``parse`` for the number in a text, the records that stages take ask
``require`` for the one they were given, so both have the same bounds and say the same of what is
outside. A text is read as ASCII digits only: ``int`` also takes other scripts' and underscores,
which no runtime's option does.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vim_deploy.errors import VimDeployError, nearest

_WHOLE = re.compile(r"-?[0-9]{1,24}")
_REAL = re.compile(r"[+-]?([0-9]{1,64}\.?[0-9]{0,64}|\.[0-9]{1,64})([eE][+-]?[0-9]{1,4})?")
#: Of what was given, in a message.
_SHOWN = 40


def shown(value: object) -> str:
    """``value`` for a message; of a long one the beginning."""
    try:
        text = repr(value)
    except ValueError:
        # Python refuses to write whole numbers of more than 4300 digits.
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@dataclass(frozen=True)
class Whole:
    """Whole numbers from ``low`` to ``high``; ``why`` says what is wrong with others."""

    low: int
    high: int
    why: str

    def __str__(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def parse(self, text: str) -> int:
        """The number in ``text``; ValueError with a sentence for anything else."""
        stripped = text.strip()
        number = int(stripped) if _WHOLE.fullmatch(stripped) else None
        if number is None or not self.low <= number <= self.high:
            raise ValueError(f"{shown(text)} is not {self}: {self.why}")
        return number

    def require(self, name: str, value: object) -> None:
        """VIM-202 naming ``name`` for a value outside; None is no value and passes."""
        if value is None:
            return
        try:
            number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            number = None
        if number is None or not self.low <= number <= self.high:
            raise _outside(name, value, self)


@dataclass(frozen=True)
class Real:
    """Finite numbers from ``low`` (with ``above`` beyond it) to ``high``."""

    low: float
    high: float
    why: str
    above: bool = False

    def __str__(self) -> str:
        start = f"above {self.low:g}" if self.above else f"from {self.low:g}"
        return f"a number {start} to {self.high:g}"

    def _holds(self, number: float) -> bool:
        # NaN is in no range.
        inside = self.low < number if self.above else self.low <= number
        return math.isfinite(number) and inside and number <= self.high

    def parse(self, text: str) -> float:
        """The number in ``text``; ValueError with a sentence for anything else."""
        stripped = text.strip()
        number = float(stripped) if _REAL.fullmatch(stripped) else math.nan
        if not self._holds(number):
            raise ValueError(f"{shown(text)} is not {self}: {self.why}")
        return number

    def require(self, name: str, value: object) -> None:
        """VIM-202 naming ``name`` for a value outside; None is no value and passes."""
        if value is None:
            return
        try:
            number = math.nan if isinstance(value, bool | str) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not self._holds(number):
            raise _outside(name, value, self)


Range = Whole | Real


def _outside(name: str, value: object, allowed: Range) -> VimDeployError:
    return VimDeployError(
        "VIM-202",
        f"{name}: {shown(value)} is not {allowed}",
        why=allowed.why,
        fix=f"give {allowed}",
    )


def require_all(record: Any, **ranges: Range) -> None:  # noqa: ANN401 - any dataclass
    """``Range.require`` for fields of ``record``, for each number where a field has several."""
    for name, allowed in ranges.items():
        for entry in _entries(getattr(record, name)):
            allowed.require(name, entry)


def require_names(record: Any, **valid: Iterable[str]) -> None:  # noqa: ANN401 - any dataclass
    """VIM-202 for fields of ``record`` that are none of these names; None passes."""
    for field, names in valid.items():
        value = getattr(record, field)
        if value is not None and value not in tuple(names):
            raise VimDeployError(
                "VIM-202", f"{field}: {shown(value)} is not valid", fix=nearest(value, names)
            )


def _entries(value: object) -> Iterator[object]:
    if isinstance(value, tuple | list):
        for entry in value:
            yield from _entries(entry)
    else:
        yield value


_INT32 = (1 << 31) - 1

#: Activations of one picture of a small Vim take some megabytes: 65536 of them, hundreds of GB.
BATCH = Whole(1, 65_536, "more pictures at once than a GPU's memory has room for mean nothing")
#: Every batch is measured in one call and in memory at once.
BENCH_BATCH = Whole(1, 4_096, "larger batches are not measured")
#: A size as trtexec, Triton and CUDA read it.
SIZE = Whole(1, _INT32, "sizes of tensors are signed numbers of 32 bits")
#: 8192 x 8192 is within ``image_bounds.MAX_PIXELS``; the next power of two is not.
IMAGE_SIDE = Whole(1, 8_192, "larger pictures are not decoded")
#: JPEG and most cameras end here; how much is run at once has its own limit (``scene.windows``).
PIXELS = Whole(1, 65_535, "no picture has a longer side")
#: Elements of one tensor: with a byte each it would fill ``WORKSPACE_MIB``.
MOST_ELEMENTS = 1 << 40
#: Counts of what is gone through one after the other.
COUNT = Whole(1, _INT32, "counts are signed numbers of 32 bits")
#: As many rows as ``parity.cases`` takes of a stored file; more is a data set.
RANDOM = Whole(1, 100_000, "more images are a data set: --dataset")
#: glibc's CPU_SETSIZE: a process cannot be given more processors without special calls.
THREADS = Whole(1, 1_024, "Linux counts 1024 processors in a process's usual set")
#: The same, and 0 for the runtime's own choice.
SERVED_THREADS = Whole(0, THREADS.high, THREADS.why)
#: Each is a copy of the model with memory of its own, in the python backend a process.
INSTANCES = Whole(1, 1_024, "every instance is a copy of the model, with memory of its own")
#: The packaged client gives up after 30 s.
QUEUE_DELAY_US = Whole(0, 30_000_000, "clients give up before a request has waited for 30 s")
#: What torch and NumPy both take as a seed.
CALIBRATION_IMAGES = Whole(
    16, 65_536, "ranges of fewer pictures say little about others, and of more no better"
)
SEED = Whole(0, (1 << 63) - 1, "seeds are numbers of 63 bits")
#: TensorRT numbers profiles so that bindings of all of them fit; nobody builds this many.
PROFILE = Whole(0, 255, "an engine has a handful of profiles, counted from 0")
#: 1 TiB: more than the memory of any GPU.
WORKSPACE_MIB = Whole(1, 1 << 20, "no GPU has more than 1 TiB of memory")
OPT_LEVEL = Whole(0, 5, "TensorRT has these levels")
#: ``graph.opset.OPSETS``.
OPSET = Whole(17, 21, "other opsets are not written")
#: Every trial runs a model; the number of sets of parts that can matter is far smaller.
TRIALS = Whole(2, 100_000, "every trial runs a model, and both ends need one")
#: A measurement of more than a day measures the weather.
WARMUP = Real(0, 86_400, "a day is the longest measurement")
DURATION = Real(0, 86_400, "a day is the longest measurement", above=True)
#: The largest float16: more is no tolerance of anything that a model gives.
TOLERANCE = Real(0, 65_504, "a larger difference than the largest float16 is no tolerance")
#: At 1 an output of zeros is within it, whatever the reference is.
RELATIVE = Real(0, 1, "at 1 everything between zero and twice the reference is allowed already")
COSINE = Real(-1, 1, "cosines are between -1 and 1")
SHARE = Real(0, 1, "shares are between 0 and 1")
#: As a share: 100 000 per cent.
REGRESSION = Real(0, 1_000, "more than a thousand times slower is no limit")
_UNIT = "pixel values are in [0, 1]; divide numbers that are for 0 to 255 by 255"
MEAN = Real(0, 1, _UNIT)
#: Values in [0, 1] deviate by half at most; 1 leaves them as they are. A quarter of one step of
#: 8 bits is about 0.001: by less, nothing but rounding is divided.
STD = Real(1e-3, 1, _UNIT)
#: A tenth: a picture is then resized to ten times the model's input.
CROP_RATIO = Real(0.1, 1, "the share of a picture's short side that is kept")
