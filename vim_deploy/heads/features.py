"""``features``: what the head of a classifier reads, float [B, D] with a class token or pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vim_deploy.heads.base import Head, Kind, Network, Output, Tensor


@dataclass(frozen=True)
class Features(Head):
    """The pooled features in front of the classes."""

    name: ClassVar[str] = "features"
    usage: ClassVar[str] = "features"
    kind: ClassVar[Kind] = "features"
    gives: ClassVar[tuple[Output, ...]] = (Output("features", "values", ("batch", "channels")),)

    def forward(self, network: Network, image: Tensor, size: Tensor | None = None) -> Tensor:
        """What stands before the last layer."""
        return network(image, True)
