"""The ops in float64 NumPy: what the kernels of a plugin library are compared with.

Written from ``vim_deploy.ops.contract``, token by token. Arrays are channels-last, as there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), exact for large arguments."""
    return np.logaddexp(0.0, x)


def silu(x: Array) -> Array:
    """x / (1 + exp(-x))."""
    return x * np.exp(-np.logaddexp(0.0, -x))


def selective_scan(
    u: Array,
    dt: Array,
    a: Array,
    bc: Array,
    d_skip: Array,
    dt_bias: Array,
    *,
    reverse: bool,
    delta_softplus: bool,
    b_off: int,
    c_off: int,
) -> Array:
    """One direction without the gate, y [B,L,D].

    Shapes: u, dt [B,L,D]; a [N,D]; bc [B,L,K]; d_skip, dt_bias [D].
    """
    states = a.shape[0]
    delta = softplus(dt + dt_bias) if delta_softplus else dt + dt_bias
    b = bc[..., b_off : b_off + states]
    c = bc[..., c_off : c_off + states]
    state = np.zeros((u.shape[0], states, u.shape[2]))
    y = np.empty_like(u)
    order = range(u.shape[1])
    for t in reversed(order) if reverse else order:
        step = delta[:, t, None, :]
        state = np.exp(step * a) * state + step * b[:, t, :, None] * u[:, t, None, :]
        y[:, t] = (c[:, t, :, None] * state).sum(axis=1) + d_skip * u[:, t]
    return y


def bi_causal_conv(x: Array, w: Array, bias: Array) -> Array:
    """Both convolutions and their SiLU, u2 [2,B,L,D], from x [B,L,D], w [2,W,D], bias [2,D]."""
    width, length = w.shape[1], x.shape[1]
    sums = [np.broadcast_to(bias[i], x.shape).copy() for i in range(2)]
    for tap in range(width):
        shift = width - 1 - tap
        if shift < length:
            sums[0][:, shift:] += w[0, tap] * x[:, : length - shift]
            sums[1][:, : length - shift] += w[1, tap] * x[:, shift:]
    return np.stack([silu(total) for total in sums])


def bi_selective_scan(
    u2: Array,
    dt: Array,
    xdbl: Array,
    a: Array,
    d_skip: Array,
    dt_bias: Array,
    gate: Array,
    *,
    scale: float,
    delta_softplus: bool,
    b_off: int,
    c_off: int,
    dt_off: int,
    low_rank: bool,
) -> Array:
    """Both directions, their scaled sum and the gate, y [B,L,D].

    Shapes: u2 [2,B,L,D]; dt [2,B,L,D], or the weight [2,D,r] when ``low_rank``; xdbl [2,B,L,K];
    a [2,N,D]; d_skip, dt_bias [2,D]; gate [B,L,D].
    """
    total = np.zeros_like(gate)
    for direction in range(2):
        steps = dt[direction]
        if low_rank:
            steps = xdbl[direction][..., dt_off : dt_off + steps.shape[1]] @ steps.T
        total += selective_scan(
            u2[direction],
            steps,
            a[direction],
            xdbl[direction],
            d_skip[direction],
            dt_bias[direction],
            reverse=direction == 1,
            delta_softplus=delta_softplus,
            b_off=b_off,
            c_off=c_off,
        )
    return scale * total * silu(gate)
