"""Weights in 8 bits, each rounded with regard to those that are rounded after it.

Rounding W to nearest makes the least error of W, not of x W. Where channels of x go together, what
rounding one row of W spoils the rows after it can make good: GPTQ (arXiv 2210.17323), whose
Hessian is the mean of x^T x over rows of activations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vim_deploy.graph.quantization.plan import quantized
from vim_deploy.precisions import Precision

#: What is added to the Hessian's diagonal, as a share of its mean (GPTQ, section 3).
_DAMPING = 0.01
#: Rows that are rounded before the others are told; only time depends on it.
_BLOCK = 64


def rounded_for(
    weight: NDArray[np.float32],
    scales: NDArray[np.float32],
    rows: NDArray[np.float32],
    step: float,
    precision: Precision,
) -> NDArray[np.generic]:
    """``weight / scales`` in the type of ``precision``, for activations like ``rows``.

    Args:
        weight: W, float32 [K, N].
        scales: of its columns, float32 [N].
        rows: of x as they are quantized, float32 [rows, K].
        step: scale of x, whose rounding adds step^2 / 12 to the Hessian's diagonal.
        precision: ``int8`` or ``fp8``.

    Returns:
        [K, N]; rounded to nearest where the rows say nothing.
    """
    wide = rows.astype(np.float64)
    hessian = wide.T @ wide / max(len(rows), 1)
    mean = float(np.diag(hessian).mean())
    if not mean > 0:
        return quantized(weight, scales, precision)
    hessian[np.diag_indices_from(hessian)] += _DAMPING * mean + step**2 / 12
    # The most important rows first: the others make good what they spoil.
    order = np.argsort(-np.diag(hessian), kind="stable")
    inverse = np.linalg.inv(hessian[np.ix_(order, order)])
    factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
    left = weight[order].astype(np.float64)
    found = np.empty(weight.shape, quantized(weight[:0], scales, precision).dtype)
    for start in range(0, len(left), _BLOCK):
        stop = min(start + _BLOCK, len(left))
        errors = np.empty((stop - start, left.shape[1]))
        for at in range(start, stop):
            found[order[at]] = quantized(left[at].astype(np.float32), scales, precision)
            got = found[order[at]].astype(np.float64) * scales
            errors[at - start] = (left[at] - got) / factor[at, at]
            left[at + 1 : stop] -= np.outer(factor[at, at + 1 : stop], errors[at - start])
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return found
