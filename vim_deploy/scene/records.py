"""What ``run`` is asked, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.paths import OptionalPath
from vim_deploy.ranges import BATCH, COUNT, IMAGE_SIDE, PIXELS, SHARE, require_all
from vim_deploy.runtimes.base import Runner, RunnerOptions
from vim_deploy.scene.classes import ClassArea

#: Key of the file names in a written .npz; outputs stand under their own names.
FILES_KEY = "image_files"


@dataclass(frozen=True)
class SceneOptions:
    """How a segmentation model runs on pictures of any size, and what is drawn.

    Of a detector ``overlay`` and ``opacity`` have a meaning, too.

    Attributes:
        mode: ``slide`` or ``whole``; None for the model's own test mode.
        stride: rows and columns between two windows; None for the model's own.
        pad: fill a picture that is smaller than a window up with zeros.
        scale: longest and shortest side to resize a picture to; ``none`` leaves its size, None
            takes the model's own.
        overlay: folder for pictures under the colours of their classes, with a legend; of a
            detector with boxes, names, scores and masks.
        opacity: of the colours, 0 to 1; None for a half.
        save_labels: folder for plain label pictures.
    """

    mode: str | None = None
    stride: tuple[int, int] | None = None
    pad: bool = False
    scale: tuple[int, int] | Literal["none"] | None = None
    overlay: OptionalPath = OptionalPath()
    opacity: float | None = None
    save_labels: OptionalPath = OptionalPath()

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, stride=IMAGE_SIDE, opacity=SHARE)
        if self.scale != "none":
            require_all(self, scale=PIXELS)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where pictures are written."""
        return tuple(folder for folder in (self.overlay, self.save_labels) if folder is not None)

    def require_unused(self, reason: str, kept: Collection[str] = ()) -> None:
        """VIM-203 that names the first of these options that was given, ``kept`` ones apart."""
        for item in dataclasses.fields(self):
            if item.name not in kept:
                purpose = "segmentation" + (" and detection" if item.name in DRAWN else "")
                _require_default(self, item, purpose, reason)

    def require_overlay(self) -> None:
        """VIM-203 for an opacity of nothing."""
        if self.opacity is not None and self.overlay is None:
            raise VimDeployError(
                "VIM-203",
                "--opacity is for overlays, and none is asked for",
                fix="add --overlay FOLDER, or leave --opacity away",
            )


#: Fields of ``SceneOptions`` that a detector knows as well.
DRAWN = ("overlay", "opacity")


@dataclass(frozen=True)
class DetectionOptions:
    """What of a detector's detections is kept.

    Attributes:
        score: those with a higher score; None for all that the model gives, which has a threshold
            of its own.
        coco: ``.json`` file for them in the format of COCO's results.
    """

    score: float | None = None
    coco: OptionalPath = OptionalPath()

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, score=SHARE)

    def require_unused(self, reason: str) -> None:
        """VIM-203 that names the first of these options that was given."""
        for item in dataclasses.fields(self):
            _require_default(self, item, "detection", reason)


def _require_default(
    options: SceneOptions | DetectionOptions,
    item: dataclasses.Field[Any],
    purpose: str,
    reason: str,
) -> None:
    # An opacity of 0 was given as well.
    if getattr(options, item.name) != item.default:
        option = "--" + item.name.replace("_", "-")
        raise VimDeployError(
            "VIM-203", f"{option} is for {purpose}", why=reason, fix=f"leave {option} away"
        )


@dataclass(frozen=True)
class RunOptions:
    """How pictures are run, and what is kept.

    Attributes:
        top: classes to give for each picture; None for five, or as many as there are. Of a
            segmentation the largest; None for every class that is there. Of a detector the best
            detections, for all that is made of them; None for all.
        batch: pictures, or windows of them, at once; None for what the artifact is made for.
        output: ``.npz`` to write the raw outputs to, the labels of a segmentation, or detections.
        force: replace outputs.
        runner: where the artifact runs.
        scene: of a segmentation.
        detection: of a detector.
    """

    top: int | None = None
    batch: int | None = None
    output: OptionalPath = OptionalPath()
    force: bool = False
    runner: RunnerOptions = RunnerOptions()  # noqa: RUF009 - frozen
    scene: SceneOptions = SceneOptions()
    detection: DetectionOptions = DetectionOptions()

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, top=COUNT, batch=BATCH)


@dataclass(frozen=True)
class Prediction:
    """One class of an image: index, name (empty when the file has none), probability."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class ImageResult:
    """A picture's file and its best classes; none where the head gives no class scores."""

    file: str
    top: tuple[Prediction, ...]


@dataclass(frozen=True)
class SceneResult(ImageResult):
    """A segmented picture.

    Attributes:
        height, width: of the picture, upright, and of its labels.
        run_height, run_width: the size it was run at.
        windows: how many of them were run.
        classes: how many classes are in it.
        areas: these classes, the largest first; as many as were asked for.
        overlay, labels: files that were written.
    """

    height: int
    width: int
    run_height: int
    run_width: int
    windows: int
    classes: int
    areas: tuple[ClassArea, ...]
    overlay: str | None = None
    labels: str | None = None


