"""``topk:K``: the K best classes and their probabilities, float and int64 [B, K]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vim_deploy.errors import VimDeployError
from vim_deploy.heads.base import Head, Kind, Network, Output, Tensor
from vim_deploy.ranges import COUNT, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vim_deploy.families.base import ModelConfig
    from vim_deploy.heads.base import Array
    from vim_deploy.recipe.dense_config import DenseConfig


@dataclass(frozen=True)
class TopK(Head):
    """The best classes, the most probable first; ``count`` is K."""

    count: int = 0

    name: ClassVar[str] = "topk"
    usage: ClassVar[str] = "topk:K"
    kind: ClassVar[Kind] = "classes"
    gives: ClassVar[tuple[Output, ...]] = (
        Output("probabilities", "scores"),
        Output("classes", "classes", dtype="int64"),
    )
    needs_scores: ClassVar[bool] = True

    @classmethod
    def parse(cls, text: str) -> TopK:
        """K behind a colon; VIM-202 for what is no count."""
        try:
            return cls(text, COUNT.parse(text.removeprefix(cls.name).removeprefix(":")))
        except ValueError as error:
            raise VimDeployError(
                "VIM-202", f"--head {shown(text)} is not valid", why=str(error), fix="--head topk:5"
            ) from error

    def fitted(self, config: ModelConfig, dense: DenseConfig | None) -> TopK:
        """VIM-202 for more classes than there are."""
        super().fitted(config, dense)
        if self.count > config.num_classes:
            raise VimDeployError(
                "VIM-202",
                f"--head {self.text}: the model has {config.num_classes} classes",
                fix=f"--head topk:{config.num_classes} or fewer",
            )
        return self

    def forward(
        self, network: Network, image: Tensor, size: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Probabilities and class indices."""
        values, classes = network(image).softmax(dim=-1).topk(self.count, dim=-1)
        return values, classes

    def probabilities(self, outputs: Mapping[str, Array]) -> tuple[Array, NDArray[np.integer[Any]]]:
        """Both outputs as they are."""
        return outputs["probabilities"], outputs["classes"]
