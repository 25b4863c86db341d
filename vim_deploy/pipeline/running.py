"""Run: pictures in, the best classes of each out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vim_deploy.errors import VimDeployError
from vim_deploy.files import atomic_output, require_writable_place, single_writer
from vim_deploy.images import Pixels, batch_from_crops, crop_from_file, find_images
from vim_deploy.pipeline.opening import Opened, RunnerOptions, opened, require_info
from vim_deploy.run.base import Array, Runner, run_padded
from vim_deploy.run.top_k import Prediction, has_classes, top_predictions
from vim_deploy.specs import ExportInfo, ImagePreparation

#: Pictures at once where the artifact leaves the choice.
DEFAULT_BATCH = 8
#: Key of the file names in a written .npz; outputs stand under their own names.
FILES_KEY = "image_files"


@dataclass(frozen=True)
class RunOptions:
    """How pictures are run, and what is kept.

    Attributes:
        top: classes to give for each picture; None for five, or as many as there are.
        batch: pictures at once; None for what the artifact is made for.
        output: ``.npz`` to write the raw outputs to.
        force: replace it.
        runner: where the artifact runs.
    """

    top: int | None = None
    batch: int | None = None
    output: Path | None = None
    force: bool = False
    runner: RunnerOptions = RunnerOptions()  # noqa: RUF009 - frozen


@dataclass(frozen=True)
class ImageResult:
    """A picture's file and its best classes; none where the head gives no class scores."""

    file: str
    top: tuple[Prediction, ...]


@dataclass(frozen=True)
class ImageFailure:
    """A picture that could not be read, and why."""

    file: str
    code: str
    message: str
    why: str


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

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return dataclasses.asdict(self)

    def require_complete(self) -> None:
        """VIM-411 that counts and names the pictures that could not be read."""
        if not self.failures:
            return
        total = len(self.images) + len(self.failures)
        raise VimDeployError(
            "VIM-411",
            f"{len(self.failures)} of {total} pictures could not be read; "
            "the results of the others are complete",
            why="\n".join(f"{item.message}: {item.why}" for item in self.failures),
            fix="give complete 8-bit image files, or take these out",
        )


def run(
    artifact: Path, images: Path | Sequence[Path], options: RunOptions | None = None
) -> RunResult:
    """Run pictures through an exported file or engine.

    Args:
        artifact: made by ``export`` or ``build_engine``; says how pictures are prepared.
        images: files and folders of pictures.
        options: what to give, and where to run.

    Returns:
        One result for each readable picture. ``require_complete`` raises VIM-411 when there were
        others.

    Raises:
        VimDeployError: VIM-202 (more classes wanted than there are), VIM-203 (the head gives no
            class scores and no output file is named), VIM-204 (that file exists), VIM-401 (no such
            picture), VIM-410 (the artifact does not say how pictures are prepared), VIM-415; errors
            of the runner.
    """
    options = options or RunOptions()
    files = _files([images] if isinstance(images, Path) else images)
    _require_free(options)
    settings = dataclasses.replace(options.runner, max_batch=options.batch)
    with opened(artifact, settings) as found:
        info = require_info(found, artifact.name)
        batch = batch_size(found.runner, options.batch)
        job = _Job(found, info, options, batch)
        job.run(files)
        return job.result(artifact.name)


def batch_size(runner: Runner, asked: int | None) -> int:
    """Pictures at once: what was asked for, else the artifact's own fixed or tuned batch."""
    fixed = runner.input.shape[0]
    if isinstance(fixed, int):
        if asked not in (None, fixed):
            raise VimDeployError(
                "VIM-415",
                f"batch size {asked} was asked for, but the artifact's batch is fixed",
                why=f"it takes {fixed} pictures at once; fewer are filled up",
                fix="leave --batch away, or export the model with --batch dynamic",
            )
        return fixed
    return asked or int(getattr(runner, "usual_batch", DEFAULT_BATCH))


