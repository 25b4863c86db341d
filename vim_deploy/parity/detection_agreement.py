"""Two detectors on the same pictures: detections that belong together, and what is left over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vim_deploy.codec import stored
from vim_deploy.errors import InputNotFoundError, UnreadableImageError, VimDeployError
from vim_deploy.images import batch_from_crops, fit_from, picture_from
from vim_deploy.interrupts import check
from vim_deploy.parity.accuracy import Progress
from vim_deploy.parity.advice import Quality
from vim_deploy.parity.agreement import OpenSide, Picture, Unread, unanswered
from vim_deploy.parity.detections import compare_detections
from vim_deploy.parity.limits import DetectionLimits, detection_limits
from vim_deploy.runtimes.base import Array, run_padded
from vim_deploy.scene.detections import Detected, detections_in, detector_of, require_outputs
from vim_deploy.scene.thumbnails import Foremost, Thumbnails, boxed

#: Pictures that a page shows.
SHOWN = 24


@stored(sparse=("no_answer",))
@dataclass(frozen=True)
class PictureDetections:
    """Both sides' detections in one picture.

    Attributes:
        file: name within the folder.
        a, b: how many each side has.
        matched: pairs of both, of one class and place.
        only: of those that one side alone has, those that no decision too near to tell explains.
        box, score, mask: largest differences of the pairs: pixels of the input, score, mask value;
            None without pairs, or masks.
        worst: the largest of these as a multiple of what rounding explains.
        no_answer: why a side gave none.
    """

    file: str
    a: int
    b: int
    matched: int
    only: int
    box: float | None
    score: float | None
    mask: float | None
    worst: float = 0.0
    no_answer: str = ""

    @property
    def alone(self) -> int:
        """Detections that one side alone has."""
        return self.a + self.b - 2 * self.matched

    @property
    def figure(self) -> float:
        """How much of the picture changes: those alone count first; 0 for nothing to look at."""
        return self.alone + (self.worst / (1 + self.worst) if self.worst > 1 else 0.0)


@stored(
    head={"kind": "detections"},
    keys=(
        "images", "detections_a", "detections_b", "matched", "missing", "extra", "only", "box",
        "score", "mask", "disagreement", "no_answer_a", "no_answer_b", "box_limit", "score_limit",
        "changed", "pictures",
    ),
)  # fmt: skip
@dataclass(frozen=True)
class DetectionAgreement:
    """What came of all pictures.

    Attributes:
        pictures: each of them.
        limits: of the coarser of both files' precisions.
        no_answer_a, no_answer_b: pictures that a side gave no numbers for.
    """

    pictures: tuple[PictureDetections, ...]
    limits: DetectionLimits
    no_answer_a: int = 0
    no_answer_b: int = 0

    @property
    def images(self) -> int:
        """How many both sides have seen."""
        return len(self.pictures)

    @property
    def detections_a(self) -> int:
        """Of A in all pictures."""
        return sum(item.a for item in self.pictures)

    @property
    def detections_b(self) -> int:
        """Of B in all pictures."""
        return sum(item.b for item in self.pictures)

    @property
    def matched(self) -> int:
        """Pairs of both."""
        return sum(item.matched for item in self.pictures)

    @property
    def missing(self) -> int:
        """Of A's, those that B has not."""
        return self.detections_a - self.matched

    @property
    def extra(self) -> int:
        """Of B's, those that A has not."""
        return self.detections_b - self.matched

    @property
    def only(self) -> int:
        """Of missing and extra, those that no decision too near to tell explains."""
        return sum(item.only for item in self.pictures)

    def _largest(self, figures: Sequence[float | None]) -> float | None:
        return max((figure for figure in figures if figure is not None), default=None)

    @property
    def box(self) -> float | None:
        """Largest difference of a box's side, in pixels of the input."""
        return self._largest([item.box for item in self.pictures])

    @property
    def score(self) -> float | None:
        """Largest difference of a score."""
        return self._largest([item.score for item in self.pictures])

    @property
    def mask(self) -> float | None:
        """Largest difference of a mask's value."""
        return self._largest([item.mask for item in self.pictures])

    @property
    def box_limit(self) -> float:
        """What rounding may do to a box's side."""
        return self.limits.boxes

    @property
    def score_limit(self) -> float:
        """What rounding may do to a score."""
        return self.limits.scores

    @property
    def disagreement(self) -> float:
        """Share of all detections that one side alone has; 1 without an answer to any picture."""
        every = self.matched + self.missing + self.extra
        if not every:
            return 1.0 if self.no_answer_a or self.no_answer_b else 0.0
        return (self.missing + self.extra) / every

    @property
    def loss_bound(self) -> None:
        """Nothing here knows the true objects."""

    @property
    def changed(self) -> tuple[str, ...]:
        """Pictures by name, those with the most detections of one side alone first.

        Those whose boxes, scores or masks differ by more than rounding explains come behind them.
        """
        found = [item for item in self.pictures if item.figure]
        return tuple(item.file for item in sorted(found, key=lambda item: -item.figure))

    @property
    def sentences(self) -> tuple[str, ...]:
        """The findings in words."""
        found = [
            f"{self.matched} of {self.detections_a} detections of A are B's, too; {self.missing} "
            f"are missing and {self.extra} more; {self.only} of these beyond what rounding explains"
        ]
        if self.box is not None and self.score is not None:
            mask = "" if self.mask is None else f", a mask's value by {self.mask:.2g}"
            found.append(
                f"where both have one, a box's side differs by {self.box:.2g} px at most, a score "
                f"by {self.score:.2g}{mask}"
            )
        for side, count in (("A", self.no_answer_a), ("B", self.no_answer_b)):
            if count:
                found.append(f"{side} gives NaN or Inf for {count} of {self.images} pictures")
        return tuple(found)

    def quality(self, bound: float) -> Quality:
        """What the answers say of B; limits are those of the precision, whatever ``bound`` is."""
        if broken := unanswered(self.no_answer_a, self.no_answer_b, "gives NaN or Inf"):
            return broken
        if not self.detections_a and not self.detections_b:
            return Quality("too few", "neither side finds anything in these pictures")
        all_of = f"the same {self.matched} detections in {self.images} pictures"
        if not self.only and self._within():
            if not self.missing and not self.extra:
                return Quality("same", f"{all_of}, within {self._limits}")
            alone = f"{self.missing} missing and {self.extra} more were too near a cut to tell"
            return Quality("as good", f"{self.matched} detections agree, {alone}")
        alone = f"{self.missing} of {self.detections_a} detections are missing, {self.extra} more"
        apart = f"boxes, scores or masks differ by more than rounding explains ({self._limits})"
        parts = [alone] * bool(self.only) + [apart] * (not self._within())
        return Quality("different", ", and ".join(parts))

    @property
    def _limits(self) -> str:
        return self.limits.in_words()

    def _within(self) -> bool:
        return all(item.worst <= 1 for item in self.pictures)


