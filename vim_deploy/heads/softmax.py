"""``softmax``: probabilities of the classes, float [B, classes]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vim_deploy.heads.base import Head, Kind, Network, Output, Tensor


@dataclass(frozen=True)
class Softmax(Head):
    """The softmax of the logits, in the graph."""

    name: ClassVar[str] = "softmax"
    usage: ClassVar[str] = "softmax"
    kind: ClassVar[Kind] = "classes"
    gives: ClassVar[tuple[Output, ...]] = (Output("probabilities", "scores"),)
    needs_scores: ClassVar[bool] = True

    def forward(self, network: Network, image: Tensor, size: Tensor | None = None) -> Tensor:
        """Over the last axis, which holds the classes."""
        return network(image).softmax(dim=-1)
