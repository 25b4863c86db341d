"""``logits``: what the classifier gives, float [B, classes]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vim_deploy.heads.base import Head, Kind, Network, Output, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vim_deploy.heads.base import Array


@dataclass(frozen=True)
class Logits(Head):
    """The scores as they are; a reader takes the softmax."""

    name: ClassVar[str] = "logits"
    usage: ClassVar[str] = "logits"
    kind: ClassVar[Kind] = "classes"
    gives: ClassVar[tuple[Output, ...]] = (Output("logits", "logits", stored_as=("output",)),)

    def forward(self, network: Network, image: Tensor, size: Tensor | None = None) -> Tensor:
        """The network's own output."""
        return network(image)

    def probabilities(self, outputs: Mapping[str, Array]) -> tuple[Array, NDArray[np.integer[Any]]]:
        """The softmax, in float64; of one logit the sigmoid, and what is left for class 0."""
        scores = class_scores(outputs[self.gives[0].name])
        found, classes = super().probabilities({self.gives[0].name: scores})
        return softmax(found), classes


def class_scores(logits: Array) -> Array:
    """Logits [B, C] with a column for each class: one logit is that of class 1 against class 0.

    The logit of class 0 is 0 then: sigmoid(x) is the second part of softmax(0, x).
    """
    import numpy as np

    if logits.shape[-1] != 1:
        return logits
    return np.concatenate([np.zeros_like(logits), logits], axis=-1)


def softmax(logits: Array) -> NDArray[np.float64]:
    """exp(x) / sum(exp(x)) over the last axis, in float64."""
    import numpy as np

    values = logits.astype(np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result
