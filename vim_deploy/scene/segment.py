"""Segmentation of pictures of any size by a model of one input size, over any runner.

What comes out is what mmsegmentation's evaluation gives: logits of every window resized to the
window, summed and divided by the visits; the result resized to the picture's own size; then the
class of the largest. Windows of several pictures share a batch, and one picture is summed at a time
(``scene.accumulate``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import of_file
from vim_deploy.heads.base import Head
from vim_deploy.images import batch_from_crops
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.runtimes.base import Array, Runner, is_finite, not_finite, run_padded, strays
from vim_deploy.scene.accumulate import LabelRows, Sink, WindowMean
from vim_deploy.scene.resize import resized_labels, resized_maps, resized_pixels
from vim_deploy.scene.windows import (
    Layout,
    SceneSettings,
    lay_out,
    require_band,
    shown,
)
from vim_deploy.specs import ImagePreparation, PreprocessMode

#: [height, width, channels]: uint8 pixels, or float32 values that are normalised already.
Picture = Array


@dataclass(frozen=True)
class SceneModel:
    """What a segmentation artifact says about its input and output.

    Attributes:
        head: gives something for every pixel.
        classes: of the decode head.
        patch: height and width of a patch in pixels.
        image, preprocess: how windows become the input.
    """

    head: Head
    classes: int
    patch: tuple[int, int]
    image: ImagePreparation
    preprocess: PreprocessMode

    @classmethod
    def of(cls, info: ExportInfo, dense: DenseConfig, patch: tuple[int, int]) -> SceneModel:
        """Read it from an artifact's own description.

        Raises:
            VimDeployError: VIM-415 for a head of one class.
        """
        if dense.num_classes < 2:
            raise VimDeployError(
                "VIM-415",
                "a model of one class gives no labels",
                why="its pixels are told by a threshold, which the file does not hold",
                fix="run it with vim_deploy.runtimes.onnxruntime.runner.OrtRunner and apply yours",
            )
        return cls(of_file(info), dense.num_classes, patch, info.image, info.preprocess)

    @property
    def label_type(self) -> type[np.unsignedinteger]:
        """The smallest type that holds every class."""
        return np.uint8 if self.classes <= 256 else np.uint16


class Scene:
    """One picture on its way through a model.

    Args:
        name: of the picture, for messages.
        picture: uint8 [height, width, channels], at its own size; or float32 of the same shape,
            already normalised, for a graph that does not normalise and settings without resizing.
        settings: windows.
        model: what they run through.
        sink: takes the averaged logits, rows from the top down, instead of making labels of them.

    Raises:
        VimDeployError: VIM-415 (several windows, and a head whose outputs cannot be summed; a
            float picture that does not go through as it is), VIM-429.
    """

    def __init__(
        self,
        name: str,
        picture: Picture,
        settings: SceneSettings,
        model: SceneModel,
        sink: Sink | None = None,
    ) -> None:
        self.name = name
        self.layout = lay_out((picture.shape[0], picture.shape[1]), settings, model.patch)
        self.failure: VimDeployError | None = None
        self._model, self._sink = model, sink
        self._left = len(self.layout.windows)
        self._mean: WindowMean | None = None
        self._rows: LabelRows | None = None
        self._labels: Array | None = None
        if model.head.kind == "label map":
            _require_one_window(self.layout, settings)
        else:
            require_band(self.layout, model.classes, settings)
        if picture.dtype == np.float32:
            _require_as_it_is(self.layout, model)
            self._pixels = picture
        else:
            self._pixels = resized_pixels(picture, self.layout.run)

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """Top and left of every window, in the order they have to be taken."""
        return self.layout.windows

    @property
    def complete(self) -> bool:
        """Whether nothing more will come."""
        return self._left == 0

    @property
    def labels(self) -> Array:
        """Class indices [height, width] of the picture's own size, once it is complete."""
        if self._rows is not None:
            return self._rows.labels
        assert self._labels is not None
        return self._labels

    def cut(self, window: tuple[int, int]) -> Picture:
        """The pixels of a window; fewer than it has where the picture is padded."""
        top, left = window
        height, width = self.layout.window
        return self._pixels[top : top + height, left : left + width]

    def take(self, window: tuple[int, int], output: Array) -> None:
        """Take the model's output for the next window: logits [C, h, w], or labels [h, w]."""
        self._left -= 1
        if self.failure is None:
            try:
                self._take(window, output)
            except VimDeployError as error:
                self.failure = error

    def _take(self, window: tuple[int, int], output: Array) -> None:
        if self._model.head.kind == "label map":
            height, width = self.layout.run
            _require_classes(output, self._model.classes)
            labels = output[:height, :width].astype(self._model.label_type)
            self._labels = resized_labels(labels, self.layout.own)
            return
        if not is_finite(output):
            raise not_finite(
                self.name,
                f"{strays(output)} of {output.size} logits of the window at row {window[0]}, "
                f"column {window[1]}",
            )
        if self._mean is None:
            self._mean = WindowMean(
                self.layout, self._model.classes, self._sink or self._new_rows()
            )
        maps = np.ascontiguousarray(output.transpose(1, 2, 0), dtype=np.float32)
        self._mean.add(*window, resized_maps(maps, self.layout.window))
        if self.complete:
            self._mean.finish()
            self._mean = None

    def _new_rows(self) -> Sink:
        self._rows = LabelRows(self.layout.run, self.layout.own, self._model.label_type)
        return self._rows.take


