"""Layers of the dense heads under the parameter names of mmcv and detectron2.

Batch norms are folded into the convolutions in front of them: with the statistics of evaluation
they are a factor and an offset for each channel. The trace turns the folded weights into constants,
so an exported graph holds convolutions only, and rounds each weight once. Every layer computes in
the type of its input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Of nn.BatchNorm2d, nn.SyncBatchNorm and mmcv's and detectron2's norms.
BATCH_NORM_EPS = 1e-5
#: Of detectron2's channel norm (detectron2/layers/batch_norm.py, LayerNorm).
CHANNEL_NORM_EPS = 1e-6


class BatchNorm(nn.Module):
    """The parameters and statistics of a batch norm over ``channels``; SyncBN has the same."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def factor_and_offset(self) -> tuple[Tensor, Tensor]:
        """What evaluation does to a channel: x * factor + offset, each [channels]."""
        factor = self.weight * torch.rsqrt(self.running_var + BATCH_NORM_EPS)
        return factor, self.bias - self.running_mean * factor

    def forward(self, x: Tensor) -> Tensor:
        factor, offset = self.factor_and_offset()
        return x * factor.view(-1, 1, 1) + offset.view(-1, 1, 1)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of T[B, C, H, W], in float32, as detectron2's "LN"."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # Channels last, so that runtimes see a LayerNormalization and its float32 reductions.
        last = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(last, self.weight.shape, self.weight, self.bias, CHANNEL_NORM_EPS)
        return normed.permute(0, 3, 1, 2)


def make_pyramid_norm(name: str, channels: int) -> nn.Module:
    """detectron2's ``get_norm`` of ``LN`` and ``BN``."""
    return ChannelNorm(channels) if name == "LN" else BatchNorm(channels)


def folded(
    weight: Tensor, bias: Tensor | None, norm: BatchNorm, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Weight [out, ...] and bias [out] of a convolution with ``norm`` behind it, in ``dtype``."""
    factor, offset = norm.factor_and_offset()
    shape = (-1, *[1] * (weight.ndim - 1))
    shifted = offset if bias is None else bias * factor + offset
    return (weight * factor.view(shape)).to(dtype), shifted.to(dtype)


class ConvModule(nn.Module):
    """mmcv's ConvModule: convolution without bias (``conv``), batch norm (``bn``), ReLU."""

    def __init__(self, channels_in: int, channels_out: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, size, padding=size // 2, bias=False)
        self.bn = BatchNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = folded(self.conv.weight, None, self.bn, x.dtype)
        return F.relu(F.conv2d(x, weight, bias, padding=self.conv.padding))


class ConvNorm(nn.Conv2d):
    """detectron2's Conv2d: convolution without bias and ``norm`` in one module."""

    def __init__(self, channels_in: int, channels_out: int, size: int, norm: str) -> None:
        super().__init__(channels_in, channels_out, size, padding=size // 2, bias=False)
        self.norm = make_pyramid_norm(norm, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, BatchNorm):
            weight, bias = folded(self.weight, None, self.norm, x.dtype)
            return F.conv2d(x, weight, bias, padding=self.padding)
        normed: Tensor = self.norm(F.conv2d(x, self.weight.to(x.dtype), padding=self.padding))
        return normed


class UpsampleByTwo(nn.ConvTranspose2d):
    """Every pixel becomes 2x2: transposed convolution with kernel and stride 2."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        assert self.bias is not None
        return _doubled(x, self.weight.to(x.dtype), self.bias.to(x.dtype))

    def with_norm(self, x: Tensor, norm: nn.Module) -> Tensor:
        """This layer and the norm behind it, folded where it is a batch norm."""
        if not isinstance(norm, BatchNorm):
            normed: Tensor = norm(self(x))
            return normed
        # The weight of a transposed convolution is [in, out, 2, 2].
        weight, bias = folded(self.weight.transpose(0, 1), self.bias, norm, x.dtype)
        return _doubled(x, weight.transpose(0, 1), bias)


def _doubled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Transposed convolution of stride 2, summed in float32 at least, rounded once to ``x``'s type.

    PyTorch's own in 16 bits rounds before the bias is added, and again afterwards.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    summed = F.conv_transpose2d(x.to(wide), weight.to(wide), bias.to(wide), stride=2)
    return summed.to(x.dtype)


class UpsampleByFour(nn.Sequential):
    """Up by two, norm, GELU, up by two: children 0 to 3, more may follow."""

    def forward(self, x: Tensor) -> Tensor:
        first, norm, *rest = self
        assert isinstance(first, UpsampleByTwo)
        x = first.with_norm(x, norm)
        for layer in rest:
            x = layer(x)
        return x


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, half-pixel centres (``align_corners=False``), T[B, C, h, w] to ``size``."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class AdaptiveAverage(nn.Module):
    """Average pooling of T[B, C, H, W] to T[B, C, s, s], as ``nn.AdaptiveAvgPool2d``.

    Row i of the output averages rows floor(i H / s) to ceil((i + 1) H / s). Written as two products
    with constants, because windows of unequal sizes have no operator in ONNX.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, scale: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("rows", _averages(size[0], scale), persistent=False)
        columns = _averages(size[1], scale).t().contiguous()
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows.to(x.dtype) @ (x @ self.columns.to(x.dtype))


def _averages(size: int, parts: int) -> Tensor:
    """Matrix [parts, size] of which row i averages its window."""
    matrix = torch.zeros(parts, size)
    for row in range(parts):
        start, end = row * size // parts, -(-(row + 1) * size // parts)
        matrix[row, start:end] = 1 / (end - start)
    return matrix
