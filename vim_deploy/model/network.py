"""What every network of a family is, and what a family does for its networks.

``network`` in a family's folder has the functions of ``FamilyNetworks``; ``networks_of`` finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import nn

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.families import Family
from vim_deploy.families.base import ModelConfig
from vim_deploy.model.watching import Watch
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.schema import ModelRequest, Recipe

if TYPE_CHECKING:
    from vim_deploy.model.checkpoint import Checkpoint

#: ``LoadedNetwork.pos_embed`` where nothing had to be fitted.
AS_STORED = "as stored"
#: The type in which a role computes, and of a block's where a number is given.
TypeOf = Callable[..., torch.dtype]


class Network(nn.Module):
    """A network with the official parameter names: T[B, C, H, W] to what its head gives.

    ``forward(image, return_features=True)`` gives what the classifier reads.
    """

    config: ModelConfig
    #: What stands behind the blocks of a dense model; a classifier has nothing of that.
    dense: DenseConfig | None = None
    #: Path of the family's own model among the network's modules; empty where it is the network.
    core_path: str = ""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with weights.

    Attributes:
        network: the module, in eval mode.
        pos_embed: ``as stored``, or how a position embedding was fitted to the size of pictures.
        notes: sentences on what was inferred, assumed and adapted.
        labels: class names found in the checkpoint.
    """

    network: Network
    pos_embed: str = AS_STORED
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class FamilyNetworks(Protocol):
    """The module ``network`` of a family."""

    def build(self, config: ModelConfig, dense: DenseConfig | None = None) -> Network:
        """The module with its initial weights, in eval mode; VIM-408 where parts do not fit."""

    def load(
        self, request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint
    ) -> LoadedNetwork:
        """The network that the checkpoint holds, every key of it; VIM-201, VIM-404 to VIM-408."""

    def seeded(self, request: ModelRequest, recipe: Recipe | None) -> Network:
        """The network of a recipe, configuration or name with initial weights."""

    def refill(self, info: ExportInfo, checkpoint: Checkpoint) -> Network:
        """The network that an exported file was made of, as it says itself."""

    def holds(self, checkpoint: Checkpoint) -> str:
        """What kind of model a checkpoint holds, by its keys: ``classifier``, ..."""

    def describe(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """``model``, ``architecture``, ``dense`` and ``statements`` of a checkpoint.

        VIM-404, VIM-407, VIM-408 when the architecture cannot be told.
        """

    def watch_inner(self, network: Network, watch: Watch) -> None:
        """Let ``watch`` keep every part that a graph has as well, laid out as there."""

    def type_network(self, network: Network, type_of: TypeOf) -> None:
        """Let a copy round where a graph of 16-bit types rounds, in place."""

    def seed(self, network: Network, generator: torch.Generator) -> None:
        """What its seeded weights need beyond those of usual layers, in place."""


def networks_of(family: Family) -> FamilyNetworks:
    """The module of ``family``."""
    return cast(FamilyNetworks, family.part("network"))
