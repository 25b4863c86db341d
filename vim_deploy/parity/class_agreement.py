"""Two classifiers on the same pictures, picture by picture: classes, probabilities, near flips."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vim_deploy.codec import stored
from vim_deploy.errors import InputNotFoundError, UnreadableImageError
from vim_deploy.images import Pixels, batch_from_crops, crop_from
from vim_deploy.interrupts import check
from vim_deploy.parity.accuracy import Progress, paired_answers
from vim_deploy.parity.advice import Quality
from vim_deploy.parity.agreement import OpenSide, Picture, Unread, unanswered
from vim_deploy.parity.class_scores import ClassScores, class_scores_of
from vim_deploy.parity.paired import PairedDifference, images_needed, wilson
from vim_deploy.scene.classes import class_name
from vim_deploy.scene.thumbnails import Thumbnails

_TOP = 5
#: Pictures that a page shows: of those that differ, and of those nearest to it.
SHOWN, SHOWN_NEAR = 24, 12


@stored(decimals={"probability": 6, "margin": 6})
@dataclass(frozen=True)
class Answer:
    """The first class that a side gives: number, name, probability, and how far the second is."""

    index: int
    label: str
    probability: float
    margin: float


@stored(sparse=("truth",), decimals={"difference": 9})
@dataclass(frozen=True)
class PictureAnswers:
    """Both answers to one picture.

    Attributes:
        file: name within the folder.
        a, b: None for NaN or Inf.
        same: the same first class.
        same_top5: the same set of five; None where five classes are not told apart.
        difference: largest difference of a class's probability; None without two answers.
        truth: name of the true class, where it is known.
    """

    file: str
    a: Answer | None
    b: Answer | None
    same: bool
    same_top5: bool | None
    difference: float | None
    truth: str | None = None

    @property
    def margin(self) -> float:
        """By how much the first class leads on the side where it leads less; 0 without two."""
        return min(self.a.margin, self.b.margin) if self.a and self.b else 0.0


@dataclass(frozen=True)
class LabelledAnswers:
    """How often each side is right: counts, and the paired differences from A to B."""

    top1_a: int
    top1_b: int
    top5_a: int | None
    top5_b: int | None
    top1: PairedDifference
    top5: PairedDifference | None


@stored(
    head={"kind": "classes"},
    keys=(
        "images", "same_class", "same_top5", "disagreement", "upper_bound", "largest_difference",
        "median_difference", "no_answer_a", "no_answer_b", "accuracy", "changed",
        "nearest", "pictures",
    ),
)  # fmt: skip
@dataclass(frozen=True)
class ClassAgreement:
    """What came of all pictures; ``accuracy`` None where their classes are not known."""

    pictures: tuple[PictureAnswers, ...]
    accuracy: LabelledAnswers | None = None

    @property
    def images(self) -> int:
        """How many both sides have seen."""
        return len(self.pictures)

    @property
    def same_class(self) -> int:
        """How many get the same first class."""
        return sum(item.same for item in self.pictures)

    @property
    def same_top5(self) -> int | None:
        """How many get the same five first classes; None where five are not told apart."""
        known = [item.same_top5 for item in self.pictures if item.same_top5 is not None]
        return sum(known) if known else None

    @property
    def disagreement(self) -> float:
        """Share of the pictures without the same first class."""
        return 1 - self.same_class / self.images

    @property
    def upper_bound(self) -> float:
        """Upper end of the 95 % interval of ``disagreement``."""
        return wilson(self.images - self.same_class, self.images)[1]

    @property
    def loss_bound(self) -> float | None:
        """Upper bound of the loss of top-1 accuracy; None where no true classes are known."""
        return None if self.accuracy is None else self.accuracy.top1.high

    @property
    def _differences(self) -> list[float]:
        return [item.difference for item in self.pictures if item.difference is not None]

    @property
    def largest_difference(self) -> float | None:
        """Of a probability, over all pictures; None without two answers to any."""
        return max(self._differences, default=None)

    @property
    def median_difference(self) -> float | None:
        """Of the pictures' largest differences."""
        return statistics.median(self._differences) if self._differences else None

    @property
    def no_answer_a(self) -> int:
        """Pictures for which A gives NaN or Inf."""
        return sum(item.a is None for item in self.pictures)

    @property
    def no_answer_b(self) -> int:
        """Pictures for which B gives NaN or Inf."""
        return sum(item.b is None for item in self.pictures)

    @property
    def changed(self) -> tuple[str, ...]:
        """Pictures without the same first class, by name, those furthest apart first."""
        found = [item for item in self.pictures if not item.same]
        found.sort(key=lambda item: -(2.0 if item.difference is None else item.difference))
        return tuple(item.file for item in found)

    @property
    def nearest(self) -> tuple[str, ...]:
        """Pictures with the same first class, by name: those nearest to another one."""
        found = sorted((item for item in self.pictures if item.same), key=lambda item: item.margin)
        return tuple(item.file for item in found[:SHOWN_NEAR])

    @property
    def sentences(self) -> tuple[str, ...]:
        """The findings in words."""
        found = [f"same first class: {self.same_class} of {self.images} pictures"]
        if self.same_top5 is not None:
            found[0] += f"; same first five: {self.same_top5}"
        if self.largest_difference is not None:
            found.append(
                f"probabilities differ by {self.largest_difference:.2g} at most, by "
                f"{self.median_difference:.2g} in the median picture"
            )
        for side, count in (("A", self.no_answer_a), ("B", self.no_answer_b)):
            if count:
                found.append(f"{side} gives NaN or Inf for {count} of {self.images} pictures")
        if self.accuracy is not None:
            found.append(self.accuracy.top1.sentence("top-1 accuracy"))
            if self.accuracy.top5 is not None:
                found.append(self.accuracy.top5.sentence("top-5 accuracy"))
        return tuple(found)

    def quality(self, bound: float) -> Quality:
        """What the answers say of B, for a share of ``bound`` that may be otherwise."""
        if broken := unanswered(self.no_answer_a, self.no_answer_b, "gives NaN or Inf"):
            return broken
        changed = self.images - self.same_class
        if self.accuracy is not None and changed:
            return self._by_accuracy(self.accuracy.top1, changed, bound)
        if changed:
            return Quality(
                "different",
                f"{changed} of {self.images} pictures get another class, and without their true "
                "classes nothing says which side is right",
            )
        same = f"the same class on all {self.images} pictures"
        if self.upper_bound <= bound:
            return Quality("same", same)
        unseen = f"up to {100 * self.upper_bound:.2f} % of others may get another one"
        return Quality("too few", f"{same}, but {_needed((0, 0, self.images), bound, unseen)}")

    def _by_accuracy(self, top1: PairedDifference, changed: int, bound: float) -> Quality:
        flips = f"{changed} of {self.images} pictures get another class"
        if top1.detectable:
            worse = top1.loss > 0
            what = "loses" if worse else "gains"
            return Quality(
                "worse" if worse else "better",
                f"B {what} {100 * abs(top1.loss):.2f} % of top-1 accuracy ({flips})",
            )
        if top1.high <= bound:
            found = f"{flips} and no loss is detectable (at most {100 * top1.high:.2f} %)"
            return Quality("as good", found)
        counts, unseen = (top1.losses, top1.gains, self.images), f"{100 * top1.high:.2f} %"
        needed = _needed(counts, bound, f"one of {unseen} would go unseen")
        return Quality("too few", f"{flips} and no loss is detectable, but {needed}")


