"""Weights that mean nothing, for timing and smoke runs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vim_deploy.families import family_of
from vim_deploy.model.network import Network, networks_of


def seed_weights(model: Network, seed: int) -> None:
    """Fill ``model`` with repeatable weights of realistic scale, for timing and smoke runs.

    Not trained: outputs mean nothing. Layers give what they are given in about the same size;
    scans neither forget at once nor never (``seed_step_bias``), and A starts at -(1..N).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.ConvTranspose2d):
                # Kernel and stride are equal: every output reads each input channel once.
                seed_normal(module.weight, module.in_channels**-0.5, generator)
                module.bias.zero_()  # type: ignore[union-attr]
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv1d):
                seed_normal(module.weight, module.weight[0].numel() ** -0.5, generator)
                if module.bias is not None:
                    module.bias.zero_()
        networks_of(family_of(model.config)).seed(model, generator)


def seed_normal(tensor: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill ``tensor`` with normal numbers of mean 0, in place."""
    tensor.copy_(torch.empty_like(tensor).normal_(0.0, std, generator=generator))


def seed_step_bias(bias: Tensor, generator: torch.Generator) -> None:
    """Fill the bias of step sizes, in place: softplus(bias) is log-uniform in [0.001, 0.1].

    Mamba's initialisation, arXiv 2312.00752 appendix E.3.
    """
    low, high = math.log(0.001), math.log(0.1)
    uniform = torch.empty_like(bias).uniform_(0.0, 1.0, generator=generator)
    step = torch.exp(low + uniform * (high - low))
    # Inverse of softplus.
    bias.copy_(step + torch.log(-torch.expm1(-step)))
