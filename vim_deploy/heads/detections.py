"""``detections`` of a detector: boxes, scores, classes, masks and how many there are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from vim_deploy.errors import VimDeployError
from vim_deploy.heads.base import DenseHead, Kind, Network, Output, Tensor

if TYPE_CHECKING:
    from vim_deploy.families.base import ModelConfig
    from vim_deploy.recipe.dense_config import DenseConfig


@dataclass(frozen=True)
class Detections(DenseHead):
    """Up to a fixed number of detections, the best first; the rows behind them are zeros.

    Boxes are left, top, right and bottom in pixels of the input, within the picture; a mask covers
    its box. Boxes are float32 always: from 512 pixels on float16 has steps of half a pixel.
    """

    masks: bool = True

    name: ClassVar[str] = "detections"
    usage: ClassVar[str] = "detections"
    kind: ClassVar[Kind] = "detections"
    gives: ClassVar[tuple[Output, ...]] = (
        Output("boxes", "values", ("batch", "detections", "sides"), wide=True),
        Output("scores", "scores", ("batch", "detections")),
        Output("classes", "classes", ("batch", "detections"), dtype="int64"),
        Output("masks", "values", ("batch", "detections", "rows", "columns")),
        Output("count", "counts", ("batch",), dtype="int64"),
    )
    needs_decoder: ClassVar[bool] = False
    takes_size: ClassVar[bool] = True

    def fitted(self, config: ModelConfig, dense: DenseConfig | None) -> Detections:
        """Without masks where the model has none; VIM-203 for a backbone alone."""
        assert dense is not None
        if dense.detector is None:
            raise VimDeployError(
                "VIM-203",
                f"--head {self.text} needs a detector's heads, and this model has none",
                fix="--head features",
            )
        return replace(super().fitted(config, dense), masks=dense.detector.mask_head is not None)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph outputs."""
        return tuple(item.name for item in self.gives if self.masks or item.name != "masks")

    def forward(
        self, network: Network, image: Tensor, size: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Of a normalised ``image``, zeros around pictures of ``size`` float [B, 2]."""
        boxes, scores, classes, masks, count = network.detections(image, size)
        found = (boxes, scores, classes, masks, count)
        return found if self.masks else (boxes, scores, classes, count)
