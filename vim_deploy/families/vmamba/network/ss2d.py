"""VMamba's mixer: a map is scanned along rows and along columns, both ways (SS2D).

A direction is one scan with weights of its own. Columns are the transposed map's rows, and a
backward scan keeps tokens in natural order (``reverse``), so nothing is flipped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vim_deploy import places
from vim_deploy.families.vmamba.config import DIRECTIONS, VMambaConfig
from vim_deploy.model.scan import Silu, selective_scan_op


class Projection(nn.Module):
    """x T[B, L, K] times a direction's weight [N, K], given by the mixer that holds all four."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight.t()


class StepProjection(nn.Module):
    """Step sizes T[B, L, D] of packed rows T[B, L, R + 2N] and a direction's weight [D, R].

    The bias belongs to the scan, which adds it in float32 before softplus.
    """

    def forward(self, x_dbl: Tensor, weight: Tensor) -> Tensor:
        return x_dbl[..., : weight.shape[1]] @ weight.t()


class Scan(nn.Module):
    """The one call of the scan op; holds no parameters."""

    def __init__(self, rank: int, states: int, reverse: bool) -> None:
        super().__init__()
        self.b_off, self.c_off, self.reverse = rank, rank + states, reverse

    def forward(
        self,
        u: Tensor,
        dt: Tensor,
        a_log: Tensor,
        x_dbl: Tensor,
        d_skip: Tensor,
        dt_bias: Tensor,
    ) -> Tensor:
        """Scan output T[B, L, D] without a gate; B and C are read from ``x_dbl``."""
        y: Tensor = selective_scan_op(
            u=u,
            dt=dt,
            a=-torch.exp(a_log.float()).t().contiguous(),
            bc=x_dbl,
            d_skip=d_skip.float(),
            dt_bias=dt_bias.float(),
            z=u.new_empty(0),
            reverse=self.reverse,
            delta_softplus=True,
            b_off=self.b_off,
            c_off=self.c_off,
            z_off=0,
            has_z=False,
        )
        return y


class Direction(nn.Module):
    """Projections and scan of one direction; the weights are slices of the mixer's."""

    def __init__(self, rank: int, states: int, reverse: bool) -> None:
        super().__init__()
        self.x_proj = Projection()
        self.dt_proj = StepProjection()
        self.scan = Scan(rank, states, reverse)

    def forward(self, u: Tensor, mixer: SS2D, index: int) -> Tensor:
        """Scanned tokens T[B, L, D] of ``u`` in this direction's order of tokens."""
        x_dbl = self.x_proj(u, mixer.x_proj_weight[index])
        dt = self.dt_proj(x_dbl, mixer.dt_projs_weight[index])
        channels = u.shape[-1]
        own = slice(index * channels, (index + 1) * channels)
        y: Tensor = self.scan(
            u, dt, mixer.A_logs[own], x_dbl, mixer.Ds[own], mixer.dt_projs_bias[index]
        )
        return y


class SS2D(nn.Module):
    """Map T[B, H, W, C] to T[B, H, W, C].

    ``x_proj_weight`` [4, R + 2N, D], ``dt_projs_weight`` [4, D, R], ``dt_projs_bias`` [4, D],
    ``A_logs`` [4 D, N] and ``Ds`` [4 D] hold the directions in the order of ``DIRECTIONS``.
    """

    def __init__(self, config: VMambaConfig, level: int) -> None:
        super().__init__()
        width, inner = config.widths[level], config.d_inner(level)
        rank, states, count = config.rank(level), config.ssm_d_state, len(DIRECTIONS)
        self.in_proj = nn.Linear(width, inner, bias=False)
        self.conv2d = nn.Conv2d(
            inner,
            inner,
            config.ssm_conv,
            padding=config.ssm_conv // 2,
            groups=inner,
            bias=config.ssm_conv_bias,
        )
        self.act = Silu()
        self.x_proj_weight = nn.Parameter(torch.zeros(count, rank + 2 * states, inner))
        self.dt_projs_weight = nn.Parameter(torch.zeros(count, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.zeros(count, inner))
        # log(1..N) for every channel: the S4D-real start of arXiv 2206.11893.
        steps = torch.arange(1, states + 1, dtype=torch.float32)
        self.A_logs = nn.Parameter(torch.log(steps).repeat(count * inner, 1))
        self.Ds = nn.Parameter(torch.ones(count * inner))
        for name in DIRECTIONS:
            reverse = name.endswith(places.DIRECTIONS[1])
            self.add_module(name, Direction(rank, states, reverse))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv2d(self.in_proj(x).permute(0, 3, 1, 2))
        inner = self.act(inner).permute(0, 2, 3, 1)
        tokens = {
            "rows": inner.flatten(1, 2),
            "columns": inner.transpose(1, 2).flatten(1, 2),
        }
        found = {
            name: getattr(self, name)(tokens[name.partition("_")[0]], self, index)
            for index, name in enumerate(DIRECTIONS)
        }
        height, width = inner.shape[1:3]
        rows = found["rows_fwd"] + found["rows_bwd"]
        columns = found["columns_fwd"] + found["columns_bwd"]
        mixed = rows.unflatten(1, (height, width))
        mixed = mixed + columns.unflatten(1, (width, height)).transpose(1, 2)
        out: Tensor = self.out_proj(self.out_norm(mixed))
        return out
