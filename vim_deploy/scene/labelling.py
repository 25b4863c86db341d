"""Run of a segmentation model: pictures of any size in; classes, areas, overlays and labels out."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.codec import encode
from vim_deploy.errors import (
    InputMisfitError,
    InputNotFoundError,
    PictureWindowError,
    UnreadableImageError,
    VimDeployError,
)
from vim_deploy.files import atomic_output, output_errors, remove_leftovers, single_writer
from vim_deploy.images import Pixels, Source, picture_from, require_picture_channels
from vim_deploy.runtimes.base import Array, Runner
from vim_deploy.scene.classes import ClassArea, class_areas, palette_of
from vim_deploy.scene.overlay import DEFAULT_OPACITY, overlay, save_labels, save_picture
from vim_deploy.scene.pictures import output_paths
from vim_deploy.scene.records import (
    FILES_KEY,
    Job,
    RunOptions,
    SceneResult,
    SegmentationResult,
)
from vim_deploy.scene.segment import Scene, SceneModel, run_scenes
from vim_deploy.scene.windows import scene_settings

_log = logging.getLogger(__name__)

#: What is wrong with one picture, and not with the run.
_OF_A_PICTURE = (InputNotFoundError, UnreadableImageError, InputMisfitError, PictureWindowError)
_BORDERS = (
    "the head labels gives classes of the model's input: at another size each pixel has the class "
    "of the nearest, and borders are coarser than with --head logits"
)


class LabelsJob(Job):
    """A run of a segmentation model over ``files``, by name; writes what is drawn as it goes.

    Raises:
        VimDeployError: VIM-202, VIM-203 (options), VIM-204 (an output exists), VIM-304, VIM-305,
            VIM-415 (the model does not take pictures); errors of the runner. A picture that cannot
            be read or run is in the result's ``failures``.
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
        self._files = files
        dense = info.dense
        assert dense is not None
        wanted = options.scene
        self._settings = scene_settings(
            dense,
            info.image,
            mode=wanted.mode,
            stride=wanted.stride,
            scale=wanted.scale,
            pad=wanted.pad,
        )
        patch = info.model_config.patch_hw
        self._model = SceneModel.of(info, dense, patch)
        self._palette = palette_of(dense.palette, dense.num_classes)
        require_picture_channels(info.image.channels)
        _require_sensible(options, dense.num_classes)
        self._overlays = self._places(wanted.overlay, "_overlay.png")
        self._labels = self._places(wanted.save_labels, "_labels.png")
        self._good: list[SceneResult] = []
        self._colours: dict[int, tuple[int, int, int]] = {}
        self._coarse = False
        # Pictures that are being run; only those to be drawn over are kept.
        self._pictures: dict[str, Pixels] = {}

    def _places(self, folder: Path | None, ending: str) -> Mapping[Path, Path]:
        if folder is None:
            return {}
        return output_paths([*map(Path, self._files)], folder, ending, force=self.options.force)

    def run(self, artifact: str) -> SegmentationResult:
        """Run everything through what is called ``artifact``."""
        with ExitStack() as stack:
            self._run(stack)
        coarse = self._coarse and self._model.head.kind == "label map"
        return SegmentationResult(
            **self.told(artifact, self._good, *([_BORDERS] if coarse else [])),
            scene=encode(self._settings),
            colours=dict(sorted(self._colours.items())),
        )

    def _run(self, stack: ExitStack) -> None:
        """The .npz is put in place when ``stack`` is closed."""
        stored: _LabelFile | None = None
        for scene in run_scenes(self.runner, self._scenes(), self._model, self.batch):
            picture = self._pictures.pop(scene.name, None)
            if scene.failure is not None:
                self.fail(scene.name, scene.failure)
                continue
            if self.options.output is not None:
                stored = stored or _LabelFile(self.options.output, stack)
                stored.add(scene.labels)
            self._good.append(self._finish(scene, picture))
        if stored is not None:
            stored.add_names([item.file for item in self._good])

    def _scenes(self) -> Iterator[Scene]:
        for name, file in self._files.items():
            try:
                picture = picture_from(file, self.info.image.channels)
                scene = Scene(name, picture, self._settings, self._model)
            except _OF_A_PICTURE as error:
                self.fail(name, error)
                continue
            if self._overlays:
                self._pictures[scene.name] = picture
            _log.debug("%s: %d windows", name, len(scene.windows))
            yield scene

    def _finish(self, scene: Scene, picture: Pixels | None) -> SceneResult:
        labels, layout = scene.labels, scene.layout
        areas = class_areas(labels, self.info.labels, self._model.classes)
        shown = areas[: self.options.top]
        self._colours |= {area.index: self._palette[area.index] for area in shown}
        self._coarse |= layout.run != layout.own
        drawn = self._draw(Path(scene.name), labels, areas, picture)
        return SceneResult(
            file=scene.name,
            top=(),
            height=layout.own[0],
            width=layout.own[1],
            run_height=layout.run[0],
            run_width=layout.run[1],
            windows=len(scene.windows),
            classes=len(areas),
            areas=shown,
            overlay=drawn[0],
            labels=drawn[1],
        )

    def _draw(
        self, file: Path, labels: Array, areas: Sequence[ClassArea], picture: Pixels | None
    ) -> tuple[str | None, str | None]:
        """Write what was asked for; the paths."""
        place, plain = self._overlays.get(file), self._labels.get(file)
        if place is not None and picture is not None:
            opacity = self.options.scene.opacity
            opacity = DEFAULT_OPACITY if opacity is None else opacity
            _make_folder(place.parent)
            save_picture(place, overlay(picture, labels, areas, self._palette, opacity))
        if plain is not None:
            _make_folder(plain.parent)
            save_labels(plain, labels, self._palette)
        return (
            None if place is None else str(place),
            None if plain is None else str(plain),
        )


class _LabelFile:
    """An .npz that is written picture by picture: ``labels_0``, ``labels_1``, ... and their names.

    Closing ``stack`` puts it in place.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path, self._count = path, 0
        stack.enter_context(single_writer(path))
        remove_leftovers(path)
        temporary = stack.enter_context(atomic_output(path))
        self._archive = stack.enter_context(
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        )

    def add(self, labels: Array) -> None:
        """The next picture's labels [height, width]."""
        self._write(f"labels_{self._count}", labels)
        self._count += 1

    def add_names(self, files: Sequence[str]) -> None:
        """The pictures' names, in the order of their labels."""
        self._write(FILES_KEY, np.array(files))

    def _write(self, key: str, array: Array) -> None:
        with (
            output_errors(self._path),
            self._archive.open(f"{key}.npy", "w", force_zip64=True) as stream,
        ):
            np.lib.format.write_array(stream, array, allow_pickle=False)


def _make_folder(folder: Path) -> None:
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _require_sensible(options: RunOptions, classes: int) -> None:
    options.scene.require_overlay()
    if options.top is not None and options.top > classes:
        raise VimDeployError(
            "VIM-202",
            f"the largest {options.top} classes were asked for, and the model has {classes}",
            fix=f"--top {classes} or fewer",
        )
