"""Two segmentation models on the same pictures: which pixels get another class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vim_deploy.codec import stored
from vim_deploy.errors import (
    InputMisfitError,
    InputNotFoundError,
    PictureWindowError,
    UnreadableImageError,
    VimDeployError,
)
from vim_deploy.images import Pixels, picture_from
from vim_deploy.interrupts import check
from vim_deploy.parity.accuracy import Progress
from vim_deploy.parity.advice import Quality
from vim_deploy.parity.agreement import OpenSide, Picture, Unread, unanswered
from vim_deploy.parity.limits import LABEL_AGREEMENT
from vim_deploy.runtimes.base import Array
from vim_deploy.scene.classes import class_name
from vim_deploy.scene.segment import Scene, SceneModel, run_scenes
from vim_deploy.scene.thumbnails import Foremost, Thumbnails, marked
from vim_deploy.scene.windows import SceneSettings, scene_settings

#: Pictures that a page shows.
SHOWN = 24
#: What is wrong with one picture, and not with the run.
_OF_A_PICTURE = (InputNotFoundError, UnreadableImageError, InputMisfitError, PictureWindowError)


@stored(sparse=("no_answer",))
@dataclass(frozen=True)
class PictureMaps:
    """Both label maps of one picture.

    Attributes:
        file: name within the folder.
        height, width: of the picture and of its maps.
        pixels: with another class; None without two maps.
        no_answer: why a side gave none.
    """

    file: str
    height: int
    width: int
    pixels: int | None
    no_answer: str = ""

    @property
    def share(self) -> float:
        """Of the picture's pixels; 0 without two maps."""
        return (self.pixels or 0) / (self.height * self.width)


@stored(also=("iou",))
@dataclass(frozen=True)
class ClassMaps:
    """A class over all pictures: pixels that A gives it, that B does, that both do."""

    index: int
    label: str
    a: int
    b: int
    both: int

    @property
    def iou(self) -> float:
        """Both over either (``parity.distances.mean_iou``)."""
        return self.both / (self.a + self.b - self.both)


@stored(
    head={"kind": "segmentation"},
    keys=(
        "images", "pixels", "pixels_changed", "disagreement", "allowed", "mean_iou", "no_answer_a",
        "no_answer_b", "classes", "changed", "pictures",
    ),
)  # fmt: skip
@dataclass(frozen=True)
class PixelAgreement:
    """What came of all pictures.

    Attributes:
        pictures: each of them.
        classes: those that either side gives.
        precision: the coarser of both files'.
        no_answer_a, no_answer_b: pictures that a side gave no numbers for.
    """

    pictures: tuple[PictureMaps, ...]
    classes: tuple[ClassMaps, ...]
    precision: str
    no_answer_a: int = 0
    no_answer_b: int = 0

    @property
    def images(self) -> int:
        """How many both sides have seen."""
        return len(self.pictures)

    @property
    def pixels(self) -> int:
        """Of all pictures with two maps."""
        return sum(item.height * item.width for item in self.pictures if item.pixels is not None)

    @property
    def pixels_changed(self) -> int:
        """Pixels with another class."""
        return sum(item.pixels or 0 for item in self.pictures)

    @property
    def disagreement(self) -> float:
        """Share of the pixels with another class; 1 without any to compare."""
        return self.pixels_changed / self.pixels if self.pixels else 1.0

    @property
    def allowed(self) -> float:
        """Share that rounding to the coarser precision may change (``parity.limits``)."""
        return 1 - LABEL_AGREEMENT[self.precision]

    @property
    def loss_bound(self) -> None:
        """Nothing here knows the true classes."""

    @property
    def mean_iou(self) -> float | None:
        """Over the classes that either side gives; None without any."""
        return float(np.mean([item.iou for item in self.classes])) if self.classes else None

    @property
    def changed(self) -> tuple[str, ...]:
        """Pictures with another class anywhere, by name, the largest share first."""
        found = [item for item in self.pictures if item.pixels]
        return tuple(item.file for item in sorted(found, key=lambda item: -item.share))

    @property
    def sentences(self) -> tuple[str, ...]:
        """The findings in words."""
        found = []
        if self.mean_iou is not None:
            found.append(
                f"another class at {self.pixels_changed} of {self.pixels} pixels "
                f"({100 * self.disagreement:.4g} %), in {len(self.changed)} of {self.images} "
                f"pictures; mean IoU between both sides {100 * self.mean_iou:.2f} %"
            )
        for side, count in (("A", self.no_answer_a), ("B", self.no_answer_b)):
            if count:
                found.append(f"{side} gives no labels for {count} of {self.images} pictures")
        return tuple(found)

    def quality(self, bound: float) -> Quality:
        """What the answers say of B; the limit is that of the precision, whatever ``bound`` is."""
        if broken := unanswered(self.no_answer_a, self.no_answer_b, "gives no labels"):
            return broken
        if not self.pixels_changed:
            return Quality("same", f"the same class at every pixel of {self.images} pictures")
        share = f"{100 * self.disagreement:.2g} % of the pixels get another class"
        most = f"the {100 * self.allowed:.2g} % that rounding to {self.precision} may change"
        if self.disagreement <= self.allowed:
            return Quality("as good", f"{share}, no more than {most}")
        return Quality("different", f"{share}, more than {most}")


