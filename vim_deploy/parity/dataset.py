"""Labelled images: a folder with one sub-folder for each class, or stored arrays.

The folder layout is that of torchvision's ``ImageFolder``, which the official evaluation uses;
``class_folders`` tells which class a folder is.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vim_deploy.artifact.metadata import ExportInfo, require_info
from vim_deploy.errors import InputNotFoundError, UnreadableImageError, VimDeployError
from vim_deploy.files import require_file
from vim_deploy.heads import of_file
from vim_deploy.images import batch_from_crops, crop_from_file
from vim_deploy.npz import opened_npz
from vim_deploy.parity.class_folders import class_numbers, misfit
from vim_deploy.runtimes.base import Array, finite_rows
from vim_deploy.runtimes.inputs import check_input
from vim_deploy.scene.pictures import class_folders, in_words, search_images
from vim_deploy.specs import TensorSpec

#: Largest stored data set that is read whole, in elements: 2 GiB as float32.
_MAX_ELEMENTS = 1 << 29
#: Images and folders that a sentence lists.
_NAMED = 5


@dataclass(frozen=True)
class LabelledBatch:
    """Inputs in the graph's own format, the class of each, int64, and its name."""

    images: Array
    labels: Array
    names: tuple[str, ...]


@dataclass
class Unreadable:
    """What could not be read, by name and reason; filled while a data set is gone through."""

    entries: list[tuple[str, str]] = field(default_factory=list)


class Dataset(Protocol):
    """Images with classes, gone through in batches."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def classes_by(self) -> str:
        """How classes got their numbers, as a sentence."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """What lies beside the images and is none of them, in words."""

    def __len__(self) -> int:
        """Number of images, unreadable ones included."""

    def batches(self, size: int, unreadable: Unreadable) -> Iterator[LabelledBatch]:
        """All images that can be read; only one batch is in memory at a time."""


@dataclass(frozen=True)
class FolderDataset:
    """Image files below one folder for each class."""

    root: Path
    files: tuple[tuple[Path, int], ...]
    classes_by: str
    info: ExportInfo
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.root.name or str(self.root)

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, size: int, unreadable: Unreadable) -> Iterator[LabelledBatch]:
        """See ``Dataset``; a file that is no image is noted and left out."""
        crops, labels, names = [], [], []
        for path, label in self.files:
            name = path.relative_to(self.root).as_posix()
            try:
                crops.append(crop_from_file(path, self.info.image))
            except (InputNotFoundError, UnreadableImageError) as error:
                # Anything else than this one image (missing Pillow mode, options) concerns all.
                unreadable.entries.append((name, error.why or error.message))
                continue
            labels.append(label)
            names.append(name)
            if len(crops) == size:
                yield self._batch(crops, labels, names)
                crops, labels, names = [], [], []
        if crops:
            yield self._batch(crops, labels, names)

    def _batch(
        self, crops: Sequence[Array], labels: Sequence[int], names: Sequence[str]
    ) -> LabelledBatch:
        images = batch_from_crops(crops, self.info.image, self.info.preprocess)
        return LabelledBatch(images, np.asarray(labels, np.int64), tuple(names))


@dataclass(frozen=True)
class StoredDataset:
    """Arrays of an ``.npz`` file; ``rows`` are the images' places in it."""

    path: Path
    images: Array
    labels: Array
    rows: Array
    classes_by: str = "class numbers stored in the file"
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.name

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int, unreadable: Unreadable) -> Iterator[LabelledBatch]:
        """See ``Dataset``; stored arrays are always readable."""
        for start in range(0, len(self.images), size):
            part = slice(start, start + size)
            names = tuple(f"image {row}" for row in self.rows[part])
            yield LabelledBatch(self.images[part], self.labels[part], names)


def open_dataset(
    path: Path, info: ExportInfo | None, spec: TensorSpec, limit: int | None = None
) -> Dataset:
    """The data set at ``path``: a folder of class folders, or an ``.npz``.

    Args:
        info: what the exported file says about itself; needed for pictures.
        spec: the graph's input.
        limit: at most so many images, taken evenly from all classes.

    Raises:
        VimDeployError: VIM-401 (no such file), VIM-410 (no metadata), VIM-414 (not an ``.npz``
            with images and labels), VIM-415 (images of another shape), VIM-419 (no images, or
            classes that are not the model's).
    """
    classes = None if info is None else _class_count(info)
    if path.suffix.lower() == ".npz" and not os.path.isdir(path):
        return _stored(path, spec, classes, limit)
    if not os.path.isdir(path):
        raise VimDeployError(
            "VIM-401",
            f"data set not found: {path}",
            why="it is neither a folder nor an .npz file",
            fix="name a folder that holds one folder of images for each class",
        )
    info = require_info(
        info,
        "the ONNX file does not say how pictures are prepared",
        fix="export it with vim-deploy, or give an .npz with prepared images",
    )
    return open_folder(path, info, limit)