def run_scenes(
    runner: Runner, scenes: Iterable[Scene], model: SceneModel, batch: int
) -> Iterator[Scene]:
    """Run every window of every scene and give the scenes back, complete, in their order.

    Args:
        runner: of the artifact.
        scenes: as many are asked for at a time as fill a batch.
        model: what ``runner`` runs.
        batch: windows at once.

    Raises:
        VimDeployError: VIM-415 when the artifact's outputs are not what it says; errors of the
            runner. What goes wrong with one picture is in its ``failure``.
    """
    queue: list[tuple[Scene, tuple[int, int]]] = []
    for scene in scenes:
        for window in scene.windows:
            queue.append((scene, window))
            if len(queue) == batch:
                yield from _run_queue(runner, queue, model)
                queue = []
    if queue:
        yield from _run_queue(runner, queue, model)


def _run_queue(
    runner: Runner, queue: list[tuple[Scene, tuple[int, int]]], model: SceneModel
) -> Iterator[Scene]:
    cuts = [scene.cut(window) for scene, window in queue]
    outputs = run_padded(runner, window_batch(cuts, model.image, model.preprocess))
    wanted = model.head.gives[0]
    values = outputs.get(wanted.name)
    if values is None or values.ndim != len(wanted.axes) or not _fits(values, model):
        found = {key: list(value.shape) for key, value in outputs.items()}
        raise VimDeployError(
            "VIM-415",
            f"the artifact does not give what its head {model.head.name} says",
            why=f"outputs: {found}; expected {wanted.name} of {model.classes} classes",
            fix="export the model again",
        )
    for (scene, window), value in zip(queue, values, strict=True):
        scene.take(window, value)
        if scene.complete:
            yield scene


def _fits(values: Array, model: SceneModel) -> bool:
    size = (model.image.height, model.image.width)
    if model.head.kind == "label map":
        return bool(values.shape[1:] == size)
    return bool(values.shape[1] == model.classes) and (
        not model.head.full_size or bool(values.shape[2:] == size)
    )


def window_batch(
    cuts: Sequence[Picture], image: ImagePreparation, preprocess: PreprocessMode
) -> Array:
    """The model's input for windows, filled up with zeros at the right and bottom.

    The zeros are those of the normalised picture (mmsegmentation's ``pad_val``): where the graph
    normalises, that is the mean; where it takes bytes, the byte next to the mean.

    Args:
        cuts: uint8 [height, width, channels] each, of the model's size or smaller; or all of them
            float32 and normalised.
        image: the model's input.
        preprocess: what the graph does itself.
    """
    if any(cut.dtype == np.float32 for cut in cuts):
        shape = (len(cuts), image.channels, image.height, image.width)
        normal = np.zeros(shape, np.float32)
        for row, cut in zip(normal, cuts, strict=True):
            row[:, : cut.shape[0], : cut.shape[1]] = cut.transpose(2, 0, 1)
        return normal
    full = []
    for cut in cuts:
        if cut.shape[:2] != (image.height, image.width):
            below, beside = image.height - cut.shape[0], image.width - cut.shape[1]
            cut = np.pad(cut, ((0, below), (0, beside), (0, 0)))
        full.append(cut)
    batch = batch_from_crops(full, image, preprocess)
    mean = np.asarray(image.mean, np.float32)
    for row, cut in zip(batch, cuts, strict=True):
        height, width = cut.shape[:2]
        if preprocess == "uint8":
            row[height:] = row[:, width:] = np.rint(255 * mean).astype(np.uint8)
        else:
            fill = mean[:, None, None] if preprocess == "normalize" else np.float32(0)
            row[:, height:] = row[:, :, width:] = fill
    return batch


def _require_as_it_is(layout: Layout, model: SceneModel) -> None:
    if layout.run != layout.own or model.preprocess != "none":
        raise VimDeployError(
            "VIM-415",
            "a float picture is taken as the model's input, and this one would be changed",
            why=f"run at {shown(layout.run)} instead of {shown(layout.own)}, "
            f"preprocess {model.preprocess}",
            fix="give uint8 pixels",
        )


def _require_one_window(layout: Layout, settings: SceneSettings) -> None:
    if len(layout.windows) == 1:
        return
    raise VimDeployError(
        "VIM-415",
        f"the head labels gives no sums over the {len(layout.windows)} windows of this picture",
        why=f"windows of {shown(settings.window)} over {shown(layout.run)} pixels; where they "
        "overlap, logits are averaged, and class indices cannot be",
        fix="export the model with --head logits, or add --mode whole",
    )


def _require_classes(labels: Array, classes: int) -> None:
    if labels.dtype.kind not in "iu":
        raise VimDeployError(
            "VIM-415",
            f"the artifact gives labels of type {labels.dtype}",
            why="a class is a whole number",
            fix="export the model again",
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise VimDeployError(
            "VIM-415",
            f"the artifact gives labels from {labels.min()} to {labels.max()}",
            why=f"it says that it has {classes} classes",
            fix="export the model again",
        )
