"""Weights that mean nothing, for timing and smoke runs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vim_deploy.model.dense.roi_heads import BoxPredictor
from vim_deploy.model.mixer import DirectionalConv1d, Mixer

#: Of the logits of a seeded detector, to what they would be otherwise.
_CLASS_SPREAD = 4.0


def seed_weights(model: nn.Module, seed: int) -> None:
    """Fill ``model`` with repeatable weights of realistic scale, for timing and smoke runs.

    Not trained: outputs mean nothing. Step sizes follow Mamba's initialisation (softplus(dt_bias)
    log-uniform in [0.001, 0.1], arXiv 2312.00752 appendix E.3) so that the scan neither forgets at
    once nor never; A starts at -(1..N).
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, std: float) -> None:
        tensor.copy_(torch.empty_like(tensor).normal_(0.0, std, generator=generator))

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.ConvTranspose2d):
                # Kernel and stride are equal: every output reads each input channel once.
                normal(module.weight, module.in_channels**-0.5)
                module.bias.zero_()  # type: ignore[union-attr]
            if isinstance(module, nn.Linear | nn.Conv2d | DirectionalConv1d):
                normal(module.weight, module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    module.bias.zero_()
        for module in model.modules():
            if isinstance(module, BoxPredictor):
                # Some classes have to stand out: else every score is below the threshold.
                module.cls_score.weight *= _CLASS_SPREAD
            if isinstance(module, Mixer):
                for name, child in module.named_children():
                    if name.startswith("dt_proj") and isinstance(child, nn.Linear):
                        _seed_step_bias(child.bias, generator)
        for name, parameter in model.named_parameters():
            last = name.rpartition(".")[2]
            if last == "pos_embed" or last.startswith("cls_token"):
                normal(parameter, 0.02)


def _seed_step_bias(bias: Tensor, generator: torch.Generator) -> None:
    low, high = math.log(0.001), math.log(0.1)
    uniform = torch.empty_like(bias).uniform_(0.0, 1.0, generator=generator)
    step = torch.exp(low + uniform * (high - low))
    # Inverse of softplus.
    bias.copy_(step + torch.log(-torch.expm1(-step)))
