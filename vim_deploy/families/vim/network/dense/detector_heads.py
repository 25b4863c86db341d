"""A whole detector, backbone to masks, by detectron2's keys (GeneralizedRCNN)."""

from __future__ import annotations

from torch import Tensor

import vim_deploy.model.region_ops  # noqa: F401 - registers the two operators
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.dense.boxes import wide
from vim_deploy.families.vim.network.dense.detector import DetectionBackbone
from vim_deploy.families.vim.network.dense.roi_heads import RoiHeads
from vim_deploy.families.vim.network.dense.rpn import ProposalGenerator
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.network import Network
from vim_deploy.recipe.dense_config import DenseConfig

#: Levels that the box and mask heads read; p6 is for proposals only.
_HEAD_LEVELS = 4


class Detector(Network):
    """Normalised image T[B, C, S, S] and sizes to boxes, scores, classes, masks and their count."""

    config: VimConfig
    dense: DenseConfig
    core_path = "backbone.net"

    def __init__(self, config: VimConfig, dense: DenseConfig) -> None:
        super().__init__()
        assert dense.detector is not None
        assert dense.pyramid is not None
        self.backbone = DetectionBackbone(config, dense)
        self.config, self.dense = self.backbone.config, dense
        channels, detector = dense.pyramid.out_channels, dense.detector
        strides, grids = self.backbone.levels_of()
        self.proposal_generator = ProposalGenerator(channels, detector.proposals, strides, grids)
        self.roi_heads = RoiHeads(channels, detector)
        self.eval()

    @property
    def vim(self) -> VisionMamba:
        """The Vim itself."""
        return self.backbone.vim

    def feature_maps(self, image: Tensor) -> list[Tensor]:
        """p2 to p6, finest first."""
        return self.backbone.feature_maps(image)

    def detections(
        self, image: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        """What is in the pictures, the best first.

        Args:
            image: f32[B, C, S, S], normalised, exact zeros below and right of the picture.
            size: f32[B, 2], height and width of the picture inside.

        Returns:
            Boxes f32[B, N, 4] in pixels of the input, scores f32[B, N], classes int64 [B, N], masks
            f32[B, N, 28, 28] (None without a mask head) and the count int64 [B]; rows from the
            count on are zeros. N is the most detections of a picture.
        """
        maps = [wide(x) for x in self.feature_maps(image)]
        boxes, _, valid = self.proposal_generator(maps, size)
        maps = maps[:_HEAD_LEVELS]
        boxes, scores = self.roi_heads.stages(maps, boxes, valid, size)
        boxes, scores, classes, valid = self.roi_heads.best(boxes, scores)
        masks = None
        if self.roi_heads.detector.mask_head is not None:
            masks = self.roi_heads.masks(maps, boxes, classes, valid)
        return boxes, scores, classes, masks, valid.sum(1)

    def forward(
        self, image: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        """What ``detections`` gives."""
        return self.detections(image, size)
