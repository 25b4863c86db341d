"""``logits`` of a segmentation network: float [B, classes, H/4, W/4]; ``+aux`` adds another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vim_deploy.heads.base import DenseHead, Kind, Network, Output, Tensor

PIXELS = ("batch", "classes", "rows", "columns")
AUXILIARY_LOGITS = Output("aux_logits", "logits", PIXELS, stored_as=("aux_output",))


@dataclass(frozen=True)
class PixelLogits(DenseHead):
    """The decode head's scores at the size of the finest map; what windows are averaged of."""

    name: ClassVar[str] = "logits"
    usage: ClassVar[str] = "logits"
    kind: ClassVar[Kind] = "pixel scores"
    gives: ClassVar[tuple[Output, ...]] = (
        Output("logits", "logits", PIXELS, stored_as=("output",)),
        AUXILIARY_LOGITS,
    )
    takes_auxiliary: ClassVar[bool] = True

    def forward(
        self, network: Network, image: Tensor, size: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Of the decode head and, when asked for, of the auxiliary one, which is never resized."""
        maps = network.backbone(image)
        logits = self.of_logits(network, network.decode_head(maps))
        return (logits, network.auxiliary_head(maps)) if self.auxiliary else logits

    def of_logits(self, network: Network, logits: Tensor) -> Tensor:
        """What is given of the decode head's logits T[B, classes, H/4, W/4]."""
        return logits
