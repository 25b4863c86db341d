"""Layers with the official parameter names: norms, patch embedding, directional convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vim_deploy.recipe.model_config import ModelConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis (arXiv 1910.07467), without a bias."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def make_norm(config: ModelConfig) -> nn.Module:
    """RMSNorm or LayerNorm over ``embed_dim``, as the config says."""
    if config.rms_norm:
        return RMSNorm(config.embed_dim, config.norm_epsilon)
    return nn.LayerNorm(config.embed_dim, eps=config.norm_epsilon)


class PatchEmbed(nn.Module):
    """Image T[B, C, H, W] to tokens T[B, patches, embed_dim], patches in row-major order."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            config.channels, config.embed_dim, kernel_size=config.patch_hw, stride=config.stride
        )

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.proj(image)
        return tokens.flatten(2).transpose(1, 2)


class DirectionalConv1d(nn.Module):
    """Depthwise causal convolution and SiLU on T[B, L, D]; anti-causal when ``reverse``.

    With the taps in reversed order and the padding on the other side, the anti-causal form equals
    flipping the sequence, convolving causally and flipping back.
    """

    def __init__(self, channels: int, width: int, bias: bool, reverse: bool) -> None:
        super().__init__()
        # The layer exists for its official parameter names and initialisation: weight [D, 1, W].
        template = nn.Conv1d(channels, channels, width, groups=channels, bias=bias)
        self.weight = template.weight
        self.bias = template.bias
        self.reverse = reverse

    def forward(self, x: Tensor) -> Tensor:
        channels, _, width = self.weight.shape
        weight = self.weight.flip(-1) if self.reverse else self.weight
        padding = (0, width - 1) if self.reverse else (width - 1, 0)
        padded = F.pad(x.transpose(1, 2), padding)
        y = F.conv1d(padded, weight, self.bias, groups=channels)
        return F.silu(y.transpose(1, 2))


class StepProjection(nn.Linear):
    """dt_proj without its bias: packed rows T[B, L, R + 2N] to step sizes T[B, L, D].

    The bias belongs to the scan, which adds it in float32 before softplus.
    """

    def forward(self, x_dbl: Tensor) -> Tensor:
        return x_dbl[..., : self.in_features] @ self.weight.t()
