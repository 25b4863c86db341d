"""VMamba in PyTorch: what ``vim_deploy.model.network.FamilyNetworks`` asks of a family."""

from __future__ import annotations

from vim_deploy.families.vmamba.network.inner import watch_inner
from vim_deploy.families.vmamba.network.load import build, describe, holds, load, refill, seeded
from vim_deploy.families.vmamba.network.seed import seed
from vim_deploy.families.vmamba.network.typed import type_network

__all__ = [
    "build",
    "describe",
    "holds",
    "load",
    "refill",
    "seed",
    "seeded",
    "type_network",
    "watch_inner",
]
