"""What the seeded weights of a Vim need beyond those of usual layers."""

from __future__ import annotations

import torch
from torch import nn

from vim_deploy.families.vim.network.build import VimNetwork
from vim_deploy.families.vim.network.dense.roi_heads import BoxPredictor
from vim_deploy.families.vim.network.mixer import Mixer
from vim_deploy.model.seeding import seed_normal, seed_step_bias

#: Of the logits of a seeded detector, to what they would be otherwise.
_CLASS_SPREAD = 4.0


def seed(network: VimNetwork, generator: torch.Generator) -> None:
    """Step sizes as Mamba begins with, small embeddings, and logits of boxes that stand out."""
    for module in network.modules():
        if isinstance(module, BoxPredictor):
            # Some classes have to stand out: else every score is below the threshold.
            module.cls_score.weight *= _CLASS_SPREAD
        if isinstance(module, Mixer):
            for name, child in module.named_children():
                if name.startswith("dt_proj") and isinstance(child, nn.Linear):
                    seed_step_bias(child.bias, generator)
    for name, parameter in network.named_parameters():
        last = name.rpartition(".")[2]
        if last == "pos_embed" or last.startswith("cls_token"):
            seed_normal(parameter, 0.02, generator)
