"""Labelled images: a folder with one sub-folder for each class, or stored arrays.

The folder layout and its order are those of torchvision's ``ImageFolder``, which the official
evaluation uses: the classes are the sub-folders, sorted by name as text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vim_deploy.artifact.metadata import ExportInfo, require_info
from vim_deploy.errors import InputNotFoundError, UnreadableImageError, VimDeployError
from vim_deploy.files import require_file
from vim_deploy.heads import of_file
from vim_deploy.images import batch_from_crops, crop_from_file, find_images
from vim_deploy.npz import opened_npz
from vim_deploy.runtimes.base import Array, check_input
from vim_deploy.specs import TensorSpec

#: Largest stored data set that is read whole, in elements: 2 GiB as float32.
_MAX_ELEMENTS = 1 << 29


@dataclass(frozen=True)
class LabelledBatch:
    """Inputs in the graph's own format and the class of each, int64."""

    images: Array
    labels: Array


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

    @property
    def name(self) -> str:
        return self.root.name or str(self.root)

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, size: int, unreadable: Unreadable) -> Iterator[LabelledBatch]:
        """See ``Dataset``; a file that is no image is noted and left out."""
        crops, labels = [], []
        for path, label in self.files:
            try:
                crops.append(crop_from_file(path, self.info.image))
            except (InputNotFoundError, UnreadableImageError) as error:
                # Anything else than this one image (missing Pillow mode, options) concerns all.
                name = path.relative_to(self.root).as_posix()
                unreadable.entries.append((name, error.why or error.message))
                continue
            labels.append(label)
            if len(crops) == size:
                yield self._batch(crops, labels)
                crops, labels = [], []
        if crops:
            yield self._batch(crops, labels)

    def _batch(self, crops: Sequence[Array], labels: Sequence[int]) -> LabelledBatch:
        images = batch_from_crops(crops, self.info.image, self.info.preprocess)
        return LabelledBatch(images, np.asarray(labels, np.int64))


@dataclass(frozen=True)
class StoredDataset:
    """Arrays of an ``.npz`` file."""

    path: Path
    images: Array
    labels: Array
    classes_by: str = "class numbers stored in the file"

    @property
    def name(self) -> str:
        return self.path.name

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int, unreadable: Unreadable) -> Iterator[LabelledBatch]:
        """See ``Dataset``; stored arrays are always readable."""
        for start in range(0, len(self.images), size):
            end = start + size
            yield LabelledBatch(self.images[start:end], self.labels[start:end])


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
    if path.suffix == ".npz":
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
    return _folder(path, info, _class_count(info), limit)


def _class_count(info: ExportInfo) -> int:
    """Classes of the model; VIM-419 when it has none."""
    count = info.model_config.num_classes
    if count == 0 or of_file(info).kind != "classes":
        raise VimDeployError(
            "VIM-419",
            "the model gives no class scores, so it has no accuracy",
            why=f"num_classes {count}, head {info.head}",
            fix="export it with --head logits",
        )
    return count


def _folder(path: Path, info: ExportInfo, classes: int, limit: int | None) -> FolderDataset:
    names = sorted(
        entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise _misfit(path, "it holds no class folders")
    numbers, how = class_numbers(names, info.labels, classes, path)
    files = [(file, numbers[name]) for name in names for file in _images_below(path / name)]
    if not files:
        raise _misfit(path, f"its {len(names)} class folders hold no images")
    return FolderDataset(path, tuple(_evenly(files, limit)), how, info)


def _images_below(folder: Path) -> tuple[Path, ...]:
    """Image files of a class; an empty class is not an error of the data set."""
    try:
        return find_images(folder)
    except InputNotFoundError:
        return ()


def class_numbers(
    names: Sequence[str], labels: Sequence[str], classes: int, path: Path
) -> tuple[dict[str, int], str]:
    """The model's class of each folder name, and how that was decided.

    Folders that carry the file's class names are taken by name; then some may be missing.
    Otherwise there have to be as many folders as classes, and they are taken in sorted order.

    Raises:
        VimDeployError: VIM-419 when some folders are class names and others are not, when a name
            stands for two classes, or when the number of folders is another one.
    """
    known = [name for name in names if name in labels]
    if known:
        unknown = [name for name in names if name not in labels]
        if unknown:
            raise _misfit(
                path,
                f"{len(known)} folders are class names of the model and {len(unknown)} are not: "
                + ", ".join(unknown[:5]),
            )
        twice = [name for name in known if list(labels).count(name) > 1]
        if not twice:
            return {name: labels.index(name) for name in names}, "folders are class names"
        if len(names) != classes:
            raise _misfit(path, f"class name {twice[0]!r} stands for more than one class")
    if len(names) != classes:
        raise _misfit(path, f"it has {len(names)} class folders, the model {classes} classes")
    how = "folders in sorted order, as torchvision's ImageFolder"
    if all(name.isdecimal() for name in names) and names != sorted(names, key=int):
        how += "; their names are numbers, and sorted as text they are not in numeric order"
    return {name: number for number, name in enumerate(names)}, how


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
    if len(images) == 0:
        raise _misfit(path, "it holds no images")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise _not_stored(
            path, f"labels are {labels.dtype} {list(labels.shape)} for {len(images)} images"
        )
    if labels.min() < 0 or (classes is not None and labels.max() >= classes):
        raise _misfit(path, f"classes {labels.min()} to {labels.max()}, the model has {classes}")
    rows = np.asarray(_evenly(list(range(len(images))), limit))
    dataset = StoredDataset(path, images[rows], labels[rows].astype(np.int64))
    fixed = spec.shape[0] if isinstance(spec.shape[0], int) else 1
    check_input(spec, np.repeat(dataset.images[:1], fixed, axis=0))
    return dataset


def _evenly(items: list[Any], limit: int | None) -> list[Any]:
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


def _misfit(path: Path, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-419",
        f"data set {path} does not fit the model",
        why=why,
        fix="one folder of images for each class, named like the model's labels or sorted in "
        "the order of its outputs",
    )
