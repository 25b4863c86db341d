"""Percentiles, bootstrap intervals, ratios and the exponent of a scaling curve.

Calls of one turn share the state of the machine, so they are not independent; turns are nearly so.
Intervals therefore come from resampling whole turns (the cluster bootstrap: Davison and Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8), and are percentile intervals (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). The generator is seeded: the same
samples give the same report. By hand on NumPy: SciPy's bootstrap resamples no clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
_RESAMPLES = 1000
_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def percentile(samples: Floats, q: float) -> float | None:
    """The ``q``-th percentile; None where fewer than one sample is expected beyond it.

    With 20 samples the "99th percentile" is only the largest of them; 100 are the fewest that can
    show one.
    """
    if len(samples) * (100 - q) < 100:
        return None
    return float(np.percentile(samples, q))


def bootstrap(turns: Sequence[Floats], statistic: Callable[[Floats], float]) -> Estimate:
    """``statistic`` of all samples, and its interval over resampled turns."""
    generator = np.random.default_rng(_SEED)
    values = [
        statistic(np.concatenate([turns[index] for index in picked]))
        for picked in generator.integers(0, len(turns), (_RESAMPLES, len(turns)))
    ]
    return Estimate(statistic(np.concatenate(list(turns))), *_interval(values))


def ratio_of_medians(over: Sequence[Floats], under: Sequence[Floats]) -> Estimate:
    """median(over) / median(under), interval over resampled rounds.

    Turn ``i`` of both was taken in round ``i``, next to each other; resampling rounds keeps them
    together, so that what slows both down does not widen the interval.
    """
    if len(over) != len(under):
        raise ValueError(f"{len(over)} and {len(under)} turns are not from the same rounds")
    generator = np.random.default_rng(_SEED)
    values = []
    for picked in generator.integers(0, len(over), (_RESAMPLES, len(over))):
        a, b = (np.concatenate([turns[index] for index in picked]) for turns in (over, under))
        values.append(float(np.median(a) / np.median(b)))
    middle = float(np.median(np.concatenate(list(over))) / np.median(np.concatenate(list(under))))
    return Estimate(middle, *_interval(values))


def _interval(values: Sequence[float]) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, (tail, 100 - tail))
    return float(low), float(high)


@dataclass(frozen=True)
class Latency:
    """Milliseconds: percentiles with intervals (None: too few calls), mean, smallest."""

    p50_ms: Estimate | None
    p90_ms: Estimate | None
    p95_ms: Estimate | None
    p99_ms: Estimate | None
    mean_ms: Estimate
    min_ms: float
    turn_medians_ms: tuple[float, ...]

    @property
    def usual(self) -> Estimate:
        """What stands for the measurement: the median, or the mean where there is none."""
        return self.p50_ms or self.mean_ms


def latency_summary(turns: Sequence[Floats]) -> Latency:
    """What is said of the time of one call, from the seconds of all calls of each turn."""
    samples = np.concatenate(list(turns)) * 1e3
    in_ms = [turn * 1e3 for turn in turns]

    def estimate(q: float) -> Estimate | None:
        enough = percentile(samples, q) is not None
        return bootstrap(in_ms, lambda some: float(np.percentile(some, q))) if enough else None

    return Latency(
        *(estimate(50), estimate(90), estimate(95), estimate(99)),
        mean_ms=bootstrap(in_ms, lambda some: float(some.mean())),
        min_ms=float(samples.min()),
        turn_medians_ms=tuple(float(np.median(turn)) for turn in in_ms),
    )


def throughput(turns: Sequence[Floats], batch: int) -> Estimate:
    """Images per second of calls one after another: images over the time inside the clock."""
    return bootstrap(turns, lambda samples: float(batch * len(samples) / samples.sum()))


@dataclass(frozen=True)
class PowerLaw:
    """``seconds = factor * tokens ** exponent`` by least squares of the logarithms.

    ``standard_error`` is the exponent's, None for two points, which every line meets; ``r_squared``
    the share of the variance that the line explains.
    """

    exponent: float
    factor: float
    r_squared: float
    standard_error: float | None
    points: int


def fit_power_law(tokens: Sequence[float], seconds: Sequence[float]) -> PowerLaw:
    """Fit the exponent of time against tokens (ordinary least squares on log-log values).

    Args:
        tokens: sequence lengths, at least two different ones, all positive.
        seconds: time of each, all positive.
    """
    x, y = np.log(np.asarray(tokens, np.float64)), np.log(np.asarray(seconds, np.float64))
    if len(x) != len(y) or len(set(x.tolist())) < 2:
        raise ValueError("a power law needs two different sequence lengths or more")
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    offset = float(y.mean() - slope * x.mean())
    residual = float(((y - offset - slope * x) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    freedom = len(x) - 2
    error = float(np.sqrt(residual / freedom / spread)) if freedom > 0 else None
    explained = 1.0 if total == 0 else 1 - residual / total
    return PowerLaw(slope, float(np.exp(offset)), explained, error, len(x))