def _files(images: Sequence[Path]) -> list[Path]:
    """Every picture once, in the order given."""
    if not images:
        raise VimDeployError("VIM-202", "no pictures given", fix="name files or folders")
    return list(dict.fromkeys(file for path in images for file in find_images(path)))


def _require_free(options: RunOptions) -> None:
    path = options.output
    if path is None:
        return
    if path.suffix != ".npz":
        raise VimDeployError("VIM-202", f"{path} is not an .npz file", fix="-o NAME.npz")
    require_writable_place(path)
    if path.exists() and not options.force:
        raise VimDeployError(
            "VIM-204",
            f"{path} exists",
            why="outputs of a run are not compared with earlier ones",
            fix="add --force to replace it, or choose another output with -o",
        )


class _Job:
    """One run over many batches: collects results, failures and, when asked for, raw outputs."""

    def __init__(self, found: Opened, info: ExportInfo, options: RunOptions, batch: int) -> None:
        self._found, self._info, self._options, self._batch = found, info, options, batch
        self._good: list[ImageResult] = []
        self._failures: list[ImageFailure] = []
        self._raw: list[dict[str, Array]] = []

    def run(self, files: Sequence[Path]) -> None:
        for names, crops in self._batches(files):
            pixels = batch_from_crops(crops, self._info.image, self._info.preprocess)
            outputs = run_padded(self._found.runner, pixels)
            self._take(names, outputs)
        if self._options.output is not None and self._good:
            _write(self._options.output, [item.file for item in self._good], self._raw)

    def _batches(self, files: Sequence[Path]) -> Iterator[tuple[list[str], list[Pixels]]]:
        names: list[str] = []
        crops: list[Pixels] = []
        for file in files:
            crop = self._crop(file, self._info.image)
            if crop is None:
                continue
            names.append(str(file))
            crops.append(crop)
            if len(crops) == self._batch:
                yield names, crops
                names, crops = [], []
        if crops:
            yield names, crops

    def _crop(self, file: Path, preparation: ImagePreparation) -> Pixels | None:
        """The picture, or None after noting that this one cannot be read."""
        try:
            return crop_from_file(file, preparation)
        except VimDeployError as error:
            if error.code != "VIM-411":
                raise
            self._failures.append(ImageFailure(str(file), error.code, error.message, error.why))
            return None

    def _take(self, names: list[str], outputs: dict[str, Array]) -> None:
        head, options = self._info.head, self._options
        shapes = {name: value.shape for name, value in outputs.items()}
        if has_classes(head, shapes):
            tops = top_predictions(head, outputs, self._info.labels, options.top)
        else:
            _require_output(head, shapes, options)
            tops = [()] * len(names)
        self._good += [ImageResult(*pair) for pair in zip(names, tops, strict=True)]
        if options.output is not None:
            self._raw.append(outputs)

    def result(self, name: str) -> RunResult:
        written = self._options.output if self._good else None
        return RunResult(
            artifact=name,
            runtime=self._found.runner.name,
            head=self._info.head,
            images=tuple(self._good),
            failures=tuple(self._failures),
            output=None if written is None else str(written),
            notes=self._found.notes,
        )


def _require_output(head: str, shapes: dict[str, tuple[int, ...]], options: RunOptions) -> None:
    described = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    if options.top is not None:
        raise VimDeployError(
            "VIM-203",
            f"the head {head} gives no class scores to take the best {options.top} of",
            why=f"outputs: {described}",
            fix="leave --top away and write the outputs with -o FILE.npz",
        )
    if options.output is None:
        raise VimDeployError(
            "VIM-203",
            f"the head {head} gives no class scores to print",
            why=f"outputs: {described}",
            fix="write the outputs with -o FILE.npz",
        )


def _write(path: Path, names: list[str], parts: list[dict[str, Array]]) -> None:
    joined: dict[str, Any] = {FILES_KEY: np.array(names)}
    joined |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    with single_writer(path), atomic_output(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **joined)
