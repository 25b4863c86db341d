"""``upsampled``: logits of a segmentation network at the input's size, float [B, classes, H, W]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vim_deploy.heads.base import Network, Output, Tensor
from vim_deploy.heads.pixel_logits import AUXILIARY_LOGITS, PIXELS, PixelLogits


@dataclass(frozen=True)
class Upsampled(PixelLogits):
    """The scores of every pixel of the input."""

    name: ClassVar[str] = "upsampled"
    usage: ClassVar[str] = "upsampled"
    gives: ClassVar[tuple[Output, ...]] = (
        Output("logits", "logits", PIXELS, stored_as=("whole_output", "output")),
        AUXILIARY_LOGITS,
    )
    full_size: ClassVar[bool] = True

    def of_logits(self, network: Network, logits: Tensor) -> Tensor:
        """Resized as mmsegmentation does."""
        return network.upsampled(logits)