class _Side:
    """One side on its way: how its pictures are cut, and what runs them."""

    def __init__(self, side: OpenSide, batch: int) -> None:
        info, dense = side.info, side.info.dense
        assert dense is not None
        self.channels = info.image.channels
        self.model = SceneModel.of(info, dense, info.model_config.patch_hw)
        self._settings: SceneSettings = scene_settings(dense, info.image)
        self._runner, self._batch = side.runner, batch
        self.failures = 0

    def scene(self, name: str, picture: Pixels) -> Scene:
        """The picture, ready to be run."""
        return Scene(name, picture, self._settings, self.model)

    def labels(self, scene: Scene) -> Array | VimDeployError:
        """Class of each pixel, or why there is none."""
        (done,) = run_scenes(self._runner, [scene], self.model, self._batch)
        if done.failure is None:
            return done.labels
        self.failures += 1
        return done.failure


def compare_label_maps(
    sides: tuple[OpenSide, OpenSide],
    pictures: Sequence[Picture],
    batch: int,
    precision: str,
    progress: Progress = lambda done, of: None,
    small: Thumbnails | None = None,
) -> tuple[PixelAgreement, tuple[Unread, ...]]:
    """Run both sides over the pictures, one at a time.

    Args:
        sides: A and B, each with the windows that its file asks for.
        pictures: of any size.
        batch: windows at once.
        precision: the coarser of both files'.
        progress: told how many of how many are done.
        small: takes up the pictures with the largest share of changed pixels, these in red.

    Raises:
        VimDeployError: VIM-415 (outputs that are not the head's); errors of the runners.
    """
    first, second = (_Side(side, batch) for side in sides)
    names = sides[0].info.labels or sides[1].info.labels
    counts = _Counts(first.model.classes)
    foremost, unread = Foremost(SHOWN), list[Unread]()
    found: list[PictureMaps] = []
    for number, picture in enumerate(pictures, 1):
        try:
            pixels = picture_from(picture.path, first.channels)
            same = first.channels == second.channels
            other = pixels if same else picture_from(picture.path, second.channels)
            scenes = first.scene(picture.name, pixels), second.scene(picture.name, other)
        except _OF_A_PICTURE as error:
            unread.append(Unread(picture.name, error.why or error.message))
            continue
        maps = first.labels(scenes[0]), second.labels(scenes[1])
        entry, places = _compared(picture.name, pixels, maps, counts)
        found.append(entry)
        if places is not None and foremost.takes(entry.share):
            foremost.add(entry.share, picture.name, marked(pixels, places))
        progress(number, len(pictures))
        # A library may have lost the Ctrl-C of a long run.
        check()
    if small is not None:
        foremost.give(small)
    classes = tuple(counts.classes(names))
    agreement = PixelAgreement(tuple(found), classes, precision, first.failures, second.failures)
    return agreement, tuple(unread)


class _Counts:
    """Pixels of every class on either side and on both, over all pictures."""

    def __init__(self, classes: int) -> None:
        self._a, self._b, self._both = (np.zeros(classes, np.int64) for _ in range(3))

    def add(self, a: Array, b: Array) -> None:
        size = len(self._a)
        for total, labels in ((self._a, a), (self._b, b), (self._both, a[a == b])):
            total += np.bincount(labels.ravel(), minlength=size)

    def classes(self, names: Sequence[str]) -> Iterator[ClassMaps]:
        for index in np.flatnonzero(self._a + self._b):
            counts = (int(total[index]) for total in (self._a, self._b, self._both))
            yield ClassMaps(int(index), class_name(names, int(index)), *counts)


def _compared(
    name: str,
    pixels: Pixels,
    maps: tuple[Array | VimDeployError, Array | VimDeployError],
    counts: _Counts,
) -> tuple[PictureMaps, Array | None]:
    """What came of one picture, and where its classes differ."""
    height, width = pixels.shape[:2]
    a, b = maps
    if isinstance(a, VimDeployError) or isinstance(b, VimDeployError):
        why = "; ".join(
            f"{side}: {one.why or one.message}"
            for side, one in zip("AB", maps, strict=True)
            if isinstance(one, VimDeployError)
        )
        return PictureMaps(name, height, width, None, why), None
    counts.add(a, b)
    places = a != b
    return PictureMaps(name, height, width, int(places.sum())), places
