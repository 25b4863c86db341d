"""Runs with one answer for a picture: the best classes of each, or outputs for a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import (
    InputNotFoundError,
    PictureWindowError,
    UnreadableImageError,
    VimDeployError,
)
from vim_deploy.files import atomic_output, single_writer
from vim_deploy.heads import of_file
from vim_deploy.heads.base import Head
from vim_deploy.images import Pixels, Source, batch_from_crops, crop_from, picture_from
from vim_deploy.runtimes.base import Array, Runner, finite_rows, not_finite, run_padded, unfit
from vim_deploy.scene.records import (
    FILES_KEY,
    ImageResult,
    Job,
    Prediction,
    RunOptions,
    RunResult,
)
from vim_deploy.scene.resize import resized_pixels
from vim_deploy.scene.windows import require_patch

#: Classes shown when nobody says how many.
DEFAULT_TOP = 5


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
    if len(labels) == 1:
        # An older file of a model with one logit, for two classes.
        labels = ()
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
            Prediction(index, labels[index] if 0 <= index < len(labels) else "", float(share))
            for index, share in zip(
                map(int, classes[row, columns]), probabilities[row, columns], strict=True
            )
        )
        for row, columns in enumerate(order)
    ]


class ClassesJob(Job):
    """A run over batches of pictures, one input each: their best classes, or outputs for a file.

    Pictures are cropped; for a dense model, whose head gives feature maps then, the whole picture
    is resized.
    """

    def __init__(self, runner: Runner, info: ExportInfo, options: RunOptions, batch: int) -> None:
        super().__init__(runner, info, options, batch)
        self._good: list[ImageResult] = []
        self._raw: list[dict[str, Array]] = []

    def run(self, files: Mapping[str, Source], artifact: str) -> RunResult:
        """Run ``files``, by their names, through what is called ``artifact``."""
        for names, crops in self._batches(files):
            pixels = batch_from_crops(crops, self.info.image, self.info.preprocess)
            self._take(names, run_padded(self.runner, pixels))
        if self.options.output is not None and self._good:
            _write(self.options.output, [item.file for item in self._good], self._raw)
        return RunResult(**self.told(artifact, self._good))

    def _batches(self, files: Mapping[str, Source]) -> Iterator[tuple[list[str], list[Pixels]]]:
        names: list[str] = []
        crops: list[Pixels] = []
        for name, file in files.items():
            crop = self._crop(name, file)
            if crop is None:
                continue
            names.append(name)
            crops.append(crop)
            if len(crops) == self.batch:
                yield names, crops
                names, crops = [], []
        if crops:
            yield names, crops

    def _crop(self, name: str, file: Source) -> Pixels | None:
        """The picture as the model's input, or None after noting that it cannot be read."""
        image = self.info.image
        try:
            if not self.info.dense:
                return crop_from(file, image)
            picture = picture_from(file, image.channels)
            require_patch((picture.shape[0], picture.shape[1]), self.info.model_config.patch_hw)
            return resized_pixels(picture, (image.height, image.width))
        except (InputNotFoundError, UnreadableImageError, PictureWindowError) as error:
            self.fail(name, error)
            return None

    def _take(self, names: list[str], outputs: dict[str, Array]) -> None:
        head, options = of_file(self.info), self.options
        names, outputs = self._judged(names, outputs)
        if not names:
            return
        shapes = {name: value.shape for name, value in outputs.items()}
        if head.has_classes(shapes):
            tops = top_predictions(head, outputs, self.info.labels, options.top)
        else:
            _require_output(head.text, shapes, options)
            tops = [()] * len(names)
        self._good += [ImageResult(*pair) for pair in zip(names, tops, strict=True)]
        if options.output is not None:
            self._raw.append(outputs)

    def _judged(
        self, names: list[str], outputs: dict[str, Array]
    ) -> tuple[list[str], dict[str, Array]]:
        """The pictures with numbers for an answer, and their outputs; the others are noted."""
        good = np.logical_and.reduce([finite_rows(value) for value in outputs.values()])
        for row in np.flatnonzero(~good):
            name = names[row]
            error = not_finite(name, unfit({key: v[row] for key, v in outputs.items()}))
            self.fail(name, error)
        kept = [name for name, fine in zip(names, good, strict=True) if fine]
        return kept, {name: value[good] for name, value in outputs.items()}


def _require_output(head: str, shapes: dict[str, tuple[int, ...]], options: RunOptions) -> None:
    described = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    if options.top is not None:
        raise VimDeployError(
            "VIM-203",
            f"the head {head} gives no class scores to take the best {options.top} of",
            why=f"outputs: {described}",
            fix="leave --top away and write the outputs with -o FILE.npz",
        )
    if options.output is None:
        raise VimDeployError(
            "VIM-203",
            f"the head {head} gives no class scores to print",
            why=f"outputs: {described}",
            fix="write the outputs with -o FILE.npz",
        )


def _write(path: Path, names: list[str], parts: list[dict[str, Array]]) -> None:
    joined: dict[str, Any] = {FILES_KEY: np.array(names)}
    joined |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    with single_writer(path), atomic_output(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **joined)
