"""What a measurement will need in memory, before it is begun: rough, for not running out of it.

The sizes follow from the shapes of the largest tensors; how many of them live at once was read off
measured peaks (Vim-Ti and DeiT-Ti, batch 1, 224 to 768 px, ONNX Runtime 1.32 and PyTorch 2.13 on
Linux x86-64) and rounded up. A test holds the estimates to those peaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from vim_deploy.bench.subject import ONNX_RUNTIME, PYTORCH_DEIT
from vim_deploy.heads.base import Head
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.model_config import ModelConfig

_FLOAT = 4
_MB = 1_000_000
#: A process with its runtime, before the model.
_ONNX_RUNTIME_BYTES = 70 * _MB
_PYTORCH_BYTES = 250 * _MB
_TRANSFORMERS_BYTES = 150 * _MB
#: What PyTorch adds with its first calls, whatever their size.
_PYTORCH_FIRST_CALL = 90 * _MB
#: Copies of the weights that live at once, while loading or running.
_WEIGHT_COPIES = 2.5
#: Values for each token and channel of the mixer (Vim) or the stream (DeiT) that live at once.
_VIM_VALUES = 38
_DEIT_VALUES = 50
#: Maps of the finest level that live at once, in channels of the pyramid and of the decode head.
_PYRAMID_VALUES = 5
_DECODER_VALUES = 20
#: Matrices of scores that live at once; PyTorch's fused attention has none.
_SCORES = {
    (ONNX_RUNTIME, "eager"): 5,
    (ONNX_RUNTIME, "sdpa"): 7,
    (PYTORCH_DEIT, "eager"): 4,
    (PYTORCH_DEIT, "sdpa"): 0,
}


@dataclass(frozen=True)
class DenseSize:
    """What stands behind the blocks: weights, and values that live at once for one picture."""

    weights: int
    values: int


def dense_size(config: ModelConfig, dense: DenseConfig, head: Head) -> DenseSize:
    """Of the neck and the heads that ``head`` runs, from the shapes of their largest tensors."""
    width, maps = config.embed_dim, _map_pixels(config, dense)
    if dense.pyramid is not None:
        out = dense.pyramid.out_channels
        # Two transposed convolutions of level 2, one of level 3; 1x1 and 3x3 of each level.
        weights = 4 * width * width + 4 * out * width + 4 * 9 * out * out
        return DenseSize(weights, _PYRAMID_VALUES * out * maps[0] + out * sum(maps))
    weights = 3 * 4 * width * width if dense.if_fpn else 0
    values = 2 * width * sum(maps)
    decode = dense.decode_head
    if decode is None or head.kind == "features":
        return DenseSize(weights, values)
    wide, pools = decode.channels, len(decode.pool_scales)
    weights += (3 + pools) * width * wide + 9 * wide * (width + pools * wide)
    weights += 3 * 9 * wide * wide + 9 * 4 * wide * wide + wide * decode.num_classes
    # The levels side by side, themselves, and their sum behind the last convolution.
    values += _DECODER_VALUES * wide * maps[0] + decode.num_classes * maps[0]
    if head.full_size:
        height, width = config.image_hw
        values += 2 * decode.num_classes * height * width
    return DenseSize(weights, values)


def _map_pixels(config: ModelConfig, dense: DenseConfig) -> tuple[int, ...]:
    """Pixels of each feature map, the finest first."""
    rows, columns = config.grid_hw
    if dense.pyramid is None and not dense.if_fpn:
        return (rows * columns,) * len(dense.feature_names)
    # fpn1 makes strides of 4 pixels, whatever the patches; the pyramid four times the patches.
    scale = 4 if dense.pyramid is not None else config.patch_hw[0] // 4
    finest = rows * columns * scale**2
    return tuple(finest // 4**level for level in range(len(dense.feature_names)))


def vim_bytes(config: ModelConfig, batch: int, runner: str, behind: DenseSize | None = None) -> int:
    """Peak resident bytes of a process that runs a Vim model: linear in tokens and batch.

    Args:
        config: of the Vim.
        batch: pictures at once.
        runner: ``ONNX_RUNTIME`` or ``PYTORCH``.
        behind: of a dense model, which keeps its blocks' maps while it computes them.
    """
    rank, state = int(config.ssm["dt_rank"]), config.d_state
    width, inner = config.embed_dim, config.d_inner
    directions = config.scans_per_layer
    # in_proj and out_proj; for each direction x_proj, dt_proj, A.
    layer = 3 * width * inner + directions * inner * (2 * rank + 3 * state)
    weights = _FLOAT * (config.depth * layer + width * config.num_classes)
    live = _FLOAT * batch * config.num_tokens * inner * _VIM_VALUES
    if behind is not None:
        weights += _FLOAT * behind.weights
        # The blocks are done when the neck begins.
        live = max(live, _FLOAT * batch * behind.values)
    return int(_process_bytes(runner) + _WEIGHT_COPIES * weights) + live


def deit_bytes(tokens: int, width: int, heads: int, batch: int, runner: str, attention: str) -> int:
    """Peak resident bytes of a process that runs a DeiT: quadratic in tokens by the scores.

    Args:
        runner: ``ONNX_RUNTIME`` or ``PYTORCH_DEIT``.
        attention: ``eager`` or ``sdpa``.
    """
    # Twelve layers of four projections and a four times wider MLP.
    weights = _FLOAT * 12 * 12 * width * width
    scores = _FLOAT * batch * heads * tokens * tokens * _SCORES[runner, attention]
    live = _FLOAT * batch * tokens * width * _DEIT_VALUES
    return int(_process_bytes(runner) + _WEIGHT_COPIES * weights) + scores + live


def _process_bytes(runner: str) -> int:
    if runner == ONNX_RUNTIME:
        return _ONNX_RUNTIME_BYTES
    extra = _TRANSFORMERS_BYTES if runner == PYTORCH_DEIT else _PYTORCH_FIRST_CALL
    return _PYTORCH_BYTES + extra
