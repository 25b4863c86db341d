"""Run of a detector: pictures of any size in; boxes, scores, classes, masks and overlays out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import InputNotFoundError, UnreadableImageError, VimDeployError
from vim_deploy.files import atomic_output, output_errors, single_writer
from vim_deploy.images import (
    Pixels,
    Source,
    batch_from_crops,
    fit_from,
    picture_from,
    require_picture_channels,
)
from vim_deploy.runtimes.base import Array, Runner, run_padded
from vim_deploy.scene.boxes_overlay import canvas_of, tint, with_boxes
from vim_deploy.scene.classes import class_name, palette_of
from vim_deploy.scene.coco import CocoWriter, compressed, image_ids, images_path, run_lengths
from vim_deploy.scene.detections import (
    Detected,
    Size,
    detections_in,
    detector_of,
    require_outputs,
)
from vim_deploy.scene.overlay import DEFAULT_OPACITY, save_picture
from vim_deploy.scene.paste import pasted
from vim_deploy.scene.pictures import output_paths, require_free
from vim_deploy.scene.records import (
    FILES_KEY,
    CocoFile,
    DetectedImage,
    Detection,
    DetectionResult,
    Job,
    RunOptions,
)


@dataclass(frozen=True)
class _Fitted:
    """A picture on its way: its name, its sizes, the input, and itself where it is drawn on."""

    name: str
    own: Size
    run: Size
    pixels: Pixels
    picture: Pixels | None


@dataclass(frozen=True)
class _Kept:
    """What of a picture goes into the .npz."""

    name: str
    own: Size
    run: Size
    found: Detected


class DetectionsJob(Job):
    """A run of a detector over ``files``, by name; writes what is drawn as it goes.

    Raises:
        VimDeployError: VIM-202, VIM-203 (options), VIM-204 (an output exists), VIM-304, VIM-305,
            VIM-415 (outputs that are not the head's, a model that takes no pictures); errors of the
            runner. A picture that cannot be read, or gets no numbers for an answer, is in the
            result's ``failures``.
    """

    def __init__(
        self,
        runner: Runner,
        info: ExportInfo,
        options: RunOptions,
        batch: int,
        files: Mapping[str, Source],
    ) -> None:
        super().__init__(runner, info, options, batch)
        self._files, self._detector = files, detector_of(info)
        assert info.dense is not None
        self._palette = palette_of(info.dense.palette, self._detector.num_classes)
        require_picture_channels(info.image.channels)
        options.scene.require_overlay()
        if (coco := options.detection.coco) is not None:
            for path in (coco, images_path(coco)):
                require_free(path, ".json", force=options.force, option="--coco")
        folder = options.scene.overlay
        self._overlays: Mapping[Path, Path] = {}
        if folder is not None:
            paths = [Path(name) for name in files]
            self._overlays = output_paths(paths, folder, "_overlay.png", force=options.force)
        self._score, opacity = options.detection.score, options.scene.opacity
        self._opacity = DEFAULT_OPACITY if opacity is None else opacity
        self._good: list[DetectedImage] = []
        self._colours: dict[int, tuple[int, int, int]] = {}
        self._kept: list[_Kept] = []
        self._coco: CocoWriter | None = None

    def run(self, artifact: str) -> DetectionResult:
        """Run everything through what is called ``artifact``."""
        coco: CocoFile | None = None
        with ExitStack() as stack:
            for batch in self._batches():
                self._take(batch, stack)
            if self._coco is not None:
                coco = self._coco.finish()
        if self.options.output is not None and self._good:
            _write(self.options.output, self._kept)
        return DetectionResult(
            **self.told(artifact, self._good, *self._notes()),
            score=max(float(self._detector.score_threshold), self._score or 0.0),
            colours=dict(sorted(self._colours.items())),
            coco=coco,
        )

    def _notes(self) -> list[str]:
        asked, own = self._score, self._detector.score_threshold
        if asked is None or asked >= own:
            return []
        return [f"the model gives no detections with scores of {own:g} or less"]

    def _batches(self) -> Iterator[list[_Fitted]]:
        batch: list[_Fitted] = []
        for name, file in self._files.items():
            fitted = self._fitted(name, file)
            if fitted is None:
                continue
            batch.append(fitted)
            if len(batch) == self.batch:
                yield batch
                batch = []
        if batch:
            yield batch

    def _fitted(self, name: str, file: Source) -> _Fitted | None:
        """The picture as the model's input, or None after noting that it cannot be read."""
        try:
            picture = picture_from(file, self.info.image.channels)
        except (InputNotFoundError, UnreadableImageError) as error:
            self.fail(name, error)
            return None
        pixels, run = fit_from(picture, self.info.image)
        own = picture.shape[0], picture.shape[1]
        return _Fitted(name, own, run, pixels, picture if self._overlays else None)

    def _take(self, batch: list[_Fitted], stack: ExitStack) -> None:
        crops = [item.pixels for item in batch]
        images = batch_from_crops(crops, self.info.image, self.info.preprocess)
        sizes = np.array([item.run for item in batch], np.int64)
        outputs = run_padded(self.runner, images, sizes)
        require_outputs(outputs, self.info)
        for place, item in enumerate(batch):
            row = {name: values[place] for name, values in outputs.items()}
            classes = self._detector.num_classes
            try:
                found = detections_in(item.name, row, item.own, item.run, classes)
            except VimDeployError as error:
                self.fail(item.name, error)
                continue
            self._finish(item, found, stack)

    def _finish(self, item: _Fitted, every: Detected, stack: ExitStack) -> None:
        """Make of a picture's detections what was asked for."""
        wanted = self.options.detection.coco
        if wanted is not None and self._coco is None:
            # What is no file is called by its place, which is no number of its own.
            are_files = all(isinstance(source, Path) for source in self._files.values())
            ids = image_ids(self._files) if are_files else None
            classes = self._detector.num_classes
            self._coco = CocoWriter(
                wanted, stack, ids, list(self._files), self.info.labels, classes
            )
        above = every
        if self._score is not None:
            above = every.chosen(np.flatnonzero(every.scores > self._score))
        found = above.chosen(slice(self.options.top))
        canvas = None if item.picture is None else canvas_of(item.picture)
        pixels, masks = self._paste(item, found, canvas)
        if self._coco is not None:
            self._coco.add(item.name, item.own, found, masks)
        if self.options.output is not None:
            self._kept.append(_Kept(item.name, item.own, item.run, found))
        names = [class_name(self.info.labels, int(index)) for index in found.classes]
        listed = tuple(
            Detection(
                index=int(found.classes[place]),
                label=names[place],
                score=float(found.scores[place]),
                box=_four(found.boxes[place]),
                pixels=pixels[place] if pixels else None,
            )
            for place in range(len(found))
        )
        self._colours |= {entry.index: self._palette[entry.index] for entry in listed}
        self._good.append(
            DetectedImage(
                file=item.name,
                top=(),
                height=item.own[0],
                width=item.own[1],
                run_height=item.run[0],
                run_width=item.run[1],
                found=len(above),
                detections=listed,
                overlay=self._draw(item.name, canvas, found, names),
            )
        )

    def _paste(
        self, item: _Fitted, found: Detected, canvas: Pixels | None
    ) -> tuple[list[int], list[str]]:
        """Of each mask its pixels and, for COCO, its text; both are empty without masks.

        One mask is held at a time, within its box; the best is the last to be mixed into
        ``canvas``.
        """
        pixels: list[int] = []
        texts: list[str] = []
        if found.masks is None:
            return pixels, texts
        for place in range(len(found) - 1, -1, -1):
            mask = pasted(found.masks[place], found.boxes[place], item.own)
            pixels.append(mask.count)
            if self._coco is not None:
                texts.append(compressed(run_lengths(mask, item.own)))
            if canvas is not None:
                tint(canvas, mask, self._palette[int(found.classes[place])], self._opacity)
        return pixels[::-1], texts[::-1]

    def _draw(
        self, name: str, canvas: Pixels | None, found: Detected, names: list[str]
    ) -> str | None:
        """Write the overlay, if it was asked for; its path."""
        if canvas is None:
            return None
        place = self._overlays[Path(name)]
        with output_errors(place.parent):
            place.parent.mkdir(parents=True, exist_ok=True)
        save_picture(place, with_boxes(canvas, found, names, self._palette))
        return str(place)


def _four(box: Array) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, box)
    return left, top, right, bottom


def _write(path: Path, kept: list[_Kept]) -> None:
    """The detections of all pictures in one row; ``offsets`` say where those of each begin."""
    found = [item.found for item in kept]
    arrays: dict[str, Any] = {
        FILES_KEY: np.array([item.name for item in kept]),
        "image_sizes": np.array([item.own for item in kept], np.int64),
        "run_sizes": np.array([item.run for item in kept], np.int64),
        "offsets": np.cumsum([0, *map(len, found)], dtype=np.int64),
        "boxes": np.concatenate([item.boxes for item in found]),
        "scores": np.concatenate([item.scores for item in found]),
        "classes": np.concatenate([item.classes for item in found]),
    }
    masks = [item.masks for item in found if item.masks is not None]
    if masks:
        arrays["masks"] = np.concatenate(masks)
    with single_writer(path), atomic_output(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)
