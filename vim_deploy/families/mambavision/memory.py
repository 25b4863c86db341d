"""How much a MambaVision holds at once, for estimates of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vim_deploy.families.base import ModelSize
from vim_deploy.families.mambavision.layout import CONV_LEVELS, D_STATE, LEVELS

if TYPE_CHECKING:
    from vim_deploy.families.mambavision.config import MambaVisionConfig

#: Values for each position and channel of a map that live at once, read off measured
#: peaks (MambaVision-T, batches of 33 to 97, 224 px, ONNX Runtime 1.32 with functions and with
#: native ops, and PyTorch 2.13: 5.8 to 6.1) and rounded up.
_VALUES = 7
#: Taps of every convolution.
_TAPS = 9


def model_size(config: MambaVisionConfig) -> ModelSize:
    """Weights of blocks, convolutions and the classifier, and values of one picture."""
    stem = _TAPS * config.in_dim * (config.in_chans + config.dim)
    halvings = sum(2 * _TAPS * config.level_width(level) ** 2 for level in range(LEVELS - 1))
    levels = sum(_level(config, level) for level in range(LEVELS))
    head = config.width * config.num_classes
    values = max(_values(config, level) for level in range(LEVELS))
    return ModelSize(stem + halvings + levels + head, values)


def _values(config: MambaVisionConfig, level: int) -> int:
    """Values of a level that live at once: its map's, and scores of attention around a softmax."""
    maps = _VALUES * config.positions(level) * config.level_width(level)
    return maps + 2 * config.scores(level)


def _level(config: MambaVisionConfig, level: int) -> int:
    """Weights of the blocks of a level."""
    width = config.level_width(level)
    if level < CONV_LEVELS:
        return config.depths[level] * 2 * _TAPS * width**2
    rank = config.rank(level)
    # in_proj and out_proj; x_proj, dt_proj and A on half of the channels.
    mixer = 2 * width**2 + width // 2 * (2 * rank + 3 * D_STATE)
    mlp = 2 * width * config.hidden(level)
    attention = 4 * width**2
    return (
        config.mixers(level) * mixer
        + config.attention(level) * attention
        + config.depths[level] * mlp
    )
