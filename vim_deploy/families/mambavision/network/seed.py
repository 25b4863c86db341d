"""What the seeded weights of a MambaVision need beyond those of usual layers."""

from __future__ import annotations

import torch

from vim_deploy.families.mambavision.network.mixers import Mixer, SameConv1d
from vim_deploy.model.network import Network
from vim_deploy.model.seeding import seed_normal, seed_step_bias


def seed(network: Network, generator: torch.Generator) -> None:
    """Convolutions of mixers like other layers, and step sizes as Mamba begins with.

    The scan adds its bias twice (``mixers.Scan``): each time half of it.
    """
    for module in network.modules():
        if isinstance(module, SameConv1d):
            seed_normal(module.weight, module.weight.shape[-1] ** -0.5, generator)
        if isinstance(module, Mixer):
            seed_step_bias(module.dt_proj.bias, generator)
            module.dt_proj.bias.mul_(0.5)
