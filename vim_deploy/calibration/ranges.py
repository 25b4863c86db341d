"""The range of each tensor that its scale has to represent, from values that are watched.

``minmax`` takes the largest magnitude. ``entropy`` and ``percentile`` are those of
``onnxruntime.quantization``: its ``HistogramCollector`` counts the values and chooses from the
counts. It is told each histogram's bounds here, the least power of two that holds all values so
far. By itself it would add bins of the first batch's width whenever a larger value comes, a
thousand times as many where the first pictures are dark. Powers of two make the counts exact:
neither the order of the pictures nor their number in a batch changes a range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vim_deploy.errors import VimDeployError
from vim_deploy.recipe.quantization import PERCENTILE, QuantizeOptions
from vim_deploy.runtimes.base import not_finite, strays
from vim_deploy.runtimes.onnxruntime.capability import histogram_collector
from vim_deploy.specs import CalibrationMethod

#: Bins of a histogram, half of them for negative values where ``entropy`` counts both signs. Its
#: least candidate is then an eighth to a sixteenth of the largest magnitude; its time grows with
#: their square.
_BINS = 2048
#: Bins that ``entropy`` makes of those of a candidate: ONNX Runtime's own number.
_LEVELS = 128
#: Magnitudes that a scale can be made of: a float32 of full precision, after the division by 448.
_LEAST, _MOST = 2.0**-100, 2.0**100


class RangeCollector:
    """Takes batches of tensors, then gives the range of each.

    Args:
        method: how it is chosen.

    Raises:
        VimDeployError: VIM-202 (no such method), VIM-301 (``entropy`` and ``percentile`` without
            ONNX Runtime).
    """

    def __init__(self, method: CalibrationMethod) -> None:
        QuantizeOptions(method=method)
        self._largest: dict[str, float] = {}
        self._bounds: dict[str, float] = {}
        self._two_sided = method == "entropy"
        self._collector: Any = None
        if method != "minmax":
            self._collector = histogram_collector(
                method, bins=_BINS, levels=_LEVELS, percentile=PERCENTILE
            )

    def collect(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Watch one batch: floating tensors of any shape by name; nothing of them is kept.

        Raises:
            VimDeployError: VIM-430 for NaN or Inf, VIM-441 for a magnitude that no scale has.
        """
        watched = {}
        for name, value in values.items():
            array = np.asarray(value, np.float32)
            if not array.size:
                continue
            if count := strays(array):
                why = f"{count} of {array.size} values of {name}"
                raise not_finite("calibration pictures", why)
            batch = float(max(array.max(), -array.min()))
            if batch > _MOST:
                raise _unusable(name, f"it reaches {batch:.3g}, and no scale is made of that")
            self._largest[name] = max(batch, self._largest.get(name, 0.0))
            watched[name] = array
        if self._collector is not None and watched:
            for name in watched:
                self._make_room(name)
            self._collector.collect(watched)

    def ranges(self) -> dict[str, float]:
        """The largest magnitude to be represented of each tensor, a float32 above zero.

        Raises:
            VimDeployError: VIM-441 for a tensor that is zero whatever the picture.
        """
        for name, largest in self._largest.items():
            if largest < _LEAST:
                raise _unusable(name, "it is zero for every calibration picture")
        found = dict(self._largest)
        if self._collector is not None and found:
            for name, chosen in self._collector.compute_collection_result().items():
                low, high = (abs(float(edge)) for edge in chosen[:2])
                # Where nearly all values share the bin at zero, its lower edge may be chosen.
                finest = self._bounds[name] / _BINS
                found[name] = min(max(low, high, finest), self._largest[name])
        return {name: float(np.float32(value)) for name, value in found.items()}

    def _make_room(self, name: str) -> None:
        """Have the histogram of a tensor end at or above its largest magnitude."""
        half, exponent = math.frexp(max(self._largest[name], _LEAST))
        bound = math.ldexp(1.0, exponent - (half == 0.5))
        histograms, old = self._collector.histogram_dict, self._bounds.get(name)
        if old is not None and bound <= old:
            return
        counts = np.zeros(_BINS, np.int64) if old is None else histograms[name][0]
        for _ in range(0 if old is None else round(math.log2(bound / old))):
            counts = _doubled(counts, self._two_sided)
        self._bounds[name] = bound
        least, most = (np.float32(0), np.float32(0)) if old is None else histograms[name][2:4]
        start = -bound if self._two_sided else 0.0
        edges = np.linspace(start, bound, _BINS + 1, dtype=np.float32)
        ends = (np.float32(bound),) if self._two_sided else ()
        histograms[name] = (counts, edges, least, most, *ends)


def _doubled(counts: NDArray[np.int64], two_sided: bool) -> NDArray[np.int64]:
    """Counts of as many bins, each twice as wide: around zero, or from zero on."""
    pairs = counts.reshape(-1, 2).sum(axis=1)
    free = len(counts) - len(pairs)
    before = free // 2 if two_sided else 0
    return np.pad(pairs, (before, free - before))


def _unusable(name: str, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-441",
        f"the calibration pictures tell no range of {name}",
        why=why,
        fix="give other pictures, or leave that product out: [[not_quantized]] in a file for "
        "--precision-policy",
    )
