"""What ``run`` is asked, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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

    Attributes:
        mode: ``slide`` or ``whole``; None for the model's own test mode.
        stride: rows and columns between two windows; None for the model's own.
        pad: fill a picture that is smaller than a window up with zeros.
        scale: longest and shortest side to resize a picture to; ``none`` leaves its size, None
            takes the model's own.
        overlay: folder for pictures under the colours of their classes, with a legend.
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

    def require_unused(self, reason: str) -> None:
        """VIM-203 that names the first of these options that was given."""
        for item in dataclasses.fields(self):
            # An opacity of 0 was given as well.
            if getattr(self, item.name) != item.default:
                option = "--" + item.name.replace("_", "-")
                raise VimDeployError(
                    "VIM-203",
                    f"{option} is for segmentation",
                    why=reason,
                    fix=f"leave {option} away",
                )


@dataclass(frozen=True)
class RunOptions:
    """How pictures are run, and what is kept.

    Attributes:
        top: classes to give for each picture; None for five, or as many as there are. Of a
            segmentation the largest; None for every class that is there.
        batch: pictures, or windows of them, at once; None for what the artifact is made for.
        output: ``.npz`` to write the raw outputs to, or the labels of a segmentation.
        force: replace outputs.
        runner: where the artifact runs.
        scene: of a segmentation.
    """

    top: int | None = None
    batch: int | None = None
    output: OptionalPath = OptionalPath()
    force: bool = False
    runner: RunnerOptions = RunnerOptions()  # noqa: RUF009 - frozen
    scene: SceneOptions = SceneOptions()

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
