"""How each product of a model is quantized: decided on calibration pictures, carried out later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from vim_deploy.codec import stored
from vim_deploy.onnx_graph import ELEMENT_TYPES
from vim_deploy.precisions import TABLE, Precision

#: Bits of a scale's mantissa that are kept: pictures seen through other kernels differ in the last
#: bits of float32, and the same scales come out all the same. Rounded up, by 0.4 % at most.
_SCALE_BITS = 8


@stored(sparse=("scale", "smoothing", "outliers", "error"))
@dataclass(frozen=True)
class LayerPlan:
    """One product ``y = x W``.

    Attributes:
        name: ``Product.name``.
        scale: of the activations, after smoothing; None where each row has one of its own.
        smoothing: K numbers that x is divided by and W's rows are multiplied with, channel by
            channel (SmoothQuant, arXiv 2211.10438); None for none.
        outliers: channels of x that are multiplied apart, in high precision: those whose largest
            values would take the others' resolution (LLM.int8(), arXiv 2208.07339, with channels
            chosen beforehand).
        error: relative L2 of y with x and W quantized, against float32, on the rows that were
            kept of the calibration pictures; None where there were none.
    """

    name: str
    scale: float | None = None
    smoothing: tuple[float, ...] | None = None
    outliers: tuple[int, ...] = ()
    error: float | None = None


@dataclass(frozen=True)
class QuantizationPlan:
    """Every product that is quantized, in order of computation."""

    layers: tuple[LayerPlan, ...]

    def named(self) -> dict[str, LayerPlan]:
        """The layers by their products' names."""
        return {layer.name: layer for layer in self.layers}


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

    Rounded to nearest, ties to even, and saturated at the type's largest number.
    """
    row = TABLE[precision]
    kind = helper.tensor_dtype_to_np_dtype(ELEMENT_TYPES[precision])
    ratio = np.clip(values / np.float32(scales), -row.largest, row.largest)
    if np.issubdtype(kind, np.integer):
        ratio = np.rint(ratio)
    found: NDArray[np.generic] = ratio.astype(kind)
    return found


def columns_quantized(
    weight: NDArray[np.float32], precision: Precision
) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
    """W [K, N] in the type of ``precision``, and the N scales of its columns."""
    largest = np.abs(weight).max(axis=0, initial=0.0)
    # Columns of zeros are padding; any scale holds them.
    scales = np.where(largest > 0, largest / TABLE[precision].largest, 1.0).astype(np.float32)
    # Of tiny weights the quotient may be below float32's normal numbers.
    scales = np.maximum(scales, np.finfo(np.float32).tiny)
    return quantized(weight, scales, precision), scales


def apart(weight: NDArray[np.float32], layer: LayerPlan) -> NDArray[np.floating]:
    """Rows of W that outliers are multiplied with, as they are stored: in float16 where it holds.

    Not in 8 bits: what reads back a matrix of int8 for a product of floats, ONNX Runtime (1.32)
    takes for MatMulNBits, which rounds the activations to 8 bits, too.
    """
    rows = weight[list(layer.outliers)]
    held = np.abs(rows).max(initial=0.0) <= np.finfo(np.float16).max
    return rows.astype(np.float16 if held else np.float32)


def smoothed(weight: NDArray[np.float32], layer: LayerPlan) -> NDArray[np.float32]:
    """W with its rows multiplied by the smoothing, and those of outliers set to zero."""
    found = weight.copy()
    if layer.smoothing is not None:
        found *= np.array(layer.smoothing, np.float32)[:, None]
    found[list(layer.outliers)] = 0
    return found
