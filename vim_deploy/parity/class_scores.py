"""Probabilities of a batch of pictures, by class, whatever the head gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vim_deploy.errors import VimDeployError
from vim_deploy.heads import of_file
from vim_deploy.parity.accuracy import outputs_for
from vim_deploy.parity.agreement import OpenSide
from vim_deploy.runtimes.base import Array, finite_rows


@dataclass(frozen=True)
class ClassScores:
    """A batch's probabilities [rows, classes] (NaN: not given), and which rows are numbers."""

    values: Array
    finite: Array

    def first(self, row: int, count: int) -> list[int]:
        """The best classes, equal ones by number."""
        order = np.argsort(-np.nan_to_num(self.values[row], nan=-1.0), kind="stable")
        return [int(index) for index in order[:count]]


def class_scores_of(side: OpenSide, images: Array) -> ClassScores:
    """What a side gives for a batch of its inputs.

    Raises:
        VimDeployError: VIM-415 for outputs that are not the head's, or classes that there are not;
            errors of the runner.
    """
    head, count = of_file(side.info), side.info.model_config.classes
    outputs = outputs_for(side.runner, images)
    shapes = {name: value.shape for name, value in outputs.items()}
    if not head.has_classes(shapes):
        raise _other_output(side, f"outputs: {shapes}")
    finite = np.logical_and.reduce([finite_rows(value) for value in outputs.values()])
    # What is no number is not looked at, and does not get into a softmax.
    fit = {name: np.where(_rows_like(finite, value), value, 0) for name, value in outputs.items()}
    given, classes = head.probabilities(fit)
    # Of another's file they may be any numbers.
    if int(classes.min(initial=0)) < 0 or int(classes.max(initial=0)) >= count:
        why = f"classes from {classes.min()} to {classes.max()}; it says that it has {count}"
        raise _other_output(side, why)
    values = np.full((len(images), count), np.nan)
    np.put_along_axis(values, np.asarray(classes, np.int64), given.astype(np.float64), axis=1)
    return ClassScores(values, finite)


def _other_output(side: OpenSide, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-415",
        f"{side.runner.name} does not give what the head {side.info.head} says",
        why=why,
        fix="export the model again",
    )


def _rows_like(rows: Array, value: Array) -> Array:
    return rows.reshape(-1, *([1] * (value.ndim - 1)))
