"""Run: pictures in, the best classes of each out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import PictureWindowError, UnreadableImageError, VimDeployError
from vim_deploy.files import atomic_output, single_writer
from vim_deploy.heads import of_file
from vim_deploy.images import Pixels, batch_from_crops, crop_from_file, picture_from_file
from vim_deploy.runtimes.base import Array, run_padded
from vim_deploy.runtimes.finite import finite_rows, not_finite, unfit
from vim_deploy.scene.resize import resized_pixels
from vim_deploy.scene.top_k import top_predictions
from vim_deploy.scene.windows import require_patch
from vim_deploy.specs import ImagePreparation
from vim_deploy.stages.opening import Opened, opened
from vim_deploy.stages.run_files import pictures, require_free
from vim_deploy.stages.run_records import (
    FILES_KEY,
    ImageFailure,
    ImageResult,
    RunOptions,
    RunResult,
    batch_size,
)
from vim_deploy.stages.segmenting import segment

#: Reads a picture as a model's input, uint8 [height, width, channels].
Reader = Callable[[Path, ImagePreparation], Pixels]


def run(
    artifact: Path, images: Path | Sequence[Path], options: RunOptions | None = None
) -> RunResult:
    """Run pictures through an exported file or engine.

    Args:
        artifact: made by ``export`` or ``build_engine``; says how pictures are prepared.
        images: files and folders of pictures.
        options: what to give, and where to run.

    Returns:
        One result for each picture that can be read and gets numbers for an answer; of a
        segmentation model a ``SegmentationResult``. The others are in ``failures``, and
        ``require_complete`` raises an error for them (VIM-411, VIM-430).

    Raises:
        VimDeployError: VIM-202 (more classes wanted than there are), VIM-203 (the head gives no
            class scores and no output file is named; options of another kind of model), VIM-204
            (an output exists), VIM-401 (no such picture), VIM-410 (the artifact does not say how
            pictures are prepared), VIM-415; errors of the runner.
    """
    options = options or RunOptions()
    given = [images] if isinstance(images, Path) else images
    files, passed_over = pictures(given, options.scene.folders)
    require_free(options.output, ".npz", force=options.force)
    settings = dataclasses.replace(options.runner, max_batch=options.batch)
    with opened(artifact, settings) as found:
        info = found.artifact.require_info()
        batch = batch_size(found.runner, options.batch)
        result = _run_opened(found, info, files, options, batch, artifact.name)
    if not passed_over:
        return result
    note = f"{passed_over} pictures in the folders of the outputs were passed over"
    return dataclasses.replace(result, notes=(*result.notes, note))


def _run_opened(
    found: Opened,
    info: ExportInfo,
    files: Sequence[Path],
    options: RunOptions,
    batch: int,
    artifact: str,
) -> RunResult:
    head = of_file(info)
    if head.kind in ("pixel scores", "label map"):
        return segment(found, info, files, options, batch, artifact)
    reader: Reader = crop_from_file
    if info.dense:
        options.scene.require_unused(f"the head {info.head} gives feature maps, and no labels")
        patch = info.model_config.patch_hw
        reader = _whole_reader(patch)
    else:
        options.scene.require_unused(f"{artifact} is a classification model")
    job = _Job(found, info, options, batch, reader)
    job.run(files)
    return job.result(artifact)


def _whole_reader(patch: tuple[int, int]) -> Reader:
    """For feature maps: the whole picture, upright, resized to the model's input."""

    def read(file: Path, preparation: ImagePreparation) -> Pixels:
        picture = picture_from_file(file, preparation.channels)
        require_patch((picture.shape[0], picture.shape[1]), patch)
        return resized_pixels(picture, (preparation.height, preparation.width))

    return read


class _Job:
    """One run over many batches: collects results, failures and, when asked for, raw outputs."""

    def __init__(
        self, found: Opened, info: ExportInfo, options: RunOptions, batch: int, reader: Reader
    ) -> None:
        self._found, self._info, self._options, self._batch = found, info, options, batch
        self._reader = reader
        self._good: list[ImageResult] = []
        self._failures: list[ImageFailure] = []
        self._raw: list[dict[str, Array]] = []

    def run(self, files: Sequence[Path]) -> None:
        for names, crops in self._batches(files):
            pixels = batch_from_crops(crops, self._info.image, self._info.preprocess)
            outputs = run_padded(self._found.runner, pixels)
            self._take(names, outputs)
        if self._options.output is not None and self._good:
            _write(self._options.output, [item.file for item in self._good], self._raw)

    def _batches(self, files: Sequence[Path]) -> Iterator[tuple[list[str], list[Pixels]]]:
        names: list[str] = []
        crops: list[Pixels] = []
        for file in files:
            crop = self._crop(file, self._info.image)
            if crop is None:
                continue
            names.append(str(file))
            crops.append(crop)
            if len(crops) == self._batch:
                yield names, crops
                names, crops = [], []
        if crops:
            yield names, crops

    def _crop(self, file: Path, preparation: ImagePreparation) -> Pixels | None:
        """The picture, or None after noting that this one cannot be read."""
        try:
            return self._reader(file, preparation)
        except (UnreadableImageError, PictureWindowError) as error:
            self._failures.append(
                ImageFailure(str(file), error.code, error.message, error.why, error.fix)
            )
            return None

    def _take(self, names: list[str], outputs: dict[str, Array]) -> None:
        head, options = of_file(self._info), self._options
        names, outputs = self._judged(names, outputs)
        if not names:
            return
        shapes = {name: value.shape for name, value in outputs.items()}
        if head.has_classes(shapes):
            tops = top_predictions(head, outputs, self._info.labels, options.top)
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
            self._failures.append(
                ImageFailure(name, error.code, error.message, error.why, error.fix)
            )
        kept = [name for name, fine in zip(names, good, strict=True) if fine]
        return kept, {name: value[good] for name, value in outputs.items()}

    def result(self, name: str) -> RunResult:
        written = self._options.output if self._good else None
        return RunResult(
            artifact=name,
            runtime=self._found.runner.name,
            head=self._info.head,
            images=tuple(self._good),
            failures=tuple(self._failures),
            output=None if written is None else str(written),
            notes=self._found.notes,
        )


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
