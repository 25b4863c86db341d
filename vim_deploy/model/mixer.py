"""The bidirectional Mamba mixer of Vim, with the official parameter names.

One path for every mode: a mode is a list of directions, each with its own convolution, projections
and scan, and every direction works on tokens in natural order (``reverse`` instead of flips).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vim_deploy.model.layers import DirectionalConv1d
from vim_deploy.model.scan_op import selective_scan
from vim_deploy.recipe.model_config import ModelConfig


class ScanDirection(nn.Module):
    """The one call of the scan op for one direction; holds no parameters."""

    def __init__(self, dt_rank: int, d_state: int, reverse: bool) -> None:
        super().__init__()
        self.b_off = dt_rank
        self.c_off = dt_rank + d_state
        self.reverse = reverse

    def forward(
        self, u: Tensor, dt: Tensor, a_log: Tensor, x_dbl: Tensor, d_skip: Tensor,
        dt_bias: Tensor, xz: Tensor,
    ) -> Tensor:  # fmt: skip
        """Gated scan output T[B, L, D]; B and C are read from ``x_dbl``, the gate from ``xz``."""
        a = -torch.exp(a_log.float()).t().contiguous()
        result: Tensor = selective_scan(
            u, dt, a, x_dbl, d_skip.float(), dt_bias.float(), xz,
            self.reverse, True, self.b_off, self.c_off, u.shape[-1], True,
        )  # fmt: skip
        return result


class Mixer(nn.Module):
    """Tokens T[B, L, embed_dim] to T[B, L, embed_dim].

    ``none`` runs forward only. ``v1`` shares everything but A between the directions and never
    halves the sum. ``v2`` gives the backward direction its own convolution, projections, A and D,
    and halves the sum when ``if_divide_out``. With ``use_fast_path`` off the official code runs
    forward only, whatever the type; its other weights are loaded and unused, as there.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        ssm, inner = config.ssm, config.d_inner
        self.kind = config.direction_type
        self.bidirectional = config.scans_per_layer == 2
        self.scale = 0.5 if self.kind == "v2" and self.bidirectional and config.if_divide_out else 1
        self.in_proj = nn.Linear(config.embed_dim, 2 * inner, bias=ssm["bias"])
        self.out_proj = nn.Linear(inner, config.embed_dim, bias=ssm["bias"])
        self._add_direction("", config, reverse=False)
        if self.kind == "v2":
            self._add_direction("_b", config, reverse=True)
        elif self.kind == "v1":
            self.A_b_log = nn.Parameter(_initial_a_log(config))
        self.scan_fwd = ScanDirection(ssm["dt_rank"], config.d_state, reverse=False)
        self.scan_bwd = ScanDirection(ssm["dt_rank"], config.d_state, reverse=True)
        if config.init_layer_scale is not None:
            self.gamma = nn.Parameter(config.init_layer_scale * torch.ones(config.embed_dim))

    def _add_direction(self, suffix: str, config: ModelConfig, reverse: bool) -> None:
        ssm, inner = config.ssm, config.d_inner
        conv = DirectionalConv1d(inner, ssm["d_conv"], ssm["conv_bias"], reverse)
        x_proj = nn.Linear(inner, ssm["dt_rank"] + 2 * config.d_state, bias=False)
        setattr(self, f"conv1d{suffix}", conv)
        setattr(self, f"x_proj{suffix}", x_proj)
        setattr(self, f"dt_proj{suffix}", nn.Linear(ssm["dt_rank"], inner))
        setattr(self, "A_b_log" if suffix else "A_log", nn.Parameter(_initial_a_log(config)))
        setattr(self, f"D{suffix}", nn.Parameter(torch.ones(inner)))

    def _inputs(self, xz: Tensor, suffix: str) -> tuple[Tensor, Tensor, Tensor]:
        """Convolved input u, step sizes dt and the packed rows dt | B | C of one direction."""
        inner = xz.shape[-1] // 2
        dt_proj: nn.Linear = getattr(self, f"dt_proj{suffix}")
        u: Tensor = getattr(self, f"conv1d{suffix}")(xz[..., :inner])
        x_dbl: Tensor = getattr(self, f"x_proj{suffix}")(u)
        # The bias of dt_proj belongs to the scan, which adds it in float32.
        dt = x_dbl[..., : dt_proj.in_features] @ dt_proj.weight.t()
        return u, dt, x_dbl

    def forward(self, tokens: Tensor) -> Tensor:
        xz = self.in_proj(tokens)
        u, dt, x_dbl = self._inputs(xz, "")
        y = self.scan_fwd(u, dt, self.A_log, x_dbl, self.D, self.dt_proj.bias, xz)
        if self.bidirectional:
            if self.kind == "v2":
                u, dt, x_dbl = self._inputs(xz, "_b")
                d_skip, dt_bias = self.D_b, self.dt_proj_b.bias
            else:
                d_skip, dt_bias = self.D, self.dt_proj.bias
            y = y + self.scan_bwd(u, dt, self.A_b_log, x_dbl, d_skip, dt_bias, xz)
            if self.scale != 1:
                y = y * self.scale
        out: Tensor = self.out_proj(y)
        return out * self.gamma if hasattr(self, "gamma") else out


def _initial_a_log(config: ModelConfig) -> Tensor:
    """log(1..N) for every channel, [D, N]: the S4D-real start of arXiv 2206.11893."""
    steps = torch.arange(1, config.d_state + 1, dtype=torch.float32)
    return torch.log(steps).repeat(config.d_inner, 1)
