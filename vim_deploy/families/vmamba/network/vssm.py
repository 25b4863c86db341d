"""VMamba for inference (arXiv 2401.10166), loading official checkpoints by their own keys.

Maps are channels last between the modules, T[B, H, W, C], as norms and linear layers want them; the
official code keeps channels first (``norm_layer`` "ln2d") or last ("ln") with the same result.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from vim_deploy.families.vmamba.config import DOWNSAMPLE_KERNELS, VMambaConfig
from vim_deploy.families.vmamba.network.ss2d import SS2D
from vim_deploy.model.network import Network


class ChannelsLast(nn.Module):
    """T[B, C, H, W] to T[B, H, W, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """T[B, H, W, C] to T[B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def _patch_embed(channels: int, width: int) -> nn.Sequential:
    """Image T[B, C, H, W] to a map of a quarter of its sides, T[B, H', W', width]."""
    return nn.Sequential(
        nn.Conv2d(channels, width // 2, 3, stride=2, padding=1),
        ChannelsLast(),
        nn.LayerNorm(width // 2),
        ChannelsFirst(),
        nn.GELU(),
        nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        ChannelsLast(),
        nn.LayerNorm(width),
    )


def _downsample(width: int, wider: int, kernel: int) -> nn.Sequential:
    """Map T[B, H, W, width] to one of half its sides, T[B, H', W', wider]."""
    return nn.Sequential(
        ChannelsFirst(),
        nn.Conv2d(width, wider, kernel, stride=2, padding=(kernel - 1) // 2),
        ChannelsLast(),
        nn.LayerNorm(wider),
    )


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, over the last axis."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Residual(nn.Module):
    """The stream and what is added to it; a module, so that rounding finds the sum."""

    def forward(self, stream: Tensor, made: Tensor) -> Tensor:
        return stream + made


class Block(nn.Module):
    """Mixer and MLP, each behind a norm and beside the stream; T[B, H, W, C] to the same."""

    def __init__(self, config: VMambaConfig, level: int) -> None:
        super().__init__()
        width = config.widths[level]
        self.norm = nn.LayerNorm(width)
        self.op = SS2D(config, level)
        self.residual = Residual()
        self.has_mlp = config.mlp_ratio > 0
        if self.has_mlp:
            self.norm2 = nn.LayerNorm(width)
            self.mlp = Mlp(width, int(width * config.mlp_ratio))
            self.residual2 = Residual()

    def forward(self, x: Tensor) -> Tensor:
        x = self.residual(x, self.op(self.norm(x)))
        return self.residual2(x, self.mlp(self.norm2(x))) if self.has_mlp else x


class Level(nn.Module):
    """Blocks on maps of one size, and the convolution to the next one, but behind the last."""

    def __init__(self, config: VMambaConfig, level: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(config, level) for _ in range(config.depths[level])))
        self.downsample: nn.Sequential | None = None
        if level + 1 < len(config.depths):
            kernel = DOWNSAMPLE_KERNELS[config.downsample_version]
            self.downsample = _downsample(config.widths[level], config.widths[level + 1], kernel)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return x if self.downsample is None else self.downsample(x)


class Classifier(nn.Module):
    """Map T[B, H, W, C] to features T[B, C], and those to logits T[B, classes]."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes) if classes else nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """The mean over all positions behind the norm."""
        normed: Tensor = self.norm(x)
        return normed.mean((1, 2))


class VMamba(Network):
    """Image T[B, C, H, W] to logits T[B, classes]; without classes the features come out."""

    config: VMambaConfig

    def __init__(self, config: VMambaConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = _patch_embed(config.in_chans, config.widths[0])
        self.layers = nn.Sequential(*(Level(config, level) for level in range(len(config.depths))))
        self.classifier = Classifier(config.widths[-1], config.num_classes)
        self.eval()

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, finest first."""
        return tuple(cast(Level, level) for level in self.layers)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of all levels, as they are numbered."""
        return tuple(cast(Block, block) for level in self.levels for block in level.blocks)

    def forward(self, image: Tensor, return_features: bool = False) -> Tensor:
        """Logits, or the features before the head."""
        expected = (self.config.in_chans, *self.config.image_hw)
        if image.shape[1:] != expected:
            raise ValueError(f"image {tuple(image.shape)}: the model takes [B, {expected}]")
        features = self.classifier.features(self.layers(self.patch_embed(image)))
        if return_features:
            return features
        logits: Tensor = self.classifier.head(features)
        return logits
