"""How much a Vim holds at once, for estimates of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vim_deploy.families.base import ModelSize

if TYPE_CHECKING:
    from vim_deploy.families.vim.config import VimConfig
    from vim_deploy.recipe.dense_config import DenseConfig

#: Values for each token and channel of the mixer that live at once, read off measured peaks
#: (Vim-Ti, batch 1, 224 to 768 px, ONNX Runtime 1.32 and PyTorch 2.13) and rounded up.
_VALUES = 38
_NATIVE_VALUES = 21


def model_size(config: VimConfig, *, native: bool) -> ModelSize:
    """Weights of the blocks and the classifier, and values of one picture."""
    rank, state = config.dt_rank, config.d_state
    width, inner = config.embed_dim, config.d_inner
    # in_proj and out_proj; for each direction x_proj, dt_proj, A.
    layer = 3 * width * inner + config.scans_per_layer * inner * (2 * rank + 3 * state)
    weights = config.depth * layer + width * config.num_classes
    return ModelSize(weights, config.num_tokens * inner * (_NATIVE_VALUES if native else _VALUES))


def map_pixels(config: VimConfig, dense: DenseConfig) -> tuple[int, ...]:
    """Pixels of each feature map, the finest first."""
    rows, columns = config.grid_hw
    if dense.pyramid is None and not dense.if_fpn:
        return (rows * columns,) * len(dense.feature_names)
    # fpn1 makes strides of 4 pixels, whatever the patches; the pyramid four times the patches.
    scale = 4 if dense.pyramid is not None else config.patch_hw[0] // 4
    finest = rows * columns * scale**2
    return tuple(finest // 4**level for level in range(len(dense.feature_names)))
