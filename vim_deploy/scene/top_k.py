"""From a graph's outputs to the best classes of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vim_deploy.errors import VimDeployError
from vim_deploy.heads.base import Head
from vim_deploy.runtimes.base import Array

#: Classes shown when nobody says how many.
DEFAULT_TOP = 5


@dataclass(frozen=True)
class Prediction:
    """One class of an image: index, name (empty when the file has none), probability."""

    index: int
    label: str
    probability: float


def top_predictions(
    head: Head, outputs: Mapping[str, Array], labels: Sequence[str], count: int | None
) -> list[tuple[Prediction, ...]]:
    """The best classes of each image, the most probable first.

    Args:
        head: with ``has_classes``.
        outputs: of the graph.
        labels: class names; may be empty.
        count: how many; None for five, or as many as there are.

    Raises:
        VimDeployError: VIM-202 when there are fewer than ``count``.
    """
    probabilities, classes = head.probabilities(outputs)
    available = probabilities.shape[-1]
    if count is not None and count > available:
        raise VimDeployError(
            "VIM-202",
            f"the best {count} classes were asked for, and the file gives {available}",
            why=f"its head is {head.text}",
            fix=f"--top {available} or fewer, or export the model again with another --head",
        )
    # Stable, so that equal probabilities come in the order of the classes.
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, : count or DEFAULT_TOP]
    return [
        tuple(
            Prediction(
                int(classes[row, column]),
                _label(labels, int(classes[row, column])),
                float(probabilities[row, column]),
            )
            for column in columns
        )
        for row, columns in enumerate(order)
    ]


def _label(labels: Sequence[str], index: int) -> str:
    return labels[index] if 0 <= index < len(labels) else ""
