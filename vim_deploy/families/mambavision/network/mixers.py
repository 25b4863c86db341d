"""What mixes the tokens of a window: MambaVision's mixer, and attention behind it.

The mixer is one forward scan without a gate. Its second branch, which has no scan, stands beside
the scan's output, and both are projected together (arXiv 2407.08083, section 3.3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vim_deploy.families.mambavision.layout import D_CONV, D_STATE
from vim_deploy.model.scan import Silu, StepProjection, selective_scan_op


class SameConv1d(nn.Module):
    """Depthwise convolution over its neighbours on both sides, and SiLU, on T[B, L, D].

    Officially ``padding="same"`` and no bias: its switch is ``conv_bias // 2``, which is 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The layer exists for its initialisation: weight [D, 1, 3].
        self.weight = nn.Conv1d(channels, channels, D_CONV, groups=channels).weight
        self.act = Silu()

    def forward(self, x: Tensor) -> Tensor:
        channels, _, width = self.weight.shape
        weight = self.weight.to(x.dtype)
        y = F.conv1d(x.transpose(1, 2), weight, padding=width // 2, groups=channels)
        activated: Tensor = self.act(y.transpose(1, 2))
        return activated


class Scan(nn.Module):
    """The one call of the scan op; holds no parameters.

    The official mixer adds the bias of dt_proj twice: in the projection, and in the scan again.
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def forward(
        self, u: Tensor, dt: Tensor, a_log: Tensor, x_dbl: Tensor, d_skip: Tensor, dt_bias: Tensor
    ) -> Tensor:
        """Scan output T[B, L, D]; B and C are read from ``x_dbl``."""
        y: Tensor = selective_scan_op(
            u=u,
            dt=dt,
            a=-torch.exp(a_log.float()).t().contiguous(),
            bc=x_dbl,
            d_skip=d_skip.float(),
            dt_bias=2 * dt_bias.float(),
            z=u.new_empty(0),
            reverse=False,
            delta_softplus=True,
            b_off=self.rank,
            c_off=self.rank + D_STATE,
            z_off=0,
            has_z=False,
        )
        return y


class Mixer(nn.Module):
    """Tokens T[B, L, C] to T[B, L, C]."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        inner = dim // 2
        self.in_proj = nn.Linear(dim, dim, bias=False)
        self.x_proj = nn.Linear(inner, rank + 2 * D_STATE, bias=False)
        self.dt_proj = StepProjection(rank, inner)
        steps = torch.arange(1, D_STATE + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(torch.log(steps).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.conv1d_x = SameConv1d(inner)
        self.conv1d_z = SameConv1d(inner)
        self.scan = Scan(rank)

    def forward(self, tokens: Tensor) -> Tensor:
        xz = self.in_proj(tokens)
        half = xz.shape[-1] // 2
        u = self.conv1d_x(xz[..., :half])
        x_dbl = self.x_proj(u)
        dt = self.dt_proj(x_dbl)
        y = self.scan(u, dt, self.A_log, x_dbl, self.D, self.dt_proj.bias)
        out: Tensor = self.out_proj(torch.cat((y, self.conv1d_z(xz[..., half:])), dim=-1))
        return out


class Attend(nn.Module):
    """softmax(q k^T / sqrt(d)) v of every head: T[B, heads, L, d] three times; no parameters."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Before the product: in half precision that of unscaled rows may overflow.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return torch.softmax(scores, dim=-1) @ v


class Attention(nn.Module):
    """Multi-head attention among the tokens of a window, T[B, L, C] to T[B, L, C]."""

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool, qk_norm: bool) -> None:
        super().__init__()
        self.heads, width = heads, dim // heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = nn.LayerNorm(width) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)
        self.attend = Attend()

    def forward(self, tokens: Tensor) -> Tensor:
        _, length, dim = tokens.shape
        qkv = self.qkv(tokens)
        q, k, v = (
            qkv[..., start : start + dim].reshape(-1, length, self.heads, dim // self.heads)
            for start in (0, dim, 2 * dim)
        )
        q, k = self.q_norm(q), self.k_norm(k)
        mixed = self.attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(-1, length, dim))
        return out