def _needed(top1: tuple[int, int, int], bound: float, unseen: str) -> str:
    """How far the pictures tell, and how many would tell enough; ``top1``: losses, gains, all."""
    count = images_needed(*top1, bound)
    if count is None:
        return f"{unseen}; more pictures like these will not bring that to {100 * bound:g} %"
    return f"{unseen}; about {count} pictures would bring that to {100 * bound:g} %"


def compare_classes(
    sides: tuple[OpenSide, OpenSide],
    pictures: Sequence[Picture],
    batch: int,
    progress: Progress = lambda done, of: None,
    small: Thumbnails | None = None,
) -> tuple[ClassAgreement, tuple[Unread, ...]]:
    """Run both sides over the pictures; a batch of them is in memory at a time.

    Args:
        sides: A and B, each of which prepares the pictures as its file says.
        pictures: with the classes of all of them, or of none.
        batch: pictures at once.
        progress: told how many of how many are done.
        small: takes up the pictures that differ and those nearest to it, as A sees them.

    Returns:
        What both sides have answered (no pictures where none could be read), and what could not be
        read.

    Raises:
        VimDeployError: VIM-415 (an input does not fit); errors of the runners.
    """
    unread: list[Unread] = []
    found: list[PictureAnswers] = []
    places: list[tuple[int, int]] = []
    for part, crops in _batches(sides, pictures, batch, unread):
        scores = [
            class_scores_of(side, batch_from_crops(own, side.info.image, side.info.preprocess))
            for side, own in zip(sides, crops, strict=True)
        ]
        for row, picture in enumerate(part):
            found.append(_answers(picture, row, scores, sides))
            if picture.truth is not None:
                places.append((_place(picture.truth, row, scores[0]),
                               _place(picture.truth, row, scores[1])))  # fmt: skip
        progress(len(found) + len(unread), len(pictures))
        # A library may have lost the Ctrl-C of a long run.
        check()
    five = all(item.same_top5 is not None for item in found)
    labelled = _labelled(places, five=five) if places else None
    agreement = ClassAgreement(tuple(found), labelled)
    if small is not None:
        _show(agreement, pictures, sides[0], small)
    return agreement, tuple(unread)


