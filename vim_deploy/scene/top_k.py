"""From a graph's outputs to the best classes of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import Array

#: Classes shown when nobody says how many.
DEFAULT_TOP = 5


@dataclass(frozen=True)
class Prediction:
    """One class of an image: index, name (empty when the file has none), probability."""

    index: int
    label: str
    probability: float


def softmax(logits: Array) -> NDArray[np.float64]:
    """exp(x) / sum(exp(x)) over the last axis, in float64."""
    values = logits.astype(np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def has_classes(head: str, outputs: Mapping[str, Sequence[int | str]]) -> bool:
    """Whether outputs of these shapes hold one row of class scores for each image."""
    kind = head.partition(":")[0]
    names = {
        "logits": ("logits",),
        "softmax": ("probabilities",),
        "topk": ("probabilities", "classes"),
    }.get(kind, ())
    return bool(names) and all(len(outputs.get(name, ())) == 2 for name in names)


def top_predictions(
    head: str, outputs: Mapping[str, Array], labels: Sequence[str], count: int | None
) -> list[tuple[Prediction, ...]]:
    """The best classes of each image, the most probable first.

    Args:
        head: ``logits``, ``softmax`` or ``topk:K`` (``specs.ExportInfo.head``).
        outputs: of the graph: ``logits`` or ``probabilities`` [B, classes]; for ``topk``
            ``probabilities`` and ``classes`` [B, K].
        labels: class names; may be empty.
        count: how many; None for five, or as many as there are.

    Raises:
        VimDeployError: VIM-202 when there are fewer than ``count``.
    """
    if head.startswith("topk"):
        probabilities, classes = outputs["probabilities"], outputs["classes"]
    else:
        probabilities = softmax(outputs["logits"]) if head == "logits" else outputs["probabilities"]
        classes = np.broadcast_to(np.arange(probabilities.shape[-1]), probabilities.shape)
    available = probabilities.shape[-1]
    if count is not None and count > available:
        raise VimDeployError(
            "VIM-202",
            f"the best {count} classes were asked for, and the file gives {available}",
            why=f"its head is {head}",
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
