"""``features`` of a dense model: every feature map, float [B, channels, rows, columns]."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from vim_deploy.heads.base import DenseHead, Kind, Network, Output, Tensor

if TYPE_CHECKING:
    from vim_deploy.families.base import ModelConfig
    from vim_deploy.recipe.dense_config import DenseConfig

_AXES = ("batch", "channels", "rows", "columns")


@dataclass(frozen=True)
class Maps(DenseHead):
    """The maps of the backbone or pyramid, the finest first; ``maps`` are their names."""

    maps: tuple[str, ...] = ()

    name: ClassVar[str] = "features"
    usage: ClassVar[str] = "features"
    kind: ClassVar[Kind] = "features"
    gives: ClassVar[tuple[Output, ...]] = (
        Output(r"feature_(\d+)", "values", _AXES, stored_as=(r"output_\1",)),
        Output(r"(p\d+)", "values", _AXES, stored_as=(r"output_\1",)),
    )
    needs_decoder: ClassVar[bool] = False

    def fitted(self, config: ModelConfig, dense: DenseConfig | None) -> Maps:
        """With the names of the model's maps."""
        assert dense is not None
        return replace(super().fitted(config, dense), maps=dense.feature_names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph outputs."""
        return self.maps

    def forward(
        self, network: Network, image: Tensor, size: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Of the backbone inside a network, or of a backbone."""
        return tuple(network.feature_maps(image))
