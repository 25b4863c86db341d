"""A data set in COCO's form: pictures in a folder, and ``instances_*.json`` with what is in them.

The form is that of cocodataset.org (``format-data``). The file is somebody else's: what pycocotools
is given later, in C, was read here, within bounds and with lengths that add up.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.ranges import PIXELS
from vim_deploy.scene.coco import category_ids, is_coco
from vim_deploy.untrusted import read_json

#: The training half of COCO 2017 has 450 MB, the validation half 20 MB with three million numbers.
_MAX_VALUES = 20_000_000
_PATTERN = "instances_*.json"
#: Folders below the data set's that hold annotations.
_FOLDERS = ("", "annotations")
_SPLIT = "instances_"
#: Names that a sentence lists.
_NAMED = 5
#: A polygon may leave its picture by the picture's own size; its outline is drawn pixel by pixel.
_OUTSIDE = 1
_CORNERS = 3
_DIGIT_BITS, _SIGN, _MORE, _FIRST_LETTER, _MOST_SHIFT = 5, 16, 32, 48, 30


@dataclass(frozen=True)
class CocoPicture:
    """A picture, its number, size and annotations in pycocotools' form.

    ``objects`` have ``category_id``, ``bbox``, ``area``, ``iscrowd`` and, where
    ``CocoFolder.masks`` says so, ``segmentation``.
    """

    number: int
    path: Path
    name: str
    height: int
    width: int
    objects: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class CocoFolder:
    """The pictures of a data set.

    Attributes:
        name: for people.
        pictures: by number.
        categories: number of each class of the model, in its order.
        classes_by: how they were told, in words.
        masks: whether every object has a segmentation.
        left_out: what lies in the data set and is not looked at, in words.
    """

    name: str
    pictures: tuple[CocoPicture, ...]
    categories: tuple[int, ...]
    classes_by: str
    masks: bool
    left_out: tuple[str, ...] = ()


def open_coco(
    path: Path, labels: Sequence[str], classes: int, limit: int | None = None
) -> CocoFolder:
    """The data set at ``path``.

    Args:
        path: the folder, or the file with the annotations in it or in ``annotations``.
        labels: class names of the model; may be empty.
        classes: how many the model tells apart.
        limit: at most so many pictures, taken evenly.

    Raises:
        VimDeployError: VIM-401 (no such folder), VIM-419 (no annotations, or more than one file of
            them; what they say cannot be; classes that are not the model's).
    """
    root, file = _annotations(path)

    def misfit(why: str, fix: str = "") -> VimDeployError:
        return VimDeployError(
            "VIM-419",
            f"data set {path} does not fit the model",
            why=f"{file.name}: {why}",
            fix=fix or "give a folder in COCO's form: pictures and instances_NAME.json",
        )

    value = read_json(file, misfit, max_values=_MAX_VALUES)
    reader = _Reader(misfit)
    images = reader.table(value, "images")
    categories, how = _categories(reader.table(value, "categories"), labels, classes, reader)
    sizes = {reader.number(item, "id"): reader.size(item) for item in images}
    if len(sizes) < len(images):
        raise misfit("two images have the same id")
    objects: dict[int, list[dict[str, Any]]] = {number: [] for number in sizes}
    known, other, masks = set(categories), 0, True
    for item in reader.table(value, "annotations"):
        number = reader.number(item, "image_id")
        if number not in sizes:
            raise misfit(f"an annotation is of image {number}, which is not there")
        if reader.number(item, "category_id") not in known:
            other += 1
            continue
        found = reader.annotation(item, sizes[number])
        masks &= "segmentation" in found
        objects[number].append(found)
    if not any(objects.values()):
        raise misfit("no object of the model's classes is annotated")
    split = file.stem.removeprefix(_SPLIT)
    chosen = sorted(images, key=lambda item: int(item["id"]))
    if limit is not None and limit < len(chosen):
        chosen = [chosen[place * len(chosen) // limit] for place in range(limit)]
    pictures = tuple(
        CocoPicture(
            item["id"],
            _find(root, split, reader.name(item)),
            reader.name(item),
            *sizes[item["id"]],
            tuple(objects[item["id"]]),
        )
        for item in chosen
    )
    left_out = (f"annotations of other classes: {other}",) if other else ()
    return CocoFolder(root.name or str(root), pictures, categories, how, masks, left_out)


def _annotations(path: Path) -> tuple[Path, Path]:
    """The folder of a data set, and its file of annotations."""
    if path.suffix == ".json" and os.path.isfile(path):
        parent = path.absolute().parent
        return (parent.parent if parent.name == _FOLDERS[1] else parent), path
    if not os.path.isdir(path):
        raise VimDeployError(
            "VIM-401",
            f"data set not found: {path}",
            why="it is neither a folder nor a .json file with annotations",
            fix="name a folder in COCO's form: pictures and instances_NAME.json",
        )
    found = sorted(file for folder in _FOLDERS for file in (path / folder).glob(_PATTERN))
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:_NAMED])
        raise VimDeployError(
            "VIM-419",
            f"data set {path} does not fit the model",
            why=f"it has {len(found)} files of annotations" + (f": {names}" if names else "")
            + f"; looked for {_PATTERN} in it and in {_FOLDERS[1]}",
            fix=f"name one: --dataset {found[0]}" if found else "a detector is measured on a "
            "folder in COCO's form: pictures and instances_NAME.json",
        )  # fmt: skip
    return path, found[0]


def _find(root: Path, split: str, name: str) -> Path:
    """Where a picture lies; where it would lie most simply, if it is nowhere."""
    places = [root / folder / name for folder in (split, "", f"images/{split}", "images")]
    return next((place for place in places if place.is_file()), places[0])


def _categories(
    items: Sequence[Mapping[str, Any]], labels: Sequence[str], classes: int, reader: _Reader
) -> tuple[tuple[int, ...], str]:
    """Number of each class of the model: by its name, or by the numbers that results have."""
    names: dict[str, int] = {}
    numbers = {reader.number(item, "id") for item in items}
    for item in items:
        if isinstance(item.get("name"), str):
            names[item["name"]] = item["id"]
    own = [label for label in labels if label in names]
    if labels and own:
        missing = [label for label in labels if label not in names]
        if missing:
            raise reader.misfit(
                f"{len(own)} classes of the model have a category of their name, and "
                f"{len(missing)} have not: {', '.join(missing[:_NAMED])}"
            )
        if len(set(labels)) < len(labels):
            raise reader.misfit("two classes of the model have the same name")
        return tuple(names[label] for label in labels), "categories have the names of the classes"
    found = category_ids(labels, classes)
    if not numbers <= set(found) or not numbers:
        raise reader.misfit(
            f"no category has the name of one of the model's classes, and numbers such as "
            f"{sorted(numbers)[-1] if numbers else 'none'} are not those of {classes} classes",
            "export the model again with --labels and the names of the categories",
        )
    how = "COCO's 80 classes" if is_coco(labels) else "category numbers are class numbers from 1"
    return found, how


@dataclass(frozen=True)
class _Reader:
    """Reads values out of a file of others; ``misfit`` makes the error of a sentence."""

    misfit: Callable[..., VimDeployError]

    def table(self, value: Any, key: str) -> list[Mapping[str, Any]]:  # noqa: ANN401 - parsed JSON
        """The list of objects under ``key``."""
        found = value.get(key) if isinstance(value, dict) else None
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise self.misfit(f"it has no list {key!r} of objects")
        return found

    def number(self, item: Mapping[str, Any], key: str) -> int:
        """A whole number that pycocotools keeps in 64 bits."""
        found = item.get(key)
        if type(found) is not int or not 0 <= found < 1 << 62:
            raise self.misfit(f"{key} is {found!r}, expected a whole number")
        return found

    def size(self, item: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width of a picture."""
        found = self.number(item, "height"), self.number(item, "width")
        if not all(PIXELS.low <= side <= PIXELS.high for side in found):
            raise self.misfit(f"image {item['id']} has {found[0]} x {found[1]} pixels")
        return found

    def name(self, item: Mapping[str, Any]) -> str:
        """A picture's file, within the data set."""
        found = item.get("file_name")
        path = PurePosixPath(found) if isinstance(found, str) else PurePosixPath()
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in str(path):
            raise self.misfit(f"file_name is {found!r}, expected the name of a file in it")
        return str(path)

    def numbers(self, value: Any, what: str) -> list[float]:  # noqa: ANN401 - parsed JSON
        """Finite numbers."""
        fits = isinstance(value, list) and all(
            type(item) in (int, float) and math.isfinite(item) for item in value
        )
        if not fits:
            raise self.misfit(f"{what} holds something else than numbers")
        return [float(item) for item in value]

    def annotation(self, item: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """An object in pycocotools' form."""
        box = self.numbers(item.get("bbox"), "a bbox")
        longest = float(max(size))
        if len(box) != 4 or min(box[2:]) < 0 or max(map(abs, box)) > (1 + _OUTSIDE) * longest:
            raise self.misfit(f"a bbox is {box}, expected left, top, width and height")
        crowd = item.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise self.misfit(f"iscrowd is {crowd!r}, expected 0 or 1")
        area = item.get("area", box[2] * box[3])
        (area,) = self.numbers([area], "an area")
        found = {
            "category_id": item["category_id"],
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
        }
        if item.get("segmentation"):
            found["segmentation"] = self.segmentation(item["segmentation"], size)
        return found

    def segmentation(self, value: Any, size: tuple[int, int]) -> Any:  # noqa: ANN401 - parsed JSON
        """Polygons, or the lengths of runs, as a list."""
        if isinstance(value, list):
            return [self.polygon(corners, size) for corners in value]
        if not isinstance(value, dict) or value.get("size") != list(size):
            raise self.misfit("a segmentation is neither polygons nor runs of its picture's size")
        counts = value.get("counts")
        if isinstance(counts, str):
            counts = self.runs(counts)
        lengths = counts if isinstance(counts, list) else []
        fits = all(type(length) is int and length >= 0 for length in lengths)
        if not fits or sum(lengths) != size[0] * size[1]:
            raise self.misfit(f"runs of a mask do not add up to {size[0]} x {size[1]} pixels")
        return {"size": list(size), "counts": lengths}

    def polygon(self, value: Any, size: tuple[int, int]) -> list[float]:  # noqa: ANN401
        """Corners x, y one behind the other."""
        corners = self.numbers(value, "a polygon")
        if len(corners) < 2 * _CORNERS or len(corners) % 2:
            raise self.misfit(
                f"a polygon has {len(corners)} numbers, expected pairs, three or more"
            )
        longest = float(max(size))
        if min(corners) < -_OUTSIDE * longest or max(corners) > (1 + _OUTSIDE) * longest:
            raise self.misfit("a polygon lies far outside of its picture")
        return corners

    def runs(self, text: str) -> list[int]:
        """Lengths out of COCO's string (``scene.coco`` says how they are written)."""
        lengths: list[int] = []
        number = shift = 0
        for letter in text:
            digit = ord(letter) - _FIRST_LETTER
            if not 0 <= digit < 2 * _MORE or shift > _MOST_SHIFT:
                raise self.misfit("a mask's string holds something else than runs")
            number |= (digit & (_MORE - 1)) << shift
            shift += _DIGIT_BITS
            if not digit & _MORE:
                if digit & _SIGN:
                    number -= 1 << shift
                lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
                number = shift = 0
        return lengths