def compare_found(
    sides: tuple[OpenSide, OpenSide],
    pictures: Sequence[Picture],
    precision: str,
    progress: Progress = lambda done, of: None,
    small: Thumbnails | None = None,
) -> tuple[DetectionAgreement, tuple[Unread, ...]]:
    """Run both sides over the pictures, one at a time.

    Args:
        sides: A and B, of the same input size.
        pictures: of any size.
        precision: the coarser of both files'.
        progress: told how many of how many are done.
        small: takes up the pictures with the most detections of one side alone, with the boxes of
            both.

    Raises:
        VimDeployError: VIM-415 (outputs that are not the head's); errors of the runners.
    """
    limits = detection_limits(precision, sides[0].info)
    foremost, unread = Foremost(SHOWN), list[Unread]()
    found: list[PictureDetections] = []
    failed = [0, 0]
    for number, picture in enumerate(pictures, 1):
        try:
            pixels = picture_from(picture.path, sides[0].info.image.channels)
        except (InputNotFoundError, UnreadableImageError) as error:
            unread.append(Unread(picture.name, error.why or error.message))
            continue
        answers = [_answer(side, picture, pixels) for side in sides]
        whys = [
            f"{name}: {one.why or one.message}"
            for name, one in zip("AB", answers, strict=True)
            if isinstance(one, VimDeployError)
        ]
        for place, one in enumerate(answers):
            failed[place] += isinstance(one, VimDeployError)
        a, b = answers
        if isinstance(a, VimDeployError) or isinstance(b, VimDeployError):
            lost = PictureDetections(
                picture.name, 0, 0, 0, 0, None, None, None, 0.0, "; ".join(whys)
            )
            found.append(lost)
        else:
            entry = _compared(picture.name, a, b, limits)
            found.append(entry)
            if foremost.takes(entry.figure):
                drawn = boxed(pixels, a.found.boxes, b.found.boxes)
                foremost.add(entry.figure, picture.name, drawn)
        progress(number, len(pictures))
        # A library may have lost the Ctrl-C of a long run.
        check()
    if small is not None:
        foremost.give(small)
    return DetectionAgreement(tuple(found), limits, *failed), tuple(unread)


@dataclass(frozen=True)
class _Answer:
    """Outputs for one picture as they are, and what they mean in its own pixels."""

    outputs: dict[str, Array]
    found: Detected


def _answer(side: OpenSide, picture: Picture, pixels: Array) -> _Answer | VimDeployError:
    info = side.info
    if pixels.shape[2] != info.image.channels:
        pixels = picture_from(picture.path, info.image.channels)
    crop, run = fit_from(pixels, info.image)
    images = batch_from_crops([crop], info.image, info.preprocess)
    outputs = run_padded(side.runner, images, np.array([run], np.int64))
    require_outputs(outputs, info)
    row = {name: values[0] for name, values in outputs.items()}
    own = pixels.shape[0], pixels.shape[1]
    try:
        classes = detector_of(info).num_classes
        return _Answer(outputs, detections_in(picture.name, row, own, run, classes))
    except VimDeployError as error:
        return error


def _compared(name: str, a: _Answer, b: _Answer, limits: DetectionLimits) -> PictureDetections:
    compared = {item.output: item for item in compare_detections(a.outputs, b.outputs, limits)}
    matched = compared["detections"].found
    assert matched is not None
    box, score, mask = (
        compared[key].max_abs if key in compared else None for key in ("boxes", "scores", "masks")
    )
    pairs = zip((box, score, mask), (limits.boxes, limits.scores, limits.masks), strict=True)
    worst = max(0.0 if found is None or not limit else found / limit for found, limit in pairs)
    counts = (matched.reference, matched.candidate, matched.matched, matched.unexcused)
    return PictureDetections(name, *counts, box, score, mask, worst)
