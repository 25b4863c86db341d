"""What a detector computes for each box: stages of classes and boxes, and masks, by fixed shapes.

Mask R-CNN (arXiv 1703.06870) is one stage with a box for each class, Cascade R-CNN (arXiv
1712.00726) three stages with one box for all; both by detectron2's keys.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vim_deploy.families.vim.network.dense.boxes import (
    clipped,
    decoded,
    finite_rows,
    padded_rows,
    picked_rows,
    where,
    wide,
    zeros_unless,
)
from vim_deploy.families.vim.network.dense.layers import ConvNorm, UpsampleByTwo
from vim_deploy.model.region_ops import has_area
from vim_deploy.recipe.detector_config import BoxHeadConfig, DetectorConfig, MaskHeadConfig

#: Bins along each side of what the box heads and the mask head read (detectron2's ROIPooler).
BOX_BINS, MASK_BINS = 7, 14
#: Pixels of p2 in one pixel of the image.
_P2_SCALE = 0.25
#: Pairs of box and class that the last suppression looks at, the best first. Suppression only looks
#: back: whatever is behind them could not change which of them stay. What is lost are detections
#: of a picture with more pairs above the threshold of which fewer stay than are asked for.
#: TensorRT-RTX sorts out 3840 at most, TensorRT's INMSLayer looks at 5000.
_MOST_CANDIDATES = 3000


class BoxHead(nn.Module):
    """detectron2's FastRCNNConvFCHead: T[R, C, 7, 7] to T[R, F]."""

    def __init__(self, channels: int, config: BoxHeadConfig) -> None:
        super().__init__()
        self.convs = [ConvNorm(channels, channels, 3, config.norm) for _ in range(config.convs)]
        for number, conv in enumerate(self.convs, 1):
            self.add_module(f"conv{number}", conv)
        width, self.fcs = channels * BOX_BINS**2, []
        for number, wanted in enumerate(config.fc_dims, 1):
            self.fcs.append(nn.Linear(width, wanted))
            self.add_module(f"fc{number}", self.fcs[-1])
            width = wanted
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x))
        x = x.flatten(1)
        for layer in self.fcs:
            x = F.relu(layer(x))
        return x


class BoxPredictor(nn.Module):
    """detectron2's FastRCNNOutputLayers: T[R, F] to logits [R, K + 1] and deltas [R, 4 boxes].

    The last class is the background.
    """

    def __init__(self, width: int, classes: int, boxes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(width, classes + 1)
        self.bbox_pred = nn.Linear(width, 4 * boxes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


class MaskHead(nn.Module):
    """detectron2's MaskRCNNConvUpsampleHead: T[R, C, 14, 14] to logits T[R, K, 28, 28]."""

    def __init__(self, channels: int, classes: int, config: MaskHeadConfig) -> None:
        super().__init__()
        self.convs = [ConvNorm(channels, channels, 3, config.norm) for _ in range(config.convs)]
        for number, conv in enumerate(self.convs, 1):
            self.add_module(f"mask_fcn{number}", conv)
        self.deconv = UpsampleByTwo(channels, channels)
        self.predictor = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x))
        logits: Tensor = self.predictor(F.relu(self.deconv(x)))
        return logits


