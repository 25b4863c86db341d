"""How each product of a model is quantized: decided on calibration pictures, carried out later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from vim_deploy.codec import stored
from vim_deploy.onnx_graph import ELEMENT_TYPES
from vim_deploy.precisions import TABLE, Precision

#: Bits of a scale's mantissa that are kept: pictures seen through other kernels differ in the last
#: bits of float32, and the same scales come out all the same. Rounded up, by 0.4 % at most.
_SCALE_BITS = 8

#: Products that a sentence names.
_WORST = 3

#: The second digit's scale, as a share of the first one's: what rounding to the first leaves is at
#: most half of its step in int8, and 2^-4 of the value in E4M3, with its three bits of mantissa.
SECOND_DIGIT: dict[str, float] = {"int8": 1 / 254, "fp8": 1 / 16}


@stored(sparse=("scale", "smoothing", "digits", "error"))
@dataclass(frozen=True)
class LayerPlan:
    """One product ``y = x W``.

    Attributes:
        name: ``Product.name``.
        scale: of the activations, after smoothing; None where each row has one of its own.
        smoothing: K numbers that x is divided by and W's rows are multiplied with, channel by
            channel (SmoothQuant, arXiv 2211.10438); None for none.
        digits: 2 where x is the sum of two numbers of 8 bits, each multiplied with the same W: the
            second holds what rounding to the first leaves. For activations with a few values far
            above all others, whose range leaves the others no resolution.
        error: relative L2 of y with x and W quantized, against float32, on the rows that were
            kept of the calibration pictures; None where there were none.
    """

    name: str
    scale: float | None = None
    smoothing: tuple[float, ...] | None = None
    digits: int = 1
    error: float | None = None


@stored(keys=("layers",))
@dataclass(frozen=True)
class QuantizationPlan:
    """Every product that is quantized.

    Attributes:
        layers: in order of computation.
        weights: by the products' names, W after smoothing in 8 bits, where it was rounded for the
            activations that were seen; others are rounded to nearest. Not stored.
    """

    layers: tuple[LayerPlan, ...]
    weights: Mapping[str, NDArray[np.generic]] = field(default_factory=dict, compare=False)

    def named(self) -> dict[str, LayerPlan]:
        """The layers by their products' names."""
        return {layer.name: layer for layer in self.layers}

    @property
    def in_words(self) -> str:
        """How many products were quantized how, and those that came out worst."""
        smoothed = sum(layer.smoothing is not None for layer in self.layers)
        twice = sum(layer.digits > 1 for layer in self.layers)
        text = f"{len(self.layers)} products, {smoothed} smoothed, {twice} in two digits"
        known = [(layer.error, layer.name) for layer in self.layers if layer.error is not None]
        worst = [f"{name} {error:.1e}" for error, name in sorted(known, reverse=True)[:_WORST]]
        return text + (f"; furthest off (relative L2): {', '.join(worst)}" if worst else "")


def scale_of(largest: float, precision: Precision) -> float:
    """The scale that lets ``precision`` hold magnitudes up to ``largest``; 1 for nothing but 0."""
    if largest <= 0:
        return 1.0
    exact = largest / TABLE[precision].largest
    unit = 2.0 ** (np.floor(np.log2(exact)) - _SCALE_BITS)
    return float(np.float32(np.ceil(exact / unit) * unit))


def quantized(
    values: NDArray[np.float32], scales: NDArray[np.float32] | float, precision: Precision
) -> NDArray[np.generic]:
    """``values / scales`` in the type of ``precision``, as QuantizeLinear gives it.

    Rounded to nearest, ties to even, and saturated at the type's ends: of int8 -128 and 127, of
    which scales use -127 to 127.
    """
    row = TABLE[precision]
    kind = helper.tensor_dtype_to_np_dtype(ELEMENT_TYPES[precision])
    ratio = values / np.float32(scales)
    if np.issubdtype(kind, np.integer):
        ends = np.iinfo(kind)
        ratio = np.clip(np.rint(ratio), ends.min, ends.max)
    else:
        ratio = np.clip(ratio, -row.largest, row.largest)
    found: NDArray[np.generic] = ratio.astype(kind)
    return found


def column_scales(weight: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    """The N scales of the columns of W [K, N]."""
    largest = np.abs(weight).max(axis=0, initial=0.0)
    # Columns of zeros are padding; any scale holds them.
    scales = np.where(largest > 0, largest / TABLE[precision].largest, 1.0).astype(np.float32)
    # Of tiny weights the quotient may be below float32's normal numbers.
    return np.maximum(scales, np.finfo(np.float32).tiny)


def smoothed(weight: NDArray[np.float32], layer: LayerPlan) -> NDArray[np.float32]:
    """W with its rows multiplied by the smoothing."""
    if layer.smoothing is None:
        return weight
    return weight * np.array(layer.smoothing, np.float32)[:, None]
