"""The ops in float64 NumPy, written from the contract and from nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def relative_l2(got: NDArray[np.floating], want: Array) -> float:
    """|got - want| / |want| in the 2-norm."""
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def softplus(x: Array) -> Array:
    """log(1 + exp(x))."""
    return np.logaddexp(0.0, x)


def silu(x: Array) -> Array:
    """x / (1 + exp(-x))."""
    return x * np.exp(-np.logaddexp(0.0, -x))


def selective_scan(
    u: Array,
    dt: Array,
    a: Array,
    b: Array,
    c: Array,
    skip: Array,
    bias: Array,
    *,
    reverse: bool = False,
    delta_softplus: bool = True,
    initial: Array | None = None,
) -> tuple[Array, Array]:
    """Outputs [B, L, D] and last state [B, N, D] of one direction.

    Shapes: u, dt [B, L, D]; a [N, D]; b, c [B, L, N]; skip, bias [D]; initial [B, N, D].
    """
    batch, length, channels = u.shape
    delta = dt + bias
    if delta_softplus:
        delta = softplus(delta)
    state = np.zeros((batch, a.shape[0], channels)) if initial is None else initial.copy()
    y = np.empty_like(u)
    for t in range(length - 1, -1, -1) if reverse else range(length):
        decay = np.exp(delta[:, t, None, :] * a[None])
        state = decay * state + (delta[:, t] * u[:, t])[:, None, :] * b[:, t, :, None]
        y[:, t] = np.einsum("bn,bnd->bd", c[:, t], state) + skip * u[:, t]
    return y, state


def bi_causal_conv(x: Array, w: Array, bias: Array) -> Array:
    """u2 [2, B, L, D] from x [B, L, D], w [2, W, D], bias [2, D]."""
    width, length = w.shape[1], x.shape[1]
    out = np.empty((2, *x.shape))
    halo = ((0, 0), (width - 1, width - 1), (0, 0))
    padded = np.pad(x, halo)
    for direction in range(2):
        total = np.broadcast_to(bias[direction], x.shape).copy()
        for k in range(width):
            start = k if direction == 0 else 2 * (width - 1) - k
            total += w[direction, k] * padded[:, start : start + length]
        out[direction] = silu(total)
    return out
