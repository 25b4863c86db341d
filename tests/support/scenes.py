"""Runners and exports for tests of segmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.support.reference import dense_case
from vim_deploy.artifact import Artifact
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.base import Runner
from vim_deploy.scene.segment import Picture, Scene, SceneModel, run_scenes
from vim_deploy.scene.windows import SceneSettings, scene_settings
from vim_deploy.specs import ImagePreparation, TensorSpec
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

Array = np.ndarray[Any, np.dtype[Any]]
Model = Callable[[Array], Array]


class ModelRunner(Runner):
    """A runner over a function; notes the batch sizes it was called with."""

    name = "a function"

    def __init__(
        self,
        function: Model,
        image: ImagePreparation,
        output: str = "logits",
        batch: int | str = "batch",
    ) -> None:
        self._function, self._output = function, output
        shape = (batch, image.channels, image.height, image.width)
        self.input = TensorSpec("image", "float32", shape)
        self.outputs = (output,)
        self.seen: list[int] = []

    def run(self, image: Array, size: Any = None) -> Mapping[str, Array]:
        assert image.shape[1:] == self.input.shape[1:]
        self.seen.append(len(image))
        return {self._output: self._function(image)}


def random_model(classes: int, stride: int = 4, seed: int = 0) -> Model:
    """Logits [B, classes, H / stride, W / stride] that depend on every pixel of a window."""
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((classes, 3)).astype(np.float32)

    def run(image: Array) -> Array:
        batch, channels, height, width = image.shape
        cells = image.reshape(batch, channels, height // stride, stride, width // stride, stride)
        mean = cells.mean(axis=(3, 5))
        logits = np.einsum("kc,bchw->bkhw", weights, mean)
        logits += image.std(axis=(1, 2, 3))[:, None, None, None] * weights[None, :, :1, None]
        return logits.astype(np.float32)

    return run


def sliding_by_definition(
    model: Model, image: Array, window: tuple[int, int], stride: tuple[int, int]
) -> Array:
    """Average logits [classes, H, W] of a float image [H, W, C], window by window, in float64.

    Written from the rule: starting points every stride, each moved back so that its window ends
    at the border at the latest.
    """
    height, width = image.shape[:2]
    sums: Array | None = None
    visits = np.zeros((height, width))
    seen = set()
    for row in range(0, height, stride[0]):
        for column in range(0, width, stride[1]):
            top, left = min(row, height - window[0]), min(column, width - window[1])
            if (top, left) in seen:
                continue
            seen.add((top, left))
            cut = image[top : top + window[0], left : left + window[1]].transpose(2, 0, 1)
            logits = torch.from_numpy(model(np.ascontiguousarray(cut[None])))
            full = F.interpolate(logits, size=window, mode="bilinear", align_corners=False)
            value = full[0].double().numpy()
            if sums is None:
                sums = np.zeros((len(value), height, width))
            sums[:, top : top + window[0], left : left + window[1]] += value
            visits[top : top + window[0], left : left + window[1]] += 1
    assert sums is not None
    assert visits.min() > 0
    return sums / visits


def export_e01(folder: Path, name: str, **options: Any) -> Path:
    """The UperNet of case E01 as an ONNX file."""
    path = folder / f"{name}.onnx"
    case = dense_case("E01")
    export(ModelRequest(str(case.checkpoint)), path, ExportOptions(check=False, **options))
    return path


def opened_e01(path: Path, **overrides: Any) -> tuple[SceneModel, SceneSettings]:
    """What an export of E01 says about itself, and settings with the case's own stride of 43."""
    info = Artifact.open(path).info
    assert info is not None
    dense = info.dense
    patch = info.model_config.patch_hw
    if overrides.get("mode") != "whole":
        overrides.setdefault("stride", (43, 43))
    return SceneModel.of(info, dense, patch), scene_settings(dense, info.image, **overrides)


def scene_logits(
    runner: Runner, picture: Picture, settings: SceneSettings, model: SceneModel, batch: int = 1
) -> Array:
    """The averaged logits [classes, rows, columns] of the size the picture is run at.

    Needs memory for all of them; labels do not.

    Raises:
        VimDeployError: as ``Scene`` and ``run_scenes``; VIM-430.
    """
    parts: list[Array] = []
    scene = Scene("the picture", picture, settings, model, lambda rows: parts.append(rows.copy()))
    for done in run_scenes(runner, [scene], model, batch):
        if done.failure is not None:
            raise done.failure
    return np.ascontiguousarray(np.concatenate(parts).transpose(2, 0, 1))
