"""``tokens``: every token behind the last norm, float [B, L, D]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vim_deploy.errors import VimDeployError
from vim_deploy.heads.base import Head, Kind, Network, Output, Tensor

if TYPE_CHECKING:
    from vim_deploy.families.base import ModelConfig
    from vim_deploy.recipe.dense_config import DenseConfig


@dataclass(frozen=True)
class Tokens(Head):
    """All of the last norm's outputs, class tokens among them."""

    name: ClassVar[str] = "tokens"
    usage: ClassVar[str] = "tokens"
    kind: ClassVar[Kind] = "features"
    gives: ClassVar[tuple[Output, ...]] = (
        Output("tokens", "values", ("batch", "tokens", "channels")),
    )

    def fitted(self, config: ModelConfig, dense: DenseConfig | None) -> Tokens:
        """VIM-203 for a model of another family, which has maps instead of a sequence."""
        super().fitted(config, dense)
        if not config.has_tokens:
            raise VimDeployError(
                "VIM-203",
                f"--head {self.text} needs one sequence of tokens, and this model has none",
                fix="--head logits or --head features",
            )
        return self

    def forward(self, network: Network, image: Tensor, size: Tensor | None = None) -> Tensor:
        """In the order of the sequence."""
        return network.last_tokens(image)
