"""A whole segmentation network: backbone, UPerHead and auxiliary head, by mmsegmentation's keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.dense.backbone import SegmentationBackbone
from vim_deploy.families.vim.network.dense.layers import AdaptiveAverage, ConvModule, resized
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.network import Network
from vim_deploy.recipe.dense_config import DenseConfig, FcnHeadConfig, UperHeadConfig

_Size = tuple[int, int]


class UperHead(nn.Module):
    """Unified perceptual parsing head (arXiv 1807.10221): four maps to logits at the first's size.

    Pyramid pooling (arXiv 1612.01105) on the coarsest map, a top-down path of sums, and one
    convolution over all levels side by side.
    """

    def __init__(self, config: UperHeadConfig, width: int, sizes: list[_Size]) -> None:
        super().__init__()
        channels = config.channels
        self.sizes = sizes
        self.psp_modules = nn.ModuleList(
            nn.Sequential(AdaptiveAverage(scale, sizes[-1]), ConvModule(width, channels, 1))
            for scale in config.pool_scales
        )
        pooled = width + len(config.pool_scales) * channels
        self.bottleneck = ConvModule(pooled, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvModule(width, channels, 1) for _ in sizes[:-1])
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels, 3) for _ in sizes[:-1])
        self.fpn_bottleneck = ConvModule(len(sizes) * channels, channels, 3)
        self.conv_seg = nn.Conv2d(channels, config.num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        levels = [conv(x) for conv, x in zip(self.lateral_convs, maps[:-1], strict=True)]
        levels.append(self._pyramid_pooling(maps[-1]))
        for index in range(len(levels) - 1, 0, -1):
            above = resized(levels[index], self.sizes[index - 1])
            levels[index - 1] = levels[index - 1] + above
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, levels[:-1], strict=True)]
        outputs.append(levels[-1])
        finest = [outputs[0], *(resized(x, self.sizes[0]) for x in outputs[1:])]
        logits: Tensor = self.conv_seg(self.fpn_bottleneck(torch.cat(finest, dim=1)))
        return logits

    def _pyramid_pooling(self, x: Tensor) -> Tensor:
        pooled = [resized(module(x), self.sizes[-1]) for module in self.psp_modules]
        result: Tensor = self.bottleneck(torch.cat([x, *pooled], dim=1))
        return result


class FcnHead(nn.Module):
    """Convolutions on one feature map and logits at its size: the auxiliary head of training."""

    def __init__(self, config: FcnHeadConfig, width: int) -> None:
        super().__init__()
        widths = [width, *[config.channels] * (config.num_convs - 1)]
        self.convs = nn.Sequential(
            *(ConvModule(before, config.channels, config.kernel_size) for before in widths)
        )
        self.conv_seg = nn.Conv2d(config.channels, config.num_classes, 1)
        self.in_index = config.in_index

    def forward(self, maps: list[Tensor]) -> Tensor:
        logits: Tensor = self.conv_seg(self.convs(maps[self.in_index]))
        return logits


class Segmentor(Network):
    """Image T[B, C, H, W] to logits T[B, classes, H / 4, W / 4]."""

    config: VimConfig
    dense: DenseConfig
    core_path = "backbone"

    def __init__(self, config: VimConfig, dense: DenseConfig) -> None:
        super().__init__()
        assert dense.decode_head is not None
        self.backbone = SegmentationBackbone(config, dense)
        self.config, self.dense = self.backbone.config, dense
        width, sizes = config.embed_dim, self.backbone.map_sizes()
        self.decode_head = UperHead(dense.decode_head, width, sizes)
        if dense.auxiliary_head is not None:
            self.auxiliary_head = FcnHead(dense.auxiliary_head, width)
        self.eval()

    @property
    def vim(self) -> VisionMamba:
        """The Vim itself."""
        return self.backbone

    def feature_maps(self, image: Tensor) -> list[Tensor]:
        """The maps that both heads read, finest first."""
        return self.backbone(image)  # type: ignore[no-any-return]

    def upsampled(self, logits: Tensor) -> Tensor:
        """Logits at the input's size."""
        return resized(logits, self.config.image_hw)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the decode head."""
        logits: Tensor = self.decode_head(self.backbone(image))
        return logits
