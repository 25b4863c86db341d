"""Vim in PyTorch: what ``vim_deploy.model.network.FamilyNetworks`` asks of a family."""

from __future__ import annotations

from vim_deploy.families.vim.network.build import build_network as build
from vim_deploy.families.vim.network.describe import describe, holds
from vim_deploy.families.vim.network.inner import watch_inner
from vim_deploy.families.vim.network.load import load, refill, seeded
from vim_deploy.families.vim.network.seed import seed
from vim_deploy.families.vim.network.typed import type_network

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
