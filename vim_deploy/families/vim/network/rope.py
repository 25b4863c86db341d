"""Rotary position embedding on the token grid, as the official ``VisionRotaryEmbeddingFast``.

Channels are rotated in interleaved pairs (x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin). The first
half of the channels turns with the row of a patch, the second half with its column.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Base of the frequencies, arXiv 2104.09864 section 3.2.2.
_THETA = 10000.0


def rope_tables(dim: int, grid: int, pretrained_grid: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each float32 [grid * grid, dim].

    Args:
        dim: model width; divisible by 4.
        grid: patches per side.
        pretrained_grid: patches per side at pre-training; positions are scaled to its range.
    """
    half = dim // 2
    # Same expressions in the same order as the official code, so that stored tables agree bitwise.
    frequencies = 1.0 / (_THETA ** (torch.arange(0, half, 2)[: half // 2].float() / half))
    positions = torch.arange(grid) / grid * pretrained_grid
    angles = (positions[:, None] * frequencies[None, :]).repeat_interleave(2, dim=-1)
    rows = angles[:, None, :].expand(grid, grid, half)
    columns = angles[None, :, :].expand(grid, grid, half)
    table = torch.cat((rows, columns), dim=-1).reshape(grid * grid, dim)
    return table.cos(), table.sin()


class RotaryEmbedding(nn.Module):
    """Rotates tokens [B, L, dim]; an odd L leaves row 0 alone, whatever row 0 is.

    The tables are persistent buffers because official checkpoints hold them.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, dim: int, grid: int, pretrained_grid: int) -> None:
        super().__init__()
        cosines, sines = rope_tables(dim, grid, pretrained_grid)
        self.register_buffer("freqs_cos", cosines)
        self.register_buffer("freqs_sin", sines)

    def forward(self, tokens: Tensor) -> Tensor:
        skipped = tokens.shape[1] % 2
        spatial = tokens[:, skipped:]
        # Pairs as a trailing axis: [B, L, dim/2, 2] -> (-x1, x0).
        first, second = spatial.reshape(*spatial.shape[:-1], -1, 2).unbind(-1)
        turned = torch.stack((-second, first), dim=-1).flatten(-2)
        rotated = spatial * self.freqs_cos + turned * self.freqs_sin
        return torch.cat((tokens[:, :1], rotated), dim=1) if skipped else rotated
