"""Average precision of two runners on the same annotated pictures, and whether one is worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

import vim_deploy
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.codec import encode, stored
from vim_deploy.errors import InputNotFoundError, UnreadableImageError, VimDeployError
from vim_deploy.files import write_json
from vim_deploy.images import batch_from_crops, fit_from, picture_from
from vim_deploy.interrupts import check
from vim_deploy.parity.average_precision import (
    BOXES,
    MASKS,
    Evaluated,
    entries,
    evaluate,
    loss_interval,
)
from vim_deploy.parity.coco_folder import CocoFolder, CocoPicture
from vim_deploy.paths import StrPath, as_path
from vim_deploy.ranges import SHARE, require_all
from vim_deploy.runtimes.base import Array, Runner, run_in_batches
from vim_deploy.scene.detections import detections_in, require_outputs
from vim_deploy.specs import OpsWay

Progress = Callable[[int, int], None]

_NAMED = 5
#: COCO's figures are stated to a tenth of a per cent: a smaller loss is none.
_LEAST_LOSS = 1e-3
#: Fewer pictures say nothing of others, and have no interval.
_LEAST_PICTURES = 10
_KINDS = {"box": BOXES, "mask": MASKS}


@dataclass(frozen=True)
class ApLimits:
    """What is demanded: largest upper bound of a loss of AP; a detectable loss always fails."""

    max_loss: float | None = None

    def __post_init__(self) -> None:
        """VIM-202 for a limit that limits nothing or is no number."""
        require_all(self, max_loss=SHARE)


@dataclass(frozen=True)
class ApFigures:
    """AP of one side, over all IoU thresholds and at 0.50 and 0.75."""

    ap: float
    ap_50: float
    ap_75: float


@stored(sparse=("mask", "ops", "kernels"))
@dataclass(frozen=True)
class SideAp:
    """One side: how many detections it gave, and their AP; ``mask`` None without masks."""

    name: str
    detections: int
    box: ApFigures
    mask: ApFigures | None = None
    ops: OpsWay | None = None
    kernels: str = ""


@stored(also=("detectable",))
@dataclass(frozen=True)
class ApDifference:
    """AP lost from reference to candidate, with a 95 % interval (``loss_interval``)."""

    loss: float
    low: float
    high: float

    @property
    def detectable(self) -> bool:
        """Whether the candidate is worse: by a figure that COCO would state, and beyond chance."""
        return self.low > 0 and self.loss >= _LEAST_LOSS

    def sentence(self, what: str) -> str:
        """The finding in words; ``what`` is the kind of AP."""
        interval = f"95 % interval {100 * self.low:.2f} to {100 * self.high:.2f} %"
        if self.detectable:
            return f"loss of {what} AP: {100 * self.loss:.2f} % ({interval})"
        return (
            f"no detectable loss of {what} AP: {100 * self.loss:.2f} %, upper bound "
            f"{100 * self.high:.2f} % ({interval})"
        )


@stored(
    head={"tool": f"vim-deploy {vim_deploy.__version__}"},
    keys=(
        "passed", "failures", "artifact", "artifact_sha256", "dataset=about_dataset", "reference",
        "candidate", "box", "mask", "method=METHOD", "limits", "statement=sentences", "notes",
        "command",
    ),
)  # fmt: skip
@dataclass(frozen=True)
class CocoReport:
    """What was compared on which pictures, and how it came out.

    Attributes:
        images: pictures that both sides have seen, with ``objects`` annotated in them.
        unreadable: name and reason of every picture that could not be read.
        box, mask: differences; ``mask`` None where a side or the annotations have none.
        classes_by, left_out, notes: as of ``parity.accuracy.AccuracyReport``.
    """

    METHOD: ClassVar[str] = (
        "AP as COCO has it, by pycocotools; 95 % interval of the loss by a paired bootstrap over "
        f"pictures, from {_LEAST_PICTURES} of them on"
    )

    artifact: str
    artifact_sha256: str
    dataset: str
    classes_by: str
    images: int
    objects: int
    unreadable: tuple[tuple[str, str], ...]
    reference: SideAp
    candidate: SideAp
    box: ApDifference
    mask: ApDifference | None
    limits: ApLimits = ApLimits()
    command: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def _differences(self) -> dict[str, ApDifference]:
        found = {"box": self.box, "mask": self.mask}
        return {what: item for what, item in found.items() if item is not None}

    @property
    def sentences(self) -> tuple[str, ...]:
        """The findings in words."""
        return tuple(item.sentence(what) for what, item in self._differences.items())

    @property
    def failures(self) -> tuple[str, ...]:
        """What is not met, as sentences."""
        found = [item.sentence(what) for what, item in self._differences.items() if item.detectable]
        limit = self.limits.max_loss
        found += [
            f"upper bound of the loss of {what} AP {100 * item.high:.2f} % is above "
            f"{100 * limit:.2f} %"
            for what, item in self._differences.items()
            if limit is not None and item.high > limit
        ]
        return tuple(found)

    @property
    def passed(self) -> bool:
        """Whether everything is met."""
        return not self.failures

    @property
    def about_dataset(self) -> dict[str, Any]:
        """The pictures, as stored."""
        return {
            "name": self.dataset,
            "classes_by": self.classes_by,
            "images": self.images,
            "objects": self.objects,
            "left_out": list(self.left_out),
            "unreadable": len(self.unreadable),
            "unreadable_images": [{"name": name, "why": why} for name, why in self.unreadable],
        }

    def write(self, path: StrPath) -> None:
        """Write it to ``path``, atomically."""
        write_json(as_path(path, "path"), encode(self))

    def require_passed(self) -> None:
        """VIM-701 when AP was lost or a limit is not met, else VIM-411 for missing pictures."""
        if self.failures:
            raise VimDeployError(
                "VIM-701",
                f"{self.candidate.name} does not do on {self.dataset} what "
                f"{self.reference.name} does",
                why="\n".join(self.failures),
                fix="check that both sides have the same weights and preparation; more pictures "
                "make the interval narrower",
            )
        if self.unreadable:
            raise VimDeployError(
                "VIM-411",
                f"{len(self.unreadable)} pictures of {self.dataset} could not be read; the AP is "
                f"that of the other {self.images}",
                why="\n".join(f"{name}: {why}" for name, why in self.unreadable[:_NAMED]),
                fix="give complete image files of 8 bits a channel, or take them out of the "
                "annotations",
            )


@dataclass
class _Collected:
    """One side's detections in all pictures, in COCO's form, by kind."""

    found: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {kind: [] for kind in _KINDS.values()}
    )
    detections: int = 0


class _Comparison:
    """Both sides on the way through a data set."""

    def __init__(
        self, reference: Runner, candidate: Runner, dataset: CocoFolder, info: ExportInfo
    ) -> None:
        self.runners, self.dataset, self.info = (reference, candidate), dataset, info
        self.kinds = [BOXES, *([MASKS] if dataset.masks and self._with_masks() else [])]
        self.sides = _Collected(), _Collected()
        self.seen: list[CocoPicture] = []
        self.unreadable: list[tuple[str, str]] = []

    def _with_masks(self) -> bool:
        return all("masks" in runner.outputs for runner in self.runners)

    def read(self, picture: CocoPicture) -> tuple[Array, tuple[int, int]] | None:
        """Its pixels in the input, and their size; None for one that cannot be read."""
        try:
            whole = picture_from(picture.path, self.info.image.channels)
            if whole.shape[:2] != (picture.height, picture.width):
                why = (
                    f"it has {whole.shape[0]} x {whole.shape[1]} pixels, the annotations say "
                    f"{picture.height} x {picture.width}"
                )
                self.unreadable.append((picture.name, why))
                return None
            return fit_from(whole, self.info.image)
        except (InputNotFoundError, UnreadableImageError) as error:
            self.unreadable.append((picture.name, error.why or error.message))
            return None

    def take(self, batch: Sequence[tuple[CocoPicture, Array, tuple[int, int]]]) -> None:
        """Run a batch on both sides."""
        images = batch_from_crops(
            [pixels for _, pixels, _ in batch], self.info.image, self.info.preprocess
        )
        sizes = np.array([size for _, _, size in batch], np.int64)
        for runner, side in zip(self.runners, self.sides, strict=True):
            outputs = _run(runner, images, sizes)
            require_outputs(outputs, self.info)
            for row, (picture, _, size) in enumerate(batch):
                values = {name: value[row] for name, value in outputs.items()}
                self._add(side, picture, values, size)
        self.seen += [picture for picture, _, _ in batch]

    def _add(
        self,
        side: _Collected,
        picture: CocoPicture,
        values: Mapping[str, Array],
        size: tuple[int, int],
    ) -> None:
        own, classes = (picture.height, picture.width), len(self.dataset.categories)
        found = detections_in(picture.name, values, own, size, classes)
        side.detections += len(found)
        for kind in self.kinds:
            side.found[kind] += entries(found, own, picture.number, self.dataset.categories, kind)

    def evaluated(self, kind: str) -> tuple[Evaluated, Evaluated]:
        """AP of both sides."""
        pictures = [
            {"id": item.number, "height": item.height, "width": item.width} for item in self.seen
        ]
        truth = [{**item, "image_id": one.number} for one in self.seen for item in one.objects]
        first, second = (
            evaluate(pictures, truth, side.found[kind], self.dataset.categories, kind)
            for side in self.sides
        )
        return first, second


def compare_coco(
    reference: Runner,
    candidate: Runner,
    dataset: CocoFolder,
    info: ExportInfo,
    batch: int,
    progress: Progress = lambda done, of: None,
) -> dict[str, Any]:
    """Run both sides over the data set; the figures for a ``CocoReport``.

    Args:
        info: of the artifact: how pictures are prepared.
        batch: pictures in memory at once.
        progress: told how many of how many pictures are done.

    Raises:
        VimDeployError: VIM-301 (pycocotools), VIM-415 (outputs that are no detections), VIM-419
            (no picture could be read, or none with an object), VIM-430 (NaN or Inf).
    """
    run = _Comparison(reference, candidate, dataset, info)
    waiting: list[tuple[CocoPicture, Array, tuple[int, int]]] = []
    for number, picture in enumerate(dataset.pictures, 1):
        read = run.read(picture)
        if read is not None:
            waiting.append((picture, *read))
        if len(waiting) == batch or (waiting and number == len(dataset.pictures)):
            run.take(waiting)
            waiting = []
        progress(number, len(dataset.pictures))
        # A library may have lost the Ctrl-C of a long run.
        check()
    objects = sum(len(picture.objects) for picture in run.seen)
    if not objects:
        raise VimDeployError(
            "VIM-419",
            f"no picture of {dataset.name} with an object could be read",
            why="\n".join(f"{name}: {why}" for name, why in run.unreadable[:_NAMED]),
            fix="give complete image files of 8 bits a channel where the annotations say",
        )
    both = {what: run.evaluated(kind) for what, kind in _KINDS.items() if kind in run.kinds}
    sides = [
        SideAp(
            runner.name,
            side.detections,
            **{what: _figures(found[place]) for what, found in both.items()},
            ops=runner.ops,
            kernels=runner.kernels,
        )
        for place, (runner, side) in enumerate(zip(run.runners, run.sides, strict=True))
    ]
    differences = {what: _difference(*found, len(run.seen)) for what, found in both.items()}
    return {
        "dataset": dataset.name,
        "classes_by": dataset.classes_by,
        "left_out": dataset.left_out,
        "notes": candidate.told,
        "images": len(run.seen),
        "objects": objects,
        "unreadable": tuple(run.unreadable),
        "reference": sides[0],
        "candidate": sides[1],
        "box": differences["box"],
        "mask": differences.get("mask"),
    }


def _figures(found: Evaluated) -> ApFigures:
    return ApFigures(*(value or 0.0 for value in (found.ap, found.ap_50, found.ap_75)))


def _difference(reference: Evaluated, candidate: Evaluated, pictures: int) -> ApDifference:
    loss = (reference.ap or 0.0) - (candidate.ap or 0.0)
    if pictures < _LEAST_PICTURES:
        return ApDifference(loss, -1.0, 1.0)
    return ApDifference(loss, *loss_interval(reference, candidate, pictures))


def _run(runner: Runner, images: Array, sizes: Array) -> dict[str, Array]:
    """Outputs for ``images``; a graph with a fixed batch gets the last one filled up."""
    count, fixed = len(images), runner.fixed_batch or 1
    rows = np.append(np.arange(count), [count - 1] * (-count % fixed)).astype(np.intp)
    size = runner.batch_within(len(rows))
    outputs = run_in_batches(runner, images[rows], size, sizes[rows])
    return {name: value[:count] for name, value in outputs.items()}
