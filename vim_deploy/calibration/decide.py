"""How each product is quantized, chosen by the error that its output would have.

Everything is tried on rows of activations that calibration pictures gave: first plainly, then with
smoothing of several strengths, then with a few channels multiplied apart. The first that keeps the
error of the product's output below a target is taken, else the one with the smallest error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vim_deploy.calibration.observe import Observed
from vim_deploy.graph.quantization.plan import (
    LayerPlan,
    apart,
    columns_quantized,
    quantized,
    scale_of,
    smoothed,
)
from vim_deploy.graph.quantization.products import Matrix, Product
from vim_deploy.precisions import TABLE, Precision
from vim_deploy.specs import ActivationScales

#: Strengths of smoothing that are tried: how much of the difficulty goes from activations to
#: weights (alpha of SmoothQuant, arXiv 2211.10438, section 4; 0.5 is its usual one).
STRENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9)
#: Shares of the channels that may be multiplied apart.
SHARES = (1 / 32, 1 / 16, 1 / 8)
#: Relative L2 of a product's output that needs no remedy which costs time, as a share of the
#: precision's limit of a whole output: rounding of 8 bits without outliers is below it.
TARGET = 0.3
#: How many times as many pictures as were seen a range has to hold the values of.
_AHEAD = 10.0
#: A range is at most so many times the largest magnitude seen.
_WIDEST = 2.0


class _Choice(NamedTuple):
    strength: float | None
    share: float
    error: float
    layer: LayerPlan


def decide(
    product: Product,
    observed: Observed,
    precision: Precision,
    activations: ActivationScales,
    *,
    free: bool,
) -> LayerPlan:
    """The plan of one product, with the range of the largest magnitude seen.

    Args:
        product: with its float32 weights.
        observed: what was seen of its activations.
        precision: ``int8`` or ``fp8``.
        activations: where scales come from.
        free: whether a norm takes its smoothing over, so that it costs nothing.
    """
    target = TARGET * TABLE[precision].relative_l2
    wanted = observed.rows.astype(np.float64) @ product.weight
    best: _Choice | None = None
    for strength, share in _candidates(product, free=free):
        layer = _layer(product, observed, precision, activations, strength, share)
        if layer is None:
            continue
        found = _Choice(
            strength, share, error_of(product, layer, observed, precision, wanted), layer
        )
        if best is None or found.error < best.error:
            best = found
        # What costs nothing is compared among itself; else the first that will do.
        if not free and found.error <= target:
            best = found
            break
        if free and share and best.error <= target:
            break
    assert best is not None
    return best.layer


def _candidates(product: Product, *, free: bool) -> Iterator[tuple[float | None, float]]:
    """Strengths of smoothing and shares of channels apart, cheapest first."""
    yield None, 0.0
    if product.is_convolution:
        return
    for strength in STRENGTHS:
        yield strength, 0.0
    for share in SHARES:
        # Weaker smoothing leaves the resolution to what is multiplied apart.
        for strength in STRENGTHS[2:]:
            yield strength, share


def _layer(
    product: Product,
    observed: Observed,
    precision: Precision,
    activations: ActivationScales,
    strength: float | None,
    share: float,
) -> LayerPlan | None:
    """The plan of one candidate; None for one that is another's."""
    reach = reach_of(observed.peaks)
    smoothing = None if strength is None else smoothing_of(product, reach, strength)
    if smoothing is not None:
        reach = reach / smoothing
    count = int(share * product.channels)
    if share and not count:
        return None
    outliers = tuple(sorted(int(at) for at in np.argsort(-reach, kind="stable")[:count]))
    kept = np.delete(reach, outliers)
    scale = None if activations == "per-token" else scale_of(float(kept.max()), precision)
    return LayerPlan(
        product.name,
        scale,
        None if smoothing is None else tuple(float(value) for value in smoothing),
        outliers,
    )


def reach_of(peaks: Matrix) -> Matrix:
    """The magnitude that each channel will reach, [K], from its largest ones in parts of the pictures.

    Pictures to come hold larger values than those that were watched, the more so the heavier the
    values' tail is. Maxima of many values are distributed like Gumbel's law, with a standard
    deviation of pi / sqrt(6) beta, and the largest of n of them is expected at mean + beta ln n
    (Coles, An Introduction to Statistical Modeling of Extreme Values, 2001, chapter 3). Here n
    stands for ``_AHEAD`` times as many pictures.

    Args:
        peaks: as in ``Observed``.
    """
    largest = peaks.max(axis=0)
    if len(peaks) < 2:
        return largest
    beta = peaks.std(axis=0, ddof=1) * np.sqrt(6) / np.pi
    ahead = peaks.mean(axis=0) + beta * np.log(_AHEAD * len(peaks))
    reach: Matrix = np.clip(ahead, largest, _WIDEST * largest).astype(np.float32)
    return reach


def smoothing_of(product: Product, peak: Matrix, strength: float) -> Matrix:
    """What each channel of x is divided by: peak^strength / (largest weight)^(1 - strength)."""
    weight = np.abs(product.weight).max(axis=1, initial=0.0)
    usable = (peak > 0) & (weight > 0)
    factors = np.ones(product.channels, np.float64)
    factors[usable] = peak[usable] ** strength / weight[usable] ** (1 - strength)
    # Far below the others a factor does nothing but lose bits of float32.
    middle = np.median(factors[usable]) if usable.any() else 1.0
    return np.clip(factors / middle, 1e-4, 1e4).astype(np.float32)


def error_of(
    product: Product, layer: LayerPlan, observed: Observed, precision: Precision, wanted: np.ndarray
) -> float:
    """Relative L2 of the output on the kept rows, with x and W quantized as ``layer`` says."""
    x = observed.rows
    if layer.smoothing is not None:
        x = (x / np.array(layer.smoothing, np.float32)).astype(np.float32)
    values, scales = columns_quantized(smoothed(product.weight, layer), precision)
    weight = values.astype(np.float32) * scales
    step: Matrix | float
    if layer.scale is None:
        largest = np.abs(x).max(axis=1, keepdims=True)
        step = np.maximum(largest, np.finfo(np.float32).tiny) / np.float32(TABLE[precision].largest)
    else:
        step = layer.scale
    rounded = quantized(x, step, precision).astype(np.float64) * step
    got = rounded @ weight
    if layer.outliers:
        rows = apart(product.weight, layer).astype(np.float32)
        got = got + observed.rows[:, list(layer.outliers)] @ rows
    size = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(got - wanted)) / size if size else 0.0
