"""Proposals of a detector: the RPN (arXiv 1506.01497) by detectron2's keys, with fixed shapes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vim_deploy.families.vim.network.dense.boxes import (
    NO_LOGIT,
    anchors,
    clipped,
    decoded,
    finite,
    finite_rows,
    padded_rows,
    picked_rows,
    where,
    wide,
    zeros_unless,
)
from vim_deploy.model.region_ops import has_area
from vim_deploy.recipe.detector_config import ProposalConfig

#: Logits from here on are real ones: ``NO_LOGIT`` is far below.
_REAL_LOGIT = NO_LOGIT / 10
#: Deltas of the RPN are in units of the anchors.
_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


class RpnHead(nn.Module):
    """detectron2's StandardRPNHead: maps T[B, C, H, W] to logits [B, A, H, W], deltas [B, 4A, ..].

    One convolution is ``conv`` itself, several are ``conv.conv0``, ``conv.conv1`` and so on.
    """

    def __init__(self, channels: int, convs: int, anchors_of_cell: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(convs)]
        self.layers = layers
        if convs == 1:
            self.conv: nn.Module = layers[0]
        else:
            self.conv = nn.Module()
            for index, layer in enumerate(layers):
                self.conv.add_module(f"conv{index}", layer)
        self.objectness_logits = nn.Conv2d(channels, anchors_of_cell, 1)
        self.anchor_deltas = nn.Conv2d(channels, anchors_of_cell * 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.objectness_logits(x), self.anchor_deltas(x)


class ProposalGenerator(nn.Module):
    """Maps p2 to p6 to the best boxes that may hold an object."""

    def __init__(
        self,
        channels: int,
        config: ProposalConfig,
        strides: Sequence[int],
        grids: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__()
        self.proposals = config
        self.rpn_head = RpnHead(channels, config.convs, len(config.aspect_ratios))
        for level, (side, stride, grid) in enumerate(
            zip(config.anchor_sizes, strides, grids, strict=True)
        ):
            made = anchors((side,), config.aspect_ratios, stride, grid)
            self.register_buffer(f"anchors_{level}", made, persistent=False)
        #: Of each level; the finest has the most anchors.
        self.rows = min(config.pre_nms_topk, len(self.get_buffer("anchors_0")))

    def forward(self, maps: list[Tensor], size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The proposals of every picture, by falling logit.

        Args:
            maps: finest first, T[B, C, H, W].
            size: T[B, 2], height and width of the pictures before padding.

        Returns:
            Boxes f32[B, P, 4] and logits f32[B, P], zeros where there is no proposal, and bool
            [B, P], where there is one; P is ``post_nms_topk``.
        """
        config = self.proposals
        levels = [self._best(level, x) for level, x in enumerate(maps)]
        logits, deltas, places = (torch.stack(parts, 1) for parts in zip(*levels, strict=True))
        boxes = decoded(deltas, places, _WEIGHTS)
        boxes = zeros_unless(finite_rows(boxes)[..., None], clipped(boxes, size))
        real = has_area(boxes) & (logits > _REAL_LOGIT)
        # Each level by itself, as one more picture; the rows of a level are sorted already.
        rows = boxes.flatten(0, 1)
        keep = torch.ops.vim_deploy.sorted_nms(
            rows,
            torch.zeros_like(rows[..., 0], dtype=torch.int64),
            real.flatten(0, 1).to(rows.dtype),
            config.nms_threshold,
            1,
        )
        keep = keep.view(-1, len(levels), boxes.shape[2]) > 0.5
        logits = where(keep, logits, NO_LOGIT).flatten(1)
        logits, index = logits.topk(min(config.post_nms_topk, logits.shape[1]), dim=1)
        valid = logits > _REAL_LOGIT
        chosen = zeros_unless(valid[..., None], picked_rows(boxes.flatten(1, 2), index))
        return chosen, zeros_unless(valid, logits), valid

    def _best(self, level: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of one level's best anchors the logits f32[B, k], deltas and anchors f32[B, k, 4]."""
        logits, deltas = (wide(y) for y in self.rpn_head(x))
        # Rows in the order of the anchors: height, width, anchor.
        logits = logits.permute(0, 2, 3, 1).flatten(1)
        deltas = (
            deltas.reshape(-1, deltas.shape[1] // 4, 4, *deltas.shape[2:])
            .permute(0, 3, 4, 1, 2)
            .flatten(1, 3)
        )
        # Nobody agrees on where NaN is sorted to.
        logits = where(finite(logits), logits, NO_LOGIT)
        logits, index = logits.topk(min(self.rows, logits.shape[1]), dim=1)
        of_level: Tensor = getattr(self, f"anchors_{level}")
        # All levels have the same number of rows: what is missing has no area.
        return (
            padded_rows(logits, self.rows, NO_LOGIT),
            padded_rows(picked_rows(deltas, index), self.rows),
            padded_rows(F.embedding(index, of_level), self.rows),
        )
