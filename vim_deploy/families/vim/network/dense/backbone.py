"""The Vim backbone with feature maps: VisionMambaSeg and VisionMambaDet for inference.

What the official code takes as a feature is reproduced: the output of a block's mixer, not the
residual stream and without a norm, unless ``use_residual_as_feature`` says otherwise. A stream
taken "after block i" is read at block i + 1, behind that block's rope.
"""

from __future__ import annotations

from torch import Tensor, nn

from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.dense.layers import BatchNorm, UpsampleByFour, UpsampleByTwo
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.recipe.dense_config import DenseConfig


class DenseBackbone(VisionMamba):
    """Image T[B, C, H, W] to feature maps, each T[B, embed_dim, rows, columns] of the patches."""

    dense: DenseConfig

    def __init__(self, config: VimConfig, dense: DenseConfig) -> None:
        config.require_dense(dense)
        super().__init__(config.replace(num_classes=0))
        self.dense = dense
        if dense.task == "detection":
            # The official VisionMambaDet has none, so its checkpoints do not hold one.
            del self.norm_f

    def block_maps(self, image: Tensor) -> list[Tensor]:
        """The maps before they are scaled, in the official order."""
        dense, last = self.dense, self.config.depth - 1
        blocks: list[tuple[Tensor, Tensor]] = []
        hidden, residual = self._mix(self._tokens(image), blocks)
        if dense.task == "detection":
            return [self._map(self._last(hidden, residual))]
        if not dense.use_residual_as_feature:
            return [self._map(blocks[index][0]) for index in dense.out_indices]
        maps = [self._map(blocks[i + 1][1]) for i in dense.out_indices if i < last]
        if dense.out_indices[-1] == last:
            maps.append(self._map(self._last(hidden, residual)))
        return maps

    def _last(self, hidden: Tensor, residual: Tensor | None) -> Tensor:
        process = self.dense.last_layer_process
        if process == "none":
            return hidden
        if process == "add":
            return hidden if residual is None else hidden + residual
        return self._final_norm(hidden, residual)

    def _map(self, tokens: Tensor) -> Tensor:
        columns = tokens.transpose(1, 2)
        grid: Tensor = columns.unflatten(2, self.config.grid_hw)  # type: ignore[no-untyped-call]
        return grid


class SegmentationBackbone(DenseBackbone):
    """VisionMambaSeg: maps of strides 4, 8, 16 and 32 with ``if_fpn``, else of the patches'."""

    #: Path of the Vim itself among the modules of a network.
    core_path = ""

    def __init__(self, config: VimConfig, dense: DenseConfig) -> None:
        super().__init__(config, dense)
        if dense.if_fpn:
            dim = config.embed_dim
            scales = _scales_of_16(dim) if config.patch_hw == (16, 16) else _scales_of_8(dim)
            self.fpn1, self.fpn2, self.fpn3, self.fpn4 = scales
        self.eval()

    @property
    def vim(self) -> VisionMamba:
        """The Vim itself."""
        return self

    def forward(self, image: Tensor) -> list[Tensor]:  # type: ignore[override]
        """The feature maps, finest first."""
        return self.feature_maps(image)

    def feature_maps(self, image: Tensor) -> list[Tensor]:
        """What ``forward`` gives."""
        maps = self.block_maps(image)
        if not self.dense.if_fpn:
            return maps
        scales = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
        # One map feeds all four scales.
        sources = maps * len(scales) if len(maps) == 1 else maps
        return [scale(x) for scale, x in zip(scales, sources, strict=False)]

    def map_sizes(self) -> list[tuple[int, int]]:
        """Rows and columns of every feature map."""
        rows, columns = self.config.grid_hw
        if not self.dense.if_fpn:
            return [(rows, columns)] * len(self.dense.feature_names)
        factors = (4, 2, 1, 0.5) if self.config.patch_hw == (16, 16) else (2, 1, 0.5, 0.25)
        return [
            (int(rows * factor), int(columns * factor))
            for factor, _ in zip(factors, self.dense.feature_names, strict=False)
        ]


def _scales_of_16(dim: int) -> tuple[nn.Module, ...]:
    """For maps of 16-pixel patches: to 4, 8, 16 and 32 pixels."""
    return (
        UpsampleByFour(UpsampleByTwo(dim, dim), BatchNorm(dim), nn.GELU(), UpsampleByTwo(dim, dim)),
        nn.Sequential(UpsampleByTwo(dim, dim)),
        nn.Identity(),
        nn.MaxPool2d(kernel_size=2, stride=2),
    )


def _scales_of_8(dim: int) -> tuple[nn.Module, ...]:
    """For maps of 8-pixel patches: to 4, 8, 16 and 32 pixels."""
    return (
        nn.Sequential(UpsampleByTwo(dim, dim)),
        nn.Identity(),
        nn.Sequential(nn.MaxPool2d(kernel_size=2, stride=2)),
        nn.Sequential(nn.MaxPool2d(kernel_size=4, stride=4)),
    )
