"""How each product is quantized, chosen by the error that its output would have.

Everything is tried on rows of activations that calibration pictures gave: first plainly, then with
smoothing of several strengths, then in two digits. The first that keeps the error of the product's
output below a target is taken. Weights are rounded at the end, for the activations as they will be.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vim_deploy.calibration.observe import Observed
from vim_deploy.graph.quantization.plan import (
    SECOND_DIGIT,
    LayerPlan,
    column_scales,
    quantized,
    scale_of,
    smoothed,
)
from vim_deploy.graph.quantization.products import Matrix, Product
from vim_deploy.graph.quantization.rounding import rounded_for
from vim_deploy.precisions import TABLE, Precision
from vim_deploy.specs import ActivationScales

#: Strengths of smoothing that are tried: how much of the difficulty goes from activations to
#: weights (alpha of SmoothQuant, arXiv 2211.10438, section 4; 0.5 is its usual one).
STRENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9)
#: Relative L2 of a product's output above which a remedy is worth its time, where that is lower
#: than ``Row.product_l2``: of products for which a second digit adds little beside what is read and
#: written anyway. Rounding alone makes 0.004 to 0.01 in int8.
LIGHT_TARGETS = {"int8": 0.003}
#: A product is such a one with no more outputs than inputs, or with so few inputs that its
#: multiplications are not what takes the time: Vim-Ti's in_proj has 192, those of toys 64 or less.
_FEW = 128
#: How many times as many pictures as were seen a range has to hold the values of.
_AHEAD = 10.0
#: A range is at most so many times the largest magnitude seen.
_WIDEST = 2.0
#: That of two digits, which have resolution to spare: nothing is to be cut off.
_WIDEST_OF_TWO = 4.0


def decide(
    product: Product,
    observed: Observed,
    precision: Precision,
    activations: ActivationScales,
    *,
    free: bool,
) -> LayerPlan:
    """The plan of one product, with a range that holds what more pictures will reach.

    Args:
        product: with its float32 weights.
        observed: what was seen of its activations.
        precision: ``int8`` or ``fp8``.
        activations: where scales come from.
        free: whether a norm takes its smoothing over, so that it costs nothing.
    """
    target = TABLE[precision].product_l2
    if product.channels <= _FEW or product.weight.shape[1] <= product.channels:
        target = LIGHT_TARGETS.get(precision, target)
    wanted = observed.rows @ product.weight

    def tried(strength: float | None, digits: int = 1) -> LayerPlan:
        layer = _layer(product, observed, precision, activations, strength, digits)
        return replace(layer, error=error_of(product, layer, observed, precision, wanted))

    layer = tried(None)
    if _error(layer) <= target and not free:
        return layer
    if not product.is_convolution:
        layer = min(layer, *(tried(strength) for strength in STRENGTHS), key=_error)
    # Scales of rows of their own leave nothing that a second digit could hold.
    if _error(layer) <= target or activations == "per-token":
        return layer
    return min(layer, tried(None, digits=2), key=_error)


def _error(layer: LayerPlan) -> float:
    assert layer.error is not None
    return layer.error


def _layer(
    product: Product,
    observed: Observed,
    precision: Precision,
    activations: ActivationScales,
    strength: float | None,
    digits: int,
) -> LayerPlan:
    """The plan of one candidate."""
    reach = reach_of(observed.peaks)
    smoothing = None if strength is None else smoothing_of(product, reach, strength)
    if smoothing is not None:
        reach = reach / smoothing
    largest = float(reach.max())
    if digits > 1:
        largest = _WIDEST_OF_TWO * float(observed.peak.max())
    return LayerPlan(
        product.name,
        None if activations == "per-token" else scale_of(largest, precision),
        None if smoothing is None else tuple(float(value) for value in smoothing),
        digits,
    )


def reach_of(peaks: Matrix) -> Matrix:
    """The magnitude that each channel will reach, [K], from those in parts of the pictures.

    Pictures to come hold larger values than those that were watched, the more so the heavier the
    values' tail is. Maxima of many values are distributed like Gumbel's law, with a standard
    deviation of pi / sqrt(6) beta, and the largest of n of them is expected at mean + beta ln n
    (Coles, An Introduction to Statistical Modeling of Extreme Values, 2001, chapter 3). Here n
    stands for ``_AHEAD`` times as many pictures.

    Args:
        peaks: as in ``Observed``.
    """
    largest: Matrix = peaks.max(axis=0)
    if len(peaks) < 2:
        return largest
    beta = peaks.std(axis=0, ddof=1) * np.sqrt(6) / np.pi
    ahead: Matrix = peaks.mean(axis=0) + beta * np.log(_AHEAD * len(peaks))
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


def weights_of(
    product: Product, layer: LayerPlan, observed: Observed, precision: Precision
) -> NDArray[np.generic]:
    """W after smoothing in 8 bits, [K, N], rounded for the activations that were seen."""
    x = _scaled(observed.rows, layer)
    weight = smoothed(product.weight, layer)
    if layer.scale is None:
        step = float(np.abs(x).max(axis=1).mean()) / TABLE[precision].largest
    else:
        step = layer.scale * (1.0 if layer.digits == 1 else SECOND_DIGIT[precision])
    return rounded_for(weight, column_scales(weight, precision), x, step, precision)


def error_of(
    product: Product,
    layer: LayerPlan,
    observed: Observed,
    precision: Precision,
    wanted: Matrix,
    values: NDArray[np.generic] | None = None,
) -> float:
    """Relative L2 of the output on the kept rows, with x and W quantized as ``layer`` says.

    Args:
        product, layer, observed, precision: as elsewhere.
        wanted: the output in float32, [rows, N]; its own rounding is a thousandth of 8 bits'.
        values: W in 8 bits; None for W rounded to nearest.
    """
    x = _scaled(observed.rows, layer)
    weight = smoothed(product.weight, layer)
    scales = column_scales(weight, precision)
    if values is None:
        values = quantized(weight, scales, precision)
    step: Matrix | float
    if layer.scale is None:
        largest = np.abs(x).max(axis=1, keepdims=True)
        step = np.maximum(largest, np.finfo(np.float32).tiny) / np.float32(TABLE[precision].largest)
    else:
        step = layer.scale
    rounded = quantized(x, step, precision).astype(np.float32) * np.float32(step)
    if layer.digits > 1:
        second = np.float32(layer.scale or 1.0) * np.float32(SECOND_DIGIT[precision])
        rest = quantized(x - rounded, float(second), precision).astype(np.float32) * second
        rounded = rounded + rest
    got = rounded @ (values.astype(np.float32) * scales)
    size = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(got - wanted)) / size if size else 0.0


def _scaled(rows: Matrix, layer: LayerPlan) -> Matrix:
    if layer.smoothing is None:
        return rows
    return (rows / np.array(layer.smoothing, np.float32)).astype(np.float32)
