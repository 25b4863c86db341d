"""Average precision of detections by pycocotools: against annotations, or against a reference.

COCO's definition (cocodataset.org, ``detection-eval``): the mean over classes and the IoU
thresholds 0.50, 0.55, .. 0.95 of the precision at 101 recalls; ``COCOeval`` computes it. Against a
reference, its detections are the truth: 1 when every one of them is found with an IoU of 0.95 and
none else stands before it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vim_deploy.codec import stored
from vim_deploy.errors import missing_package
from vim_deploy.installation import extra_command
from vim_deploy.parity.cases import Case
from vim_deploy.parity.comparison import are_detections
from vim_deploy.parity.detections import Side, sides_of
from vim_deploy.runtimes.base import Array, is_finite
from vim_deploy.scene.coco import compressed, run_lengths
from vim_deploy.scene.detections import Detected
from vim_deploy.scene.paste import pasted

_PACKAGE = "pycocotools"
#: What boxes and masks are called by ``COCOeval``.
BOXES, MASKS = "bbox", "segm"
#: Detections of a picture that COCO looks at.
_MOST = 100
#: Parts of the precision that are 50 and 75 % of IoU.
_AT_50, _AT_75 = 0, 5
#: Resamples of a bootstrap: the 2.5 % on each side are then five of them.
_RESAMPLES = 200


def is_installed() -> bool:
    """Whether pycocotools can be found."""
    return importlib.util.find_spec(_PACKAGE) is not None


def require_coco(what: str) -> None:
    """VIM-301 where pycocotools is not installed, which ``what`` needs."""
    if not is_installed():
        raise missing_package(_PACKAGE, "coco", what)


@dataclass(frozen=True)
class Hits:
    """The detections of one class in all pictures, by falling score, and what they are.

    Attributes:
        picture: of each, its place among the pictures: int [D].
        right, wrong: bool [thresholds, D]; neither where a detection does not count.
        objects: of each picture, how many there are to find: int [pictures].
    """

    picture: Array
    right: Array
    wrong: Array
    objects: Array


@dataclass(frozen=True)
class Evaluated:
    """Average precision of one side; None where there is nothing to find.

    Attributes:
        ap, ap_50, ap_75: over all thresholds, and at 0.5 and 0.75.
        hits: of each class, for ``resampled``.
        recalls: at which precisions are taken.
    """

    ap: float | None
    ap_50: float | None
    ap_75: float | None
    hits: tuple[Hits, ...]
    recalls: Array


def evaluate(
    pictures: Sequence[Mapping[str, Any]],
    truth: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    categories: Sequence[int],
    kind: str,
) -> Evaluated:
    """The average precision of ``found``.

    Args:
        pictures: ``id``, ``height`` and ``width`` of each.
        truth: annotations in COCO's form; of ``BOXES`` no ``segmentation`` is needed.
        found: the same with a ``score``.
        categories: numbers of the classes.
        kind: ``BOXES`` or ``MASKS``.

    Raises:
        VimDeployError: VIM-301.
    """
    require_coco("average precision")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    classes = [{"id": number, "name": str(number)} for number in categories]
    sides = []
    # It says what it does, on standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        for annotations in (truth, found):
            side = COCO()
            numbered = [{**item, "id": place} for place, item in enumerate(annotations, 1)]
            side.dataset = {
                "images": [dict(item) for item in pictures],
                "annotations": numbered,
                "categories": classes,
            }
            side.createIndex()
            sides.append(side)
        run = COCOeval(*sides, kind)
        run.params.imgIds = [item["id"] for item in pictures]
        run.params.catIds = list(categories)
        # All sizes of objects together, and as many detections as there are.
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.params.maxDets = [max(_MOST, _most_of_a_picture(found))]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][..., 0, 0]
    return Evaluated(
        _mean(precision),
        _mean(precision[_AT_50]),
        _mean(precision[_AT_75]),
        tuple(_hits(run, number) for number in range(len(categories))),
        np.asarray(run.params.recThrs),
    )


def _most_of_a_picture(found: Sequence[Mapping[str, Any]]) -> int:
    pictures = [item["image_id"] for item in found]
    return int(np.unique(pictures, return_counts=True)[1].max()) if pictures else 0


def _mean(precision: Array) -> float | None:
    """Of what is defined: classes without an object have -1."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _hits(run: Any, number: int) -> Hits:  # noqa: ANN401 - of an untyped module
    """What ``COCOeval.evaluate`` found out about class ``number``, by falling score."""
    count = len(run.params.imgIds)
    each = run.evalImgs[number * count : (number + 1) * count]
    known = [(place, item) for place, item in enumerate(each) if item is not None]
    objects = np.zeros(count, np.int64)
    for place, item in known:
        objects[place] = int((np.asarray(item["gtIgnore"]) == 0).sum())
    scores = np.concatenate([item["dtScores"] for _, item in known] or [np.zeros(0)])
    # As ``COCOeval.accumulate`` sorts them.
    order = np.argsort(-scores, kind="mergesort")
    rows = [np.full(len(item["dtScores"]), place) for place, item in known]
    empty = np.zeros((len(run.params.iouThrs), 0), np.bool_)
    matched, ignored = (
        np.concatenate([empty, *(item[key].astype(np.bool_) for _, item in known)], axis=1)
        for key in ("dtMatches", "dtIgnore")
    )
    return Hits(
        np.concatenate([*rows, np.zeros(0)])[order].astype(np.int64),
        (matched & ~ignored)[:, order],
        (~matched & ~ignored)[:, order],
        objects,
    )


