"""``labels``: the class of every pixel of the input, int64 [B, H, W]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vim_deploy.heads.base import Kind, Network, Output, Tensor
from vim_deploy.heads.upsampled import Upsampled


@dataclass(frozen=True)
class Labels(Upsampled):
    """The class with the largest upsampled logit."""

    name: ClassVar[str] = "labels"
    usage: ClassVar[str] = "labels"
    kind: ClassVar[Kind] = "label map"
    gives: ClassVar[tuple[Output, ...]] = (
        Output("labels", "classes", ("batch", "rows", "columns"), "int64"),
    )
    takes_auxiliary: ClassVar[bool] = False

    def of_logits(self, network: Network, logits: Tensor) -> Tensor:
        """Its index."""
        return super().of_logits(network, logits).argmax(dim=1)
