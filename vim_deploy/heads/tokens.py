"""``tokens``: every token behind the last norm, float [B, L, D]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vim_deploy.heads.base import Head, Kind, Network, Output, Tensor


@dataclass(frozen=True)
class Tokens(Head):
    """All of the last norm's outputs, class tokens among them."""

    name: ClassVar[str] = "tokens"
    usage: ClassVar[str] = "tokens"
    kind: ClassVar[Kind] = "features"
    gives: ClassVar[tuple[Output, ...]] = (
        Output("tokens", "values", ("batch", "tokens", "channels")),
    )

    def forward(self, network: Network, image: Tensor, size: Tensor | None = None) -> Tensor:
        """In the order of the sequence."""
        return network.last_tokens(image)