@dataclass(frozen=True)
class Detection:
    """One object in a picture.

    Attributes:
        index, label: of its class; ``class N`` where the file has no name for it.
        score: 0 to 1.
        box: left, top, right and bottom in pixels of the picture.
        pixels: of its mask; None where the model gives none.
    """

    index: int
    label: str
    score: float
    box: tuple[float, float, float, float]
    pixels: int | None


@dataclass(frozen=True)
class DetectedImage(ImageResult):
    """A picture's detections.

    Attributes:
        height, width: of the picture, upright; boxes and masks are in its pixels.
        run_height, run_width: the size it was run at, within the model's square input.
        found: how many detections there are, more than are listed where fewer were asked for.
        detections: the best first.
        overlay: the file that was written.
    """

    height: int
    width: int
    run_height: int
    run_width: int
    found: int
    detections: tuple[Detection, ...]
    overlay: str | None = None


@dataclass(frozen=True)
class ImageFailure:
    """A picture that gave no result, and why."""

    file: str
    code: str
    message: str
    why: str
    fix: str = ""

    def __str__(self) -> str:
        named = self.message if self.file in self.message else f"{self.file}: {self.message}"
        return f"{named}: {self.why}"


@dataclass(frozen=True)
class RunResult:
    """What came out, in the order of the pictures."""

    artifact: str
    runtime: str
    head: str
    images: tuple[ImageResult, ...]
    failures: tuple[ImageFailure, ...] = ()
    output: str | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    def require_complete(self) -> None:
        """Raise an error that counts and names the pictures without a result.

        Its code is theirs where they share one, else VIM-411.
        """
        if not self.failures:
            return
        codes = {item.code for item in self.failures}
        total = len(self.images) + len(self.failures)
        what = "read" if codes <= {"VIM-401", "VIM-411"} else "run"
        raise VimDeployError(
            codes.pop() if len(codes) == 1 else "VIM-411",
            f"{len(self.failures)} of {total} pictures could not be {what}; "
            "the results of the others are complete",
            why="\n".join(map(str, self.failures)),
            fix="; ".join(dict.fromkeys(item.fix for item in self.failures if item.fix)),
        )


@dataclass(frozen=True)
class SegmentationResult(RunResult):
    """What came out of a segmentation model; ``images`` are ``SceneResult``.

    Attributes:
        scene: how pictures were run: mode, window, stride, scale, pad.
        colours: red, green and blue of every class in ``areas``, by its index.
    """

    images: tuple[SceneResult, ...]
    scene: dict[str, Any] = field(default_factory=dict)
    colours: dict[int, tuple[int, int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class CocoFile:
    """What was written in COCO's formats.

    Attributes:
        results: a list of detections, as ``COCO.loadRes`` takes it.
        images: pictures with their ids and sizes, and categories, as ``COCO`` takes it.
        image_ids: what ids are: the number at the end of each ``file name``, or the place of each
            picture in the ``order`` given, from 1.
        category_ids: ``coco``, the numbers 1 to 90 of COCO's own 80 classes, or ``index + 1``.
    """

    results: str
    images: str
    image_ids: Literal["file name", "order"]
    category_ids: Literal["coco", "index + 1"]


@dataclass(frozen=True)
class DetectionResult(RunResult):
    """What came out of a detector; ``images`` are ``DetectedImage``.

    Attributes:
        score: every detection's is above it: what was asked for, or the model's own threshold.
        colours: red, green and blue of every class in ``detections``, by its index.
        coco: the files that were written; None without.
    """

    images: tuple[DetectedImage, ...]
    score: float = 0.0
    colours: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    coco: CocoFile | None = None


class Job:
    """One run over many pictures; collects what every result tells.

    Args:
        runner: of the artifact.
        info: what it says about itself.
        options: of the run.
        batch: pictures, or windows of them, at once.
    """

    def __init__(self, runner: Runner, info: ExportInfo, options: RunOptions, batch: int) -> None:
        self.runner, self.info, self.options, self.batch = runner, info, options, batch
        self._failures: list[ImageFailure] = []

    def fail(self, file: str, error: VimDeployError) -> None:
        """Note that this picture gives no result, and go on with the others."""
        failure = ImageFailure(file, error.code, error.message, error.why, error.fix)
        self._failures.append(failure)

    def told(self, artifact: str, images: Sequence[ImageResult], *notes: str) -> dict[str, Any]:
        """The fields of ``RunResult``."""
        written = self.options.output if images else None
        return {
            "artifact": artifact,
            "runtime": self.runner.name,
            "head": self.info.head,
            "images": tuple(images),
            "failures": tuple(self._failures),
            "output": None if written is None else str(written),
            "notes": (*self.runner.notes, *notes),
        }