def _class_count(info: ExportInfo) -> int:
    """Classes that the model tells apart; VIM-419 when it has none."""
    count = info.model_config.classes
    if count == 0 or of_file(info).kind != "classes":
        raise VimDeployError(
            "VIM-419",
            "the model gives no class scores, so it has no accuracy",
            why=f"num_classes {count}, head {info.head}",
            fix="export it with --head logits",
        )
    return count


def open_folder(path: Path, info: ExportInfo, limit: int | None = None) -> FolderDataset:
    """A folder that holds one folder of pictures for each class; args and errors as of
    ``open_dataset``."""
    classes = _class_count(info)
    left_out: Counter[str] = Counter()
    names = class_folders(path, left_out)
    if not names:
        raise misfit(path, "; ".join(("it holds no class folders", *in_words(left_out))))
    numbers, how = class_numbers(names, info.labels, classes, path)
    found = {name: search_images(path / name, left_out) for name in names}
    files = [(file, numbers[name]) for name in names for file in found[name]]
    if not files:
        why = f"its {len(names)} class folders hold no images"
        raise misfit(path, "; ".join((why, *in_words(left_out))))
    empty = [name for name in names if not found[name]]
    notes = in_words(left_out)
    if empty:
        notes.append(f"class folders without an image: {len(empty)} ({_first(empty)})")
    return FolderDataset(path, tuple(evenly(files, limit)), how, info, tuple(notes))


def _stored(path: Path, spec: TensorSpec, classes: int | None, limit: int | None) -> StoredDataset:
    require_file(path, "data set")
    keys = [spec.name] if spec.dtype != "uint8" else [f"{spec.name}_uint8", spec.name]
    with opened_npz(path, lambda why: _not_stored(path, why)) as archive:
        found = sorted(archive.names)
        key = next((name for name in keys if name in archive), None)
        images = None if key is None else archive.read(key)
        labels = archive.read("labels") if "labels" in archive else None
    if images is None or labels is None:
        raise _not_stored(path, f"found {found}; wanted {keys[0]!r} and 'labels'")
    if images.size > _MAX_ELEMENTS:
        raise _not_stored(path, "it is too large to be read whole: use image files")
    _require_labels(path, images, labels, classes)
    fixed = spec.shape[0] if isinstance(spec.shape[0], int) else 1
    check_input(spec, np.repeat(images[:1], fixed, axis=0))
    bad = np.flatnonzero(~finite_rows(images))
    if bad.size:
        raise _not_stored(
            path, f"{bad.size} images of {key!r} hold NaN or Inf: image {_first(bad)}"
        )
    rows = np.asarray(evenly(list(range(len(images))), limit))
    return StoredDataset(path, images[rows], labels[rows].astype(np.int64), rows)


def _require_labels(path: Path, images: Array, labels: Array, classes: int | None) -> None:
    """VIM-414 for labels that are no class numbers, VIM-419 for other classes than the model's."""
    if images.ndim == 0 or labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise _not_stored(
            path,
            f"labels are {labels.dtype} {list(labels.shape)} for images {images.dtype} "
            f"{list(images.shape)}; expected whole numbers, one for each image",
        )
    if len(images) == 0:
        raise misfit(path, "it holds no images")
    other = np.flatnonzero((labels < 0) | (classes is not None and labels >= classes))
    if other.size:
        known = "" if classes is None else f", and the model's classes are 0 to {classes - 1}"
        raise misfit(
            path,
            f"{other.size} of {len(labels)} labels are no class: {labels[other[0]]} at "
            f"image {_first(other)}{known}",
            "store the class of each image as a number from 0, in the order of the model's outputs",
        )


def _first(items: Sequence[object] | Array) -> str:
    """The first of them, for a sentence."""
    return ", ".join(map(str, items[:_NAMED])) + (", ..." if len(items) > _NAMED else "")


def evenly(items: list[Any], limit: int | None) -> list[Any]:
    """At most ``limit`` items, spread over all of them: the first ones would be one class."""
    if limit is None or limit >= len(items):
        return items
    return [items[index * len(items) // limit] for index in range(limit)]


def _not_stored(path: Path, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-414",
        f"{path} is not a stored data set",
        why=why,
        fix="store arrays with numpy.savez(path, image=..., labels=...)",
    )
