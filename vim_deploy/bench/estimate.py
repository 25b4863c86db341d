"""What a measurement will need in memory, before it is begun: rough, for not running out of it.

The sizes follow from the shapes of the largest tensors; how many of them live at once was read off
measured peaks (Vim-Ti and DeiT-Ti, batch 1, 224 to 768 px, ONNX Runtime 1.32 and PyTorch 2.13 on
Linux x86-64) and rounded up. A test holds the estimates to those peaks.
"""

from __future__ import annotations

from vim_deploy.bench.subject import ONNX_RUNTIME, PYTORCH_DEIT
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
#: Matrices of scores that live at once; PyTorch's fused attention has none.
_SCORES = {
    (ONNX_RUNTIME, "eager"): 5,
    (ONNX_RUNTIME, "sdpa"): 7,
    (PYTORCH_DEIT, "eager"): 4,
    (PYTORCH_DEIT, "sdpa"): 0,
}


def vim_bytes(config: ModelConfig, batch: int, runner: str) -> int:
    """Peak resident bytes of a process that runs a Vim model: linear in tokens and batch."""
    rank, state = int(config.ssm["dt_rank"]), config.d_state
    width, inner = config.embed_dim, config.d_inner
    directions = config.scans_per_layer
    # in_proj and out_proj; for each direction x_proj, dt_proj, A.
    layer = 3 * width * inner + directions * inner * (2 * rank + 3 * state)
    weights = _FLOAT * (config.depth * layer + width * config.num_classes)
    live = _FLOAT * batch * config.num_tokens * inner * _VIM_VALUES
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
