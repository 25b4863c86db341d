"""MambaVision for inference (arXiv 2407.08083), loading official checkpoints by their own keys.

No randomness, no training branches, one path for eager runs and for the trace. Every size but the
batch is a constant of the config, so windows become reshapes with constant sizes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from vim_deploy.families.mambavision.config import MambaVisionConfig
from vim_deploy.families.mambavision.layout import CONV_LEVELS, LEVELS
from vim_deploy.families.mambavision.network.layers import (
    BatchNorm,
    ConvBlock,
    Downsample,
    Mlp,
    PatchEmbed,
    layer_scale,
)
from vim_deploy.families.mambavision.network.mixers import Attention, Mixer
from vim_deploy.model.network import Network


class Block(nn.Module):
    """Norm, mixer or attention, norm, MLP, each pair around a residual, on T[B, L, C]."""

    gamma_1: nn.Parameter | None
    gamma_2: nn.Parameter | None

    def __init__(self, config: MambaVisionConfig, level: int, index: int) -> None:
        super().__init__()
        dim = config.level_width(level)
        self.norm1 = nn.LayerNorm(dim)
        self.mixer: nn.Module
        if index < config.mixers(level):
            self.mixer = Mixer(dim, config.rank(level))
        else:
            self.mixer = Attention(
                dim,
                config.num_heads[level],
                qkv_bias=config.qkv_bias,
                qk_norm=bool(config.qk_scale),
            )
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, config.hidden(level))
        for name in ("gamma_1", "gamma_2"):
            self.register_parameter(name, layer_scale(config.layer_scale, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = self.mixer(self.norm1(tokens))
        tokens = tokens + (mixed if self.gamma_1 is None else mixed * self.gamma_1)
        made: Tensor = self.mlp(self.norm2(tokens))
        return tokens + (made if self.gamma_2 is None else made * self.gamma_2)


class Level(nn.Module):
    """Blocks on the map T[B, C, H, W], and the halving behind them, which the last level lacks."""

    def __init__(self, config: MambaVisionConfig, level: int) -> None:
        super().__init__()
        dim, depth = config.level_width(level), config.depths[level]
        self.windows = None if level < CONV_LEVELS else Windows(config, level)
        self.blocks = nn.ModuleList(
            ConvBlock(dim, config.layer_scale_conv)
            if self.windows is None
            else Block(config, level, index)
            for index in range(depth)
        )
        self.downsample = Downsample(dim) if level < LEVELS - 1 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.windows is not None:
            x = self.windows.cut(x)
        for block in self.blocks:
            x = block(x)
        if self.windows is not None:
            x = self.windows.join(x)
        return x if self.downsample is None else self.downsample(x)


class Windows:
    """Squares of the map of one level that are mixed each by itself, as further pictures.

    Below and right of the map stand zeros where windows go over it; they are tokens like others
    until the level ends, as officially.
    """

    def __init__(self, config: MambaVisionConfig, level: int) -> None:
        self.side = config.window_size[level]
        self.channels = config.level_width(level)
        self.map_hw = config.map_hw(level)
        self.grid_hw = config.windows_hw(level)

    @property
    def _over(self) -> tuple[int, int]:
        """Rows and columns of zeros."""
        pairs = zip(self.grid_hw, self.map_hw, strict=True)
        rows, columns = (count * self.side - side for count, side in pairs)
        return rows, columns

    def cut(self, x: Tensor) -> Tensor:
        """T[B, C, H, W] to T[B x windows, side x side, C], row by row."""
        (rows, columns), side = self.grid_hw, self.side
        below, right = self._over
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        if rows == columns == 1:
            return x.flatten(2).transpose(1, 2)
        x = x.reshape(-1, self.channels, rows, side, columns, side)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, side * side, self.channels)

    def join(self, tokens: Tensor) -> Tensor:
        """T[B x windows, side x side, C] to T[B, C, H, W]."""
        (rows, columns), side = self.grid_hw, self.side
        height, width = self.map_hw
        if rows == columns == 1:
            x = tokens.transpose(1, 2).reshape(-1, self.channels, side, side)
        else:
            x = tokens.reshape(-1, rows, columns, side, side, self.channels)
            x = x.permute(0, 5, 1, 3, 2, 4)
            x = x.reshape(-1, self.channels, rows * side, columns * side)
        return x[:, :, :height, :width] if any(self._over) else x


class MambaVision(Network):
    """Image T[B, C, H, W] to logits T[B, classes]; features T[B, 8 dim] with ``num_classes`` 0."""

    config: MambaVisionConfig

    def __init__(self, config: MambaVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.in_chans, config.in_dim, config.dim)
        self.levels = nn.ModuleList(Level(config, level) for level in range(LEVELS))
        width = config.width
        self.norm = BatchNorm(width)
        has_head = config.num_classes > 0
        self.head = nn.Linear(width, config.num_classes) if has_head else nn.Identity()
        self.eval()

    def forward(self, image: Tensor, return_features: bool = False) -> Tensor:
        """Logits, or the features before the head."""
        expected = (self.config.in_chans, *self.config.image_hw)
        if image.shape[1:] != expected:
            raise ValueError(f"image {tuple(image.shape)}: the model takes [B, {expected}]")
        x: Tensor = self.patch_embed(image)
        for level in self.levels:
            x = level(x)
        features: Tensor = self.norm(x).mean((2, 3))
        if return_features:
            return features
        logits: Tensor = self.head(features)
        return logits

    def numbered_blocks(self) -> Iterator[tuple[int, nn.Module]]:
        """The blocks of all levels with their numbers."""
        levels = (level for level in self.levels if isinstance(level, Level))
        yield from enumerate(block for level in levels for block in level.blocks)

    def downsamples(self) -> Iterator[tuple[int, Downsample]]:
        """The halvings behind levels, by the level's number."""
        for number, level in enumerate(self.levels):
            if isinstance(level.downsample, Downsample):
                yield number, level.downsample
