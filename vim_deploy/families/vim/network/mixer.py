"""The bidirectional Mamba mixer of Vim, with the official parameter names.

One path for every mode: a mode is one or two branches, each with a convolution, projections and a
scan, and every branch works on tokens in natural order (``reverse`` instead of flips).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vim_deploy.families.vim.config import VimConfig
from vim_deploy.model.scan import StepProjection, selective_scan_op


class DirectionalConv1d(nn.Conv1d):
    """Depthwise causal convolution and SiLU on T[B, L, D]; anti-causal when ``reverse``.

    With the taps in reversed order and the padding on the other side, the anti-causal form equals
    flipping the sequence, convolving causally and flipping back.
    """

    def __init__(self, channels: int, width: int, bias: bool, reverse: bool) -> None:
        # For its official parameter names and initialisation: weight [D, 1, W].
        super().__init__(channels, channels, width, groups=channels, bias=bias)
        self.reverse = reverse

    def forward(self, x: Tensor) -> Tensor:
        channels, _, width = self.weight.shape
        weight = self.weight.flip(-1) if self.reverse else self.weight
        padding = (0, width - 1) if self.reverse else (width - 1, 0)
        padded = F.pad(x.transpose(1, 2), padding)
        y = F.conv1d(padded, weight, self.bias, groups=channels)
        return F.silu(y.transpose(1, 2))


class ScanBranch(nn.Module):
    """The one call of the scan op for one direction; holds no parameters."""

    def __init__(self, config: VimConfig, reverse: bool) -> None:
        super().__init__()
        self.b_off = config.ssm["dt_rank"]
        self.c_off = self.b_off + config.d_state
        self.reverse = reverse

    def forward(
        self,
        u: Tensor,
        dt: Tensor,
        a_log: Tensor,
        x_dbl: Tensor,
        d_skip: Tensor,
        dt_bias: Tensor,
        xz: Tensor,
    ) -> Tensor:
        """Gated scan output T[B, L, D]; B and C are read from ``x_dbl``, the gate from ``xz``."""
        a = -torch.exp(a_log.float()).t().contiguous()
        y: Tensor = selective_scan_op(
            u=u,
            dt=dt,
            a=a,
            bc=x_dbl,
            d_skip=d_skip.float(),
            dt_bias=dt_bias.float(),
            z=xz,
            reverse=self.reverse,
            delta_softplus=True,
            b_off=self.b_off,
            c_off=self.c_off,
            z_off=u.shape[-1],
            has_z=True,
        )
        return y


class Mixer(nn.Module):
    """Tokens T[B, L, embed_dim] to T[B, L, embed_dim].

    ``none`` runs forward only. ``v1`` shares everything but A between the directions and never
    halves the sum. ``v2`` gives the backward direction its own convolution, projections, A and D,
    and halves the sum when ``if_divide_out``. With ``use_fast_path`` off the official code runs
    forward only, whatever the type; its other weights are loaded and unused, as there.

    A mirrored mixer exchanges the directions (``VimConfig.mirrored``).
    """

    dt_proj: StepProjection
    dt_proj_b: StepProjection

    def __init__(self, config: VimConfig, mirrored: bool) -> None:
        super().__init__()
        ssm, inner = config.ssm, config.d_inner
        self.kind = config.direction_type
        self.bidirectional = config.scans_per_layer == 2
        self.halve = self.kind == "v2" and self.bidirectional and config.if_divide_out
        self.in_proj = nn.Linear(config.embed_dim, 2 * inner, bias=ssm["bias"])
        self.out_proj = nn.Linear(inner, config.embed_dim, bias=ssm["bias"])
        self._add_branch("", config, reverse=mirrored)
        if self.kind == "v2":
            self._add_branch("_b", config, reverse=not mirrored)
        elif self.kind == "v1":
            self.A_b_log = nn.Parameter(_initial_a_log(config))
        self.scan = ScanBranch(config, reverse=mirrored)
        self.scan_b = ScanBranch(config, reverse=not mirrored)
        if config.init_layer_scale is not None:
            self.gamma = nn.Parameter(config.init_layer_scale * torch.ones(config.embed_dim))

    def _add_branch(self, suffix: str, config: VimConfig, reverse: bool) -> None:
        ssm, inner = config.ssm, config.d_inner
        rank = ssm["dt_rank"]
        conv = DirectionalConv1d(inner, ssm["d_conv"], ssm["conv_bias"], reverse)
        setattr(self, f"conv1d{suffix}", conv)
        setattr(self, f"x_proj{suffix}", nn.Linear(inner, rank + 2 * config.d_state, bias=False))
        setattr(self, f"dt_proj{suffix}", StepProjection(rank, inner))
        setattr(self, "A_b_log" if suffix else "A_log", nn.Parameter(_initial_a_log(config)))
        setattr(self, f"D{suffix}", nn.Parameter(torch.ones(inner)))

    def _inputs(self, x: Tensor, suffix: str) -> tuple[Tensor, Tensor, Tensor]:
        """Convolved input u, step sizes dt and the packed rows dt | B | C of one branch."""
        u: Tensor = getattr(self, f"conv1d{suffix}")(x)
        x_dbl: Tensor = getattr(self, f"x_proj{suffix}")(u)
        dt: Tensor = getattr(self, f"dt_proj{suffix}")(x_dbl)
        return u, dt, x_dbl

    def forward(self, tokens: Tensor) -> Tensor:
        xz = self.in_proj(tokens)
        x = xz[..., : xz.shape[-1] // 2]
        u, dt, x_dbl = self._inputs(x, "")
        y = self.scan(u, dt, self.A_log, x_dbl, self.D, self.dt_proj.bias, xz)
        if self.bidirectional:
            d_skip, dt_bias = self.D, self.dt_proj.bias
            if self.kind == "v2":
                u, dt, x_dbl = self._inputs(x, "_b")
                d_skip, dt_bias = self.D_b, self.dt_proj_b.bias
            y = y + self.scan_b(u, dt, self.A_b_log, x_dbl, d_skip, dt_bias, xz)
        out: Tensor = self.out_proj(y * 0.5 if self.halve else y)
        return out * self.gamma if hasattr(self, "gamma") else out


def _initial_a_log(config: VimConfig) -> Tensor:
    """log(1..N) for every channel, [D, N]: the S4D-real start of arXiv 2206.11893."""
    steps = torch.arange(1, config.d_state + 1, dtype=torch.float32)
    return torch.log(steps).repeat(config.d_inner, 1)
