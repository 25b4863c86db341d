"""What the seeded weights of a VMamba need beyond those of usual layers."""

from __future__ import annotations

import torch

from vim_deploy.families.vmamba.network.ss2d import SS2D
from vim_deploy.model.network import Network
from vim_deploy.model.seeding import seed_normal, seed_step_bias


def seed(network: Network, generator: torch.Generator) -> None:
    """Projections of the directions like other layers, and step sizes as Mamba begins with."""
    for module in network.modules():
        if isinstance(module, SS2D):
            for weight in (module.x_proj_weight, module.dt_projs_weight):
                seed_normal(weight, weight.shape[-1] ** -0.5, generator)
            seed_step_bias(module.dt_projs_bias, generator)
