"""The selective scan, written for reading: the specification that every other form is tested on.

One direction of Mamba's recurrence (arXiv 2312.00752, algorithm 2 with the zero-order-hold
simplification of the official kernels: A is discretised by exp, B by delta), in the layout and
with the meaning of ``vim_deploy.ops.selective_scan``. It is one operator as well, which the tracer
sees as a single node: ``torch.ops.vim_deploy.selective_scan`` has the inputs and attributes of
``VimSelectiveScan``. Eager runs compute it; a trace records it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vim_deploy.ops.contract import DOMAIN


def selective_scan(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    bc: Tensor,
    d_skip: Tensor,
    dt_bias: Tensor,
    z: Tensor | None,
    *,
    reverse: bool,
    delta_softplus: bool,
    b_off: int,
    c_off: int,
    z_off: int,
) -> Tensor:
    """Scan one direction; the state is float32 (float64 when the inputs are).

    Args:
        u: input, T[B, L, D], channels last.
        dt: step sizes before bias and softplus, T[B, L, D].
        a: negative state matrix, f[N, D].
        bc: rows that hold B at columns ``b_off`` .. +N and C at ``c_off`` .. +N, T[B, L, K].
        d_skip: skip weights, f[D].
        dt_bias: added to ``dt`` before softplus, f[D].
        z: rows that hold the gate at columns ``z_off`` .. +D, T[B, L, Zc]; None for no gate.
        reverse: run l from L-1 to 0; tensors stay in natural token order.
        delta_softplus: apply softplus to ``dt + dt_bias``.
        b_off, c_off, z_off: first columns of B and C in ``bc``, of the gate in ``z``.

    Returns:
        y, T[B, L, D] with the dtype of ``u``.
    """
    state_size, channels = a.shape
    compute = torch.promote_types(u.dtype, torch.float32)
    x = u.to(compute)
    delta = dt.to(compute) + dt_bias
    if delta_softplus:
        delta = F.softplus(delta)
    b_rows = bc[..., b_off : b_off + state_size].to(compute)
    c_rows = bc[..., c_off : c_off + state_size].to(compute)
    delta_u = delta * x

    state = torch.zeros(u.shape[0], state_size, channels, dtype=compute, device=u.device)
    rows: list[Tensor] = []
    length = u.shape[1]
    for index in reversed(range(length)) if reverse else range(length):
        # [B, 1, D] * [N, D] and [B, 1, D] * [B, N, 1]: one token of every image at a time.
        decay = torch.exp(delta[:, index, None, :] * a)
        state = decay * state + delta_u[:, index, None, :] * b_rows[:, index, :, None]
        rows.append((c_rows[:, index, None, :] @ state).squeeze(1))
    if reverse:
        rows.reverse()
    y = torch.stack(rows, dim=1) + d_skip * x
    if z is not None:
        y = y * F.silu(z[..., z_off : z_off + channels].to(compute))
    return y.to(u.dtype)


#: An absent gate is passed as an empty tensor and ``has_z`` = False; the contract's node leaves it
#: out.


@torch.library.custom_op(f"{DOMAIN}::selective_scan", mutates_args=())
def selective_scan_op(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    bc: Tensor,
    d_skip: Tensor,
    dt_bias: Tensor,
    z: Tensor,
    reverse: bool,
    delta_softplus: bool,
    b_off: int,
    c_off: int,
    z_off: int,
    has_z: bool,
) -> Tensor:
    """One scan direction; shapes, dtypes and meaning as in ``selective_scan``."""
    return selective_scan(
        u,
        dt,
        a,
        bc,
        d_skip,
        dt_bias,
        z if has_z else None,
        reverse=reverse,
        delta_softplus=delta_softplus,
        b_off=b_off,
        c_off=c_off,
        z_off=z_off,
    )


@selective_scan_op.register_fake
def _shape_of_selective_scan(u: Tensor, *_rest: object) -> Tensor:
    return torch.empty_like(u)


class StepProjection(nn.Linear):
    """dt_proj without its bias: packed rows T[B, L, R + 2N] to step sizes T[B, L, D].

    The bias belongs to the scan, which adds it in float32 before softplus.
    """

    def forward(self, x_dbl: Tensor) -> Tensor:
        return x_dbl[..., : self.in_features] @ self.weight.t()


class Silu(nn.Module):
    """x sigmoid(x), in the two steps that a graph has."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)