def _show(
    found: ClassAgreement, pictures: Sequence[Picture], side: OpenSide, small: Thumbnails
) -> None:
    paths = {picture.name: picture.path for picture in pictures}
    for name in (*found.changed[:SHOWN], *found.nearest):
        try:
            small.add(name, crop_from(paths[name], side.info.image))
        except (InputNotFoundError, UnreadableImageError):
            # It was there when it was run.
            small.left_out += 1


def _batches(
    sides: tuple[OpenSide, OpenSide], pictures: Sequence[Picture], batch: int, unread: list[Unread]
) -> Iterator[tuple[list[Picture], tuple[list[Pixels], list[Pixels]]]]:
    """Pictures that can be read, and for each side their crops."""
    alike = sides[0].info.image == sides[1].info.image
    part: list[Picture] = []
    crops: tuple[list[Pixels], list[Pixels]] = ([], [])
    for picture in pictures:
        try:
            first = crop_from(picture.path, sides[0].info.image)
            second = first if alike else crop_from(picture.path, sides[1].info.image)
        except (InputNotFoundError, UnreadableImageError) as error:
            unread.append(Unread(picture.name, error.why or error.message))
            continue
        part.append(picture)
        crops[0].append(first)
        crops[1].append(second)
        if len(part) == batch:
            yield part, crops
            part, crops = [], ([], [])
    if part:
        yield part, crops


def _answers(
    picture: Picture, row: int, scores: Sequence[ClassScores], sides: Sequence[OpenSide]
) -> PictureAnswers:
    names = sides[0].info.labels or sides[1].info.labels
    a, b = (_answer(one, row, names) for one in scores)
    truth = None if picture.truth is None else class_name(names, picture.truth)
    if a is None or b is None:
        return PictureAnswers(picture.name, a, b, False, None, None, truth)
    given = min(int(np.isfinite(one.values[row]).sum()) for one in scores)
    five = [set(one.first(row, _TOP)) for one in scores]
    told_apart = given >= _TOP and scores[0].values.shape[1] > _TOP
    gaps = np.abs(scores[0].values[row] - scores[1].values[row])
    # Of heads that give the best classes only, those that both give.
    difference = None if np.isnan(gaps).all() else float(np.nanmax(gaps))
    return PictureAnswers(
        picture.name,
        a,
        b,
        a.index == b.index,
        five[0] == five[1] if told_apart else None,
        difference,
        truth,
    )


def _answer(scores: ClassScores, row: int, names: Sequence[str]) -> Answer | None:
    if not scores.finite[row]:
        return None
    first, *others = scores.first(row, 2)
    values = scores.values[row]
    second = float(values[others[0]]) if others else 0.0
    margin = float(values[first]) - (0.0 if np.isnan(second) else second)
    return Answer(first, class_name(names, first), float(values[first]), margin)


def _place(truth: int, row: int, scores: ClassScores) -> int:
    """Where the true class stands among the first five; 5 for behind them, or no answer."""
    best = scores.first(row, _TOP) if scores.finite[row] else []
    return best.index(truth) if truth in best else _TOP


def _labelled(places: Sequence[tuple[int, int]], *, five: bool) -> LabelledAnswers:
    ranks = np.array(places)
    first, best = ranks < 1, ranks < _TOP
    top5_a, top5_b = (int(count) if five else None for count in best.sum(axis=0))
    return LabelledAnswers(
        int(first[:, 0].sum()),
        int(first[:, 1].sum()),
        top5_a,
        top5_b,
        paired_answers(first[:, 0], first[:, 1]),
        paired_answers(best[:, 0], best[:, 1]) if five else None,
    )