class RoiHeads(nn.Module):
    """Proposals to detections: ``stages``, then ``best`` of them, then their ``masks``."""

    def __init__(self, channels: int, config: DetectorConfig) -> None:
        super().__init__()
        self.detector = config
        boxes = 1 if config.class_agnostic else config.num_classes
        heads = [BoxHead(channels, config.box_head) for _ in config.stages]
        predictors = [BoxPredictor(head.width, config.num_classes, boxes) for head in heads]
        one = len(config.stages) == 1
        self.box_head = heads[0] if one else nn.ModuleList(heads)
        self.box_predictor = predictors[0] if one else nn.ModuleList(predictors)
        self.stage_parts = list(zip(heads, predictors, config.stages, strict=True))
        if config.mask_head is not None:
            self.mask_head = MaskHead(channels, config.num_classes, config.mask_head)

    def outputs(self, maps: list[Tensor], boxes: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        """Logits f32[B, N, K + 1] and deltas f32[B, N, 4 or 4K] of one stage for f32[B, N, 4]."""
        head, predictor, _ = self.stage_parts[stage]
        logits, deltas = predictor(head(self._pooled(maps, boxes, BOX_BINS)))
        return (
            wide(logits).reshape(-1, boxes.shape[1], logits.shape[1]),
            wide(deltas).reshape(-1, boxes.shape[1], deltas.shape[1]),
        )

    def stages(
        self, maps: list[Tensor], boxes: Tensor, valid: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Every proposal through all stages.

        Args:
            maps: p2 to p5, T[B, C, H, W].
            boxes: proposals, f32[B, N, 4].
            valid: which of them are any, bool[B, N].
            size: f32[B, 2], height and width of the pictures before padding.

        Returns:
            Boxes f32[B, N, 4] for all classes or f32[B, N, K, 4], clipped, and the scores
            f32[B, N, K], the mean of the stages' probabilities; zeros for what is none.
        """
        scores: list[Tensor] = []
        for stage, (_, _, weights) in enumerate(self.stage_parts):
            if stage:
                boxes = clipped(boxes, size)
            logits, deltas = self.outputs(maps, boxes, stage)
            probabilities = torch.softmax(logits, -1)
            scores.append(probabilities)
            if self.detector.class_agnostic:
                boxes = decoded(deltas, boxes, weights)
                real = finite_rows(boxes)
            else:
                boxes = decoded(
                    deltas.reshape(-1, boxes.shape[1], self.detector.num_classes, 4),
                    boxes[:, :, None],
                    weights,
                )
                real = finite_rows(boxes.flatten(2))
            valid = valid & real & finite_rows(probabilities)
            boxes = zeros_unless(valid.view(*valid.shape, *[1] * (boxes.ndim - 2)), boxes)
        total = scores[0]
        for more in scores[1:]:
            total = total + more
        mean = total * (1.0 / len(scores))
        return clipped(boxes, size), zeros_unless(valid[..., None], mean[..., :-1])

    def best(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The best detections of what ``stages`` gives.

        Returns:
            Boxes f32[B, D, 4], scores f32[B, D] (falling), classes int64 [B, D] and bool [B, D],
            which rows are any; the others are zeros.
        """
        config = self.detector
        classes = scores.shape[2]
        count = min(scores.shape[1] * classes, max(_MOST_CANDIDATES, config.detections))
        values, index = scores.flatten(1).topk(count, dim=1)
        row = torch.div(index, classes, rounding_mode="trunc")
        label = index - row * classes
        if config.class_agnostic:
            boxes = picked_rows(boxes, row)
        else:
            boxes = picked_rows(boxes.flatten(1, 2), index)
        above = (values > config.score_threshold).to(values.dtype)
        keep = torch.ops.vim_deploy.sorted_nms(boxes, label, above, config.nms_threshold, classes)
        # A box that was clipped to nothing overlaps none: detectron2 chooses it as any other, and
        # drops it afterwards (detector_postprocess).
        keep = torch.where(has_area(boxes), keep, above)
        # Scores are above zero: what went is below every threshold.
        values = where(keep > 0.5, values, -1.0)
        values, index = values.topk(min(config.detections, count), dim=1)
        valid = values > config.score_threshold
        found = (
            zeros_unless(valid[..., None], picked_rows(boxes, index)),
            zeros_unless(valid, values),
            zeros_unless(valid, torch.gather(label, 1, index)),
        )
        rows = config.detections
        padded = [padded_rows(x, rows, 0) for x in found]
        return padded[0], padded[1], padded[2], padded[1] > config.score_threshold

    def masks(self, maps: list[Tensor], boxes: Tensor, classes: Tensor, valid: Tensor) -> Tensor:
        """Masks f32[B, D, 28, 28] of the detections: the plane of its class, after the sigmoid."""
        logits = wide(self.mask_head(self._pooled(maps, boxes, MASK_BINS)))
        plane = classes.view(-1, 1, 1, 1).expand(-1, 1, *logits.shape[2:])
        chosen = torch.gather(logits, 1, plane).view(-1, classes.shape[1], *logits.shape[2:])
        return zeros_unless(valid[..., None, None], torch.sigmoid(chosen))

    def _pooled(self, maps: list[Tensor], boxes: Tensor, bins: int) -> Tensor:
        pooled: Tensor = torch.ops.vim_deploy.pyramid_roi_align(
            *maps, boxes, bins, float(self.detector.canonical_box_size), _P2_SCALE
        )
        return pooled

    def layers(self) -> Iterator[nn.Module]:
        """Every convolution and linear layer, in the order in which they run."""
        for head, predictor, _ in self.stage_parts:
            yield from (*head.convs, *head.fcs, predictor.cls_score, predictor.bbox_pred)
        if self.detector.mask_head is not None:
            yield from (*self.mask_head.convs, self.mask_head.deconv, self.mask_head.predictor)
