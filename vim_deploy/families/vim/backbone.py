"""Which dense models can stand on which Vim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vim_deploy.errors import VimDeployError
from vim_deploy.families.base import refuse_dense

if TYPE_CHECKING:
    from vim_deploy.families.vim.config import VimConfig
    from vim_deploy.recipe.dense_config import DenseConfig

_FPN_PATCHES = ((16, 16), (8, 8))


def require_backbone(dense: DenseConfig, config: VimConfig) -> None:
    """VIM-408 unless these parts can stand on that backbone, VIM-406 for too small an image."""
    outside = [index for index in dense.out_indices if not 0 <= index < config.depth]
    if outside:
        raise refuse_dense(
            f"out_indices names block {outside[0]}, the backbone has {config.depth}",
            f"name blocks 0 to {config.depth - 1}",
        )
    if config.cls_positions:
        raise refuse_dense(
            "a dense model has no class token",
            "set if_cls_token to false",
            "the official code drops it, too",
        )
    if dense.task == "segmentation" and config.if_bidirectional:
        raise refuse_dense(
            "if_bidirectional in a segmentation backbone",
            "set if_bidirectional to false",
            "the official code collects no feature maps in that mode",
        )
    if dense.if_fpn and dense.task == "segmentation" and config.patch_hw not in _FPN_PATCHES:
        raise refuse_dense(
            f"if_fpn with patches of {config.patch_hw[0]}x{config.patch_hw[1]} pixels",
            "set if_fpn to false",
            "the official code scales maps of 16 and of 8 pixels",
        )
    if dense.detector is not None:
        _require_detector_backbone(config)
    _require_coarsest_map(dense, config)


def _require_coarsest_map(dense: DenseConfig, config: VimConfig) -> None:
    """VIM-406 when the map of the largest scale would have no pixels."""
    if dense.task == "segmentation" and not dense.if_fpn:
        return
    needed = 4 if dense.task == "segmentation" and config.patch_hw == (8, 8) else 2
    if min(config.grid_hw) >= needed:
        return
    sides = [side + (needed - 1) * config.stride for side in config.patch_hw]
    height, width = config.image_hw
    raise VimDeployError(
        "VIM-406",
        f"image of {height}x{width} pixels is too small",
        why=f"its {config.grid_hw[0]}x{config.grid_hw[1]} patches leave nothing of the "
        "coarsest feature map",
        fix=f"an image size of at least {sides[0]}x{sides[1]}",
    )


def _require_detector_backbone(config: VimConfig) -> None:
    """VIM-408 unless levels and pictures are those of the official detectors."""
    if config.patch_hw != (16, 16) or config.stride != 16:
        raise refuse_dense(
            f"a detector on patches of {config.patch_hw[0]}x{config.patch_hw[1]} pixels every "
            f"{config.stride}",
            "patches of 16 pixels",
            "boxes of each size are pooled from the levels at 4, 8, 16 and 32 pixels",
        )
    height, width = config.image_hw
    if height != width:
        raise refuse_dense(
            f"a detector of {height}x{width} pixels",
            f"--image-size {max(height, width)}",
            "pictures are fitted into a square (square_pad of the official configurations)",
        )
