"""Fitting a position embedding to another grid of patches.

Two ways. ``interpolate_grid`` knows where the class tokens sit in the sequence. The official
function (``interpolate_pos_embed`` in hustvl/Vim, vim/utils.py) takes the first rows for them
wherever they are, which for the published models, whose class token is in the middle, is not so;
``interpolate_official`` repeats it bit for bit. docs/resolutions.md shows what that changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]


def interpolate_official(pos_embed: Tensor, num_patches_new: int, num_extra: int) -> Tensor:
    """What the official code makes of ``pos_embed``.

    Args:
        pos_embed: float32 [1, patches + num_extra, dim], patches of a square grid.
        num_patches_new: patches of the new grid, a square number.
        num_extra: class tokens; as many rows at the front are kept, whatever they are.

    Returns:
        float32 [1, num_patches_new + num_extra, dim]; ``pos_embed`` itself for the same grid.
    """
    old = int((pos_embed.shape[1] - num_extra) ** 0.5)
    new = int(num_patches_new**0.5)
    if old == new:
        return pos_embed
    patches = _resize(pos_embed[:, num_extra:], (old, old), (new, new))
    return torch.cat((pos_embed[:, :num_extra], patches), dim=1)


def interpolate_grid(
    pos_embed: Tensor,
    old_grid: Grid,
    new_grid: Grid,
    cls_positions_old: Sequence[int],
    cls_positions_new: Sequence[int],
) -> Tensor:
    """Patch rows interpolated as a grid, class-token rows carried over unchanged.

    Args:
        pos_embed: float32 [1, rows * columns + class tokens, dim].
        old_grid, new_grid: (rows, columns) of patches.
        cls_positions_old, cls_positions_new: ascending sequence indices of the class tokens.

    Returns:
        float32 [1, new rows * new columns + class tokens, dim].

    Raises:
        ValueError: when the arguments contradict each other.
    """
    length = pos_embed.shape[1]
    if length != old_grid[0] * old_grid[1] + len(cls_positions_old):
        raise ValueError(f"{length} rows are not a {old_grid} grid and {cls_positions_old}")
    if len(cls_positions_old) != len(cls_positions_new):
        raise ValueError(f"class tokens {cls_positions_old} cannot become {cls_positions_new}")
    is_patch = torch.ones(length, dtype=torch.bool)
    is_patch[list(cls_positions_old)] = False
    patches = _resize(pos_embed[:, is_patch], old_grid, new_grid)
    result = pos_embed.new_empty(1, patches.shape[1] + len(cls_positions_new), pos_embed.shape[2])
    is_patch = torch.ones(result.shape[1], dtype=torch.bool)
    is_patch[list(cls_positions_new)] = False
    result[:, is_patch] = patches
    result[:, list(cls_positions_new)] = pos_embed[:, list(cls_positions_old)]
    return result


def _resize(patches: Tensor, old: Grid, new: Grid) -> Tensor:
    """Bicubic (a = -0.75) without antialiasing, corners not aligned: the official settings."""
    if old == new:
        return patches
    image = patches.reshape(-1, *old, patches.shape[-1]).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=new, mode="bicubic", align_corners=False)
    return image.permute(0, 2, 3, 1).flatten(1, 2)