def resampled(side: Evaluated, times: Array) -> float | None:
    """The average precision where each picture is there ``times`` [pictures] over.

    As ``COCOeval.accumulate``, with every detection counted as often as its picture.
    """
    found = []
    for hits in side.hits:
        objects = float((hits.objects * times).sum())
        if not objects:
            continue
        weights = times[hits.picture]
        right, wrong = (np.cumsum(marks * weights, axis=1) for marks in (hits.right, hits.wrong))
        seen = right + wrong
        precision = np.divide(right, seen, out=np.zeros_like(right), where=seen > 0)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        taken = np.zeros((len(best), len(side.recalls)))
        for row, recall in enumerate(right / objects):
            places = np.searchsorted(recall, side.recalls, side="left")
            inside = places < recall.size
            taken[row, inside] = best[row, places[inside]]
        found.append(taken.mean())
    return float(np.mean(found)) if found else None


def loss_interval(
    reference: Evaluated, candidate: Evaluated, pictures: int, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of what the candidate loses against the reference.

    The paired bootstrap over pictures (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, section 13.3): both sides are computed for the same pictures, drawn with replacement.
    """
    generator = np.random.default_rng(seed)
    losses = []
    for _ in range(_RESAMPLES):
        drawn = generator.integers(0, pictures, pictures)
        times = np.bincount(drawn, minlength=pictures).astype(np.float64)
        both = [resampled(side, times) for side in (reference, candidate)]
        if both[0] is not None and both[1] is not None:
            losses.append(both[0] - both[1])
    if not losses:
        return 0.0, 0.0
    low, high = np.quantile(losses, (0.025, 0.975))
    return float(low), float(high)


def box_entry(box: Array) -> dict[str, Any]:
    """COCO's ``bbox`` (left, top, width, height) and ``area`` of left, top, right and bottom."""
    left, top, right, bottom = (float(side) for side in box)
    sides = [left, top, right - left, bottom - top]
    return {"bbox": sides, "area": sides[2] * sides[3], "iscrowd": 0}


def mask_entry(mask: Array, box: Array, size: tuple[int, int]) -> dict[str, Any] | None:
    """COCO's ``segmentation`` of a mask on a picture of ``size``; None for one without a pixel."""
    painted = pasted(mask, box, size)
    if not painted.count:
        return None
    counts = compressed(run_lengths(painted, size))
    return {
        "segmentation": {"size": list(size), "counts": counts},
        "area": float(painted.count),
        "iscrowd": 0,
    }


def entries(
    side: Side | Detected, size: tuple[int, int], picture: int, categories: Sequence[int], kind: str
) -> Iterator[dict[str, Any]]:
    """The detections of a picture as COCO's annotations; those without an area or pixel left out.

    Args:
        side: boxes within the picture.
        size: its height and width.
        picture: its id.
        categories: number of each class.
        kind: ``BOXES`` or ``MASKS``.
    """
    for row in range(len(side)):
        box = side.boxes[row]
        if not (box[2:] > box[:2]).all() or not 0 <= side.classes[row] < len(categories):
            continue
        shape: dict[str, Any] | None = box_entry(box)
        if kind == MASKS:
            assert side.masks is not None
            shape = mask_entry(side.masks[row], box, size)
        if shape is not None:
            category = categories[int(side.classes[row])]
            score = float(side.scores[row])
            yield {"image_id": picture, "category_id": category, "score": score, **shape}


@stored(sparse=("masks",))
@dataclass(frozen=True)
class ParityAp:
    """Average precision with the reference's detections as truth.

    Attributes:
        pictures: how many there were, and ``detections`` of the reference in them.
        boxes: of boxes.
        masks: of masks on the picture within the input; None without. Masks without a pixel are on
            neither side: nobody could find them.
    """

    pictures: int
    detections: int
    boxes: float
    masks: float | None = None

    @property
    def in_words(self) -> str:
        """The figures."""
        masks = "" if self.masks is None else f", mask AP {self.masks:.4f}"
        return (
            f"with the reference's {self.detections} detections in {self.pictures} pictures as "
            f"truth: box AP {self.boxes:.4f}{masks}"
        )


class ParityPrecision:
    """Collects both sides' detections on pictures, for ``ParityAp``.

    Attributes:
        notes: why there is none, where there should be.
    """

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()
        self._truth: dict[str, list[dict[str, Any]]] = {BOXES: [], MASKS: []}
        self._found: dict[str, list[dict[str, Any]]] = {BOXES: [], MASKS: []}
        self._pictures: list[dict[str, Any]] = []
        self._classes = 0

    def add(self, case: Case, expected: Mapping[str, Array], found: Mapping[str, Array]) -> None:
        """What both sides give for a case; only that of pictures is taken."""
        if case.sizes is None or not (are_detections(expected) and are_detections(found)):
            return
        if not case.pictures:
            return
        if not is_installed():
            self.notes = (f"no average precision: {extra_command('coco')}",)
            return
        floats = [
            side[name]
            for side in (expected, found)
            for name in ("boxes", "scores", "masks")
            if name in side
        ]
        if not all(map(is_finite, floats)):
            return
        sides = sides_of(expected, "the reference"), sides_of(found, "the artifact")
        kinds = [BOXES, *([MASKS] if "masks" in expected and "masks" in found else [])]
        labels = [side.classes.max(initial=-1) for each in sides for side in each]
        self._classes = max(self._classes, int(max(labels)) + 1)
        categories = range(1, self._classes + 1)
        for truth, other, size in zip(*sides, case.sizes.tolist(), strict=True):
            number, shape = len(self._pictures) + 1, (int(size[0]), int(size[1]))
            self._pictures.append({"id": number, "height": shape[0], "width": shape[1]})
            for kind in kinds:
                for side, taken in ((truth, self._truth), (other, self._found)):
                    taken[kind] += entries(side, shape, number, categories, kind)

    def result(self) -> ParityAp | None:
        """The figures; None without a detection of the reference."""
        figures = {
            kind: evaluate(
                self._pictures, truth, self._found[kind], range(1, self._classes + 1), kind
            ).ap
            for kind, truth in self._truth.items()
            if truth
        }
        boxes = figures.get(BOXES)
        if boxes is None:
            return None
        count = len(self._truth[BOXES])
        return ParityAp(len(self._pictures), count, boxes, figures.get(MASKS))
