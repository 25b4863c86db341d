"""Classifiers whose outputs are no numbers: for every picture, or for bright ones only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.support.engines import EXPORT
from tests.support.packages import classifier

#: With all that accuracy and bench ask of a model's config.
INFO = dataclasses.replace(EXPORT, model_config=EXPORT.model_config.replace(num_classes=4))


def nan_classifier(path: Path, value: float = np.nan) -> Path:
    """``packages.classifier`` with one weight that makes one logit of every picture ``value``."""
    return _with_weight(path, lambda weight: weight.__setitem__((0, 1), value))


def overflowing_classifier(path: Path) -> Path:
    """One whose logits exceed float32 for pictures that are far from the mean."""
    return _with_weight(path, lambda weight: weight.fill(2e38))


def _with_weight(path: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load(classifier(path, info=INFO))
    tensor = model.graph.initializer[0]
    weight = numpy_helper.to_array(tensor).copy()
    change(weight)
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    onnx.save(model, path)
    return path
