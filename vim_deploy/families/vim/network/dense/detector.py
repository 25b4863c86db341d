"""A detection backbone: Vim and detectron2's SimpleFeaturePyramid, by their keys."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.dense.backbone import DenseBackbone
from vim_deploy.families.vim.network.dense.layers import (
    ConvNorm,
    UpsampleByFour,
    UpsampleByTwo,
    make_pyramid_norm,
)
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.network import Network
from vim_deploy.recipe.dense_config import DenseConfig

#: Numbers in the keys of the levels at 4, 8, 16 and 32 pixels: simfp_2 to simfp_5.
_FIRST_LEVEL = 2


class DetectionBackbone(Network):
    """Image T[B, C, H, W] to p2 .. p5 and, with a top block, p6: T[B, out_channels, .., ..].

    Level pN has one pixel for 2^N of the image with the official patches of 16 pixels.
    """

    config: VimConfig
    dense: DenseConfig
    core_path = "net"

    def __init__(self, config: VimConfig, dense: DenseConfig) -> None:
        super().__init__()
        assert dense.pyramid is not None
        self.net = DenseBackbone(config, dense)
        self.config, self.dense = self.net.config, dense
        self.top_block = dense.pyramid.top_block
        dim, width, norm = config.embed_dim, dense.pyramid.out_channels, dense.pyramid.norm
        half, quarter = dim // 2, dim // 4
        starts: tuple[tuple[int, list[nn.Module]], ...] = (
            (
                quarter,
                [
                    UpsampleByTwo(dim, half),
                    make_pyramid_norm(norm, half),
                    nn.GELU(),
                    UpsampleByTwo(half, quarter),
                ],
            ),
            (half, [UpsampleByTwo(dim, half)]),
            (dim, []),
            (dim, [nn.MaxPool2d(kernel_size=2, stride=2)]),
        )
        self.levels: list[nn.Module] = []
        for level, (channels, start) in enumerate(starts, _FIRST_LEVEL):
            layers = [*start, ConvNorm(channels, width, 1, norm), ConvNorm(width, width, 3, norm)]
            kind = UpsampleByFour if len(start) > 1 else nn.Sequential
            self.add_module(f"simfp_{level}", kind(*layers))
            self.levels.append(getattr(self, f"simfp_{level}"))
        self.eval()

    @property
    def vim(self) -> VisionMamba:
        """The Vim itself."""
        return self.net

    def levels_of(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Pixels of the image in one of each map, and rows and columns of each map."""
        rows, columns = self.config.grid_hw
        step = self.config.stride
        strides = [step // 4, step // 2, step, step * 2]
        grids = [(4 * rows, 4 * columns), (2 * rows, 2 * columns), (rows, columns)]
        grids.append((rows // 2, columns // 2))
        if self.top_block:
            strides.append(step * 4)
            grids.append(((grids[-1][0] + 1) // 2, (grids[-1][1] + 1) // 2))
        return strides, grids

    def forward(self, image: Tensor) -> list[Tensor]:
        """The feature maps, finest first."""
        return self.feature_maps(image)

    def feature_maps(self, image: Tensor) -> list[Tensor]:
        """What ``forward`` gives."""
        (features,) = self.net.block_maps(image)
        maps = [level(features) for level in self.levels]
        if self.top_block:
            # detectron2's LastLevelMaxPool: every other row and column.
            maps.append(F.max_pool2d(maps[-1], kernel_size=1, stride=2, padding=0))
        return maps
