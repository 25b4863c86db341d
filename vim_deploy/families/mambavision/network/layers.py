"""Layers of MambaVision under the official parameter names.

Batch norms are folded into the convolutions in front of them: with the statistics of evaluation
they are a factor and an offset for each channel. The trace turns the folded weights into constants,
so that an exported graph holds convolutions only, and rounds each weight once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Of the norms in the official ``PatchEmbed``; all others have PyTorch's.
STEM_NORM_EPS = 1e-4


class BatchNorm(nn.BatchNorm2d):
    """A batch norm with the statistics of evaluation."""

    def factor_and_offset(self) -> tuple[Tensor, Tensor]:
        """What it does to a channel: x * factor + offset, each [channels]."""
        mean, variance = self.running_mean, self.running_var
        assert mean is not None
        assert variance is not None
        factor = self.weight * torch.rsqrt(variance + self.eps)
        return factor, self.bias - mean * factor

    def forward(self, x: Tensor) -> Tensor:
        factor, offset = self.factor_and_offset()
        return x * factor.view(-1, 1, 1) + offset.view(-1, 1, 1)


class NormedConv(nn.Conv2d):
    """3x3 convolution with the batch norm behind it, T[B, C, H, W] to T[B, D, h, w]."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, bias: bool) -> None:
        super().__init__(channels_in, channels_out, 3, stride, padding=1, bias=bias)

    def forward(self, x: Tensor, norm: BatchNorm) -> Tensor:  # type: ignore[override]
        factor, offset = norm.factor_and_offset()
        weight = self.weight * factor.view(-1, 1, 1, 1)
        bias = offset if self.bias is None else self.bias * factor + offset
        return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), self.stride, self.padding)


class PatchEmbed(nn.Module):
    """Image T[B, C, H, W] to T[B, dim, H / 4, W / 4], sides rounded up."""

    def __init__(self, channels: int, inner: int, dim: int) -> None:
        super().__init__()
        self.conv_down = nn.Sequential(
            NormedConv(channels, inner, stride=2, bias=False),
            BatchNorm(inner, eps=STEM_NORM_EPS),
            nn.ReLU(),
            NormedConv(inner, dim, stride=2, bias=False),
            BatchNorm(dim, eps=STEM_NORM_EPS),
            nn.ReLU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        first, first_norm, first_relu, second, second_norm, second_relu = self.conv_down
        x = first_relu(first(image, first_norm))
        embedded: Tensor = second_relu(second(x, second_norm))
        return embedded


class Downsample(nn.Module):
    """T[B, C, H, W] to T[B, 2 C, H / 2, W / 2], sides rounded up."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, 2, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.reduction(x)
        return halved


def layer_scale(start: float | None, dim: int) -> nn.Parameter | None:
    """Factors of a block's channels, where a config says with what number they start."""
    return None if start is None else nn.Parameter(start * torch.ones(dim))


class ConvBlock(nn.Module):
    """Residual block of two convolutions on T[B, C, H, W], with the tanh form of GELU between."""

    gamma: nn.Parameter | None

    def __init__(self, dim: int, scale: float | None) -> None:
        super().__init__()
        self.conv1 = NormedConv(dim, dim, stride=1, bias=True)
        self.norm1 = BatchNorm(dim)
        self.act1 = nn.GELU(approximate="tanh")
        self.conv2 = NormedConv(dim, dim, stride=1, bias=True)
        self.norm2 = BatchNorm(dim)
        self.register_parameter("gamma", layer_scale(scale, dim))

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.conv2(self.act1(self.conv1(x, self.norm1)), self.norm2)
        return x + (inner if self.gamma is None else inner * self.gamma.view(-1, 1, 1))


class Mlp(nn.Module):
    """Two linear layers with exact GELU between, on T[B, L, C]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(tokens)))
        return out
