"""Run: pictures in, the best classes of each out, a class for each pixel, or objects in boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import of_file
from vim_deploy.images import Source
from vim_deploy.paths import StrPath, as_path
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import Runner
from vim_deploy.scene.classifying import ClassesJob
from vim_deploy.scene.detecting import DetectionsJob
from vim_deploy.scene.labelling import LabelsJob
from vim_deploy.scene.pictures import Pictures, pictures, require_free
from vim_deploy.scene.records import DRAWN, RunOptions, RunResult

#: Pictures, or windows of them, at once where the artifact leaves the choice; a detector runs one
#: at a time then: each takes memory for its thousand regions.
DEFAULT_BATCH = 8


def run(
    artifact: StrPath | Artifact, images: Pictures, options: RunOptions | None = None
) -> RunResult:
    """Run pictures through an exported file or engine.

    Args:
        artifact: made by ``export`` or ``build_engine``; says how pictures are prepared.
        images: one picture or several: files and folders; uint8 arrays [height, width],
            [height, width, 1] or [height, width, 3] (RGB); images of Pillow. Several are a list,
            an iterator (which is gone through first) or uint8 [pictures, height, width, channels].
            What is no file is called ``picture-N`` in the result, with its place from 0.
        options: what to give, and where to run.

    Returns:
        One result for each picture that can be read and gets numbers for an answer; of a
        segmentation model a ``SegmentationResult``, of a detector a ``DetectionResult``. The others
        are in ``failures``, and ``require_complete`` raises an error for them (VIM-411, VIM-430).

    Raises:
        VimDeployError: VIM-202 (more classes wanted than there are), VIM-203 (the head gives no
            class scores and no output file is named; options of another kind of model), VIM-204
            (an output exists), VIM-401 (no such picture), VIM-410 (the artifact does not say how
            pictures are prepared), VIM-415 (an array of another dtype or shape; what the model
            does not take); errors of the runner.
    """
    options = options or RunOptions()
    found = pictures(images, options.scene.folders)
    require_free(options.output, ".npz", force=options.force)
    if isinstance(artifact, Artifact):
        file = artifact
    else:
        file = Artifact.open(as_path(artifact, "artifact"))
    settings = dataclasses.replace(options.runner, max_batch=options.batch)
    with open_runner(file, settings) as runner:
        info = file.require_info()
        if file is not artifact:
            # The runtime has its own, and a run may take hours.
            file.forget_model()
        return run_through(runner, info, file.name, found, options)


def run_through(
    runner: Runner,
    info: ExportInfo,
    name: str,
    found: tuple[Mapping[str, Source], list[str]],
    options: RunOptions,
) -> RunResult:
    """``run`` with an artifact that is open: its runner, what it says and is called.

    Args:
        found: as ``scene.pictures.pictures`` gives it.
        options: of the run; its ``runner`` was for opening.
    """
    files, notes = found
    kind = of_file(info).kind
    batch = batch_size(runner, options.batch, 1 if kind == "detections" else DEFAULT_BATCH)
    if kind == "detections":
        options.scene.require_unused(f"{name} is a detector", kept=DRAWN)
        result: RunResult = DetectionsJob(runner, info, options, batch, files).run(name)
        return dataclasses.replace(result, notes=(*result.notes, *notes))
    options.detection.require_unused(_no_detections(info, name))
    if kind in ("pixel scores", "label map"):
        result = LabelsJob(runner, info, options, batch, files).run(name)
    else:
        options.scene.require_unused(_no_labels(info, name))
        result = ClassesJob(runner, info, options, batch).run(files, name)
    return dataclasses.replace(result, notes=(*result.notes, *notes))


def _no_labels(info: ExportInfo, name: str) -> str:
    """Why a model, which is no segmentation model, gives no labels."""
    if info.dense:
        return f"the head {info.head} gives feature maps, and no labels"
    return f"{name} is a classification model"


def _no_detections(info: ExportInfo, name: str) -> str:
    """Why a model, which does not have the head detections, gives none."""
    if info.dense:
        return f"the head {info.head} gives no detections"
    return f"{name} is a classification model"


def batch_size(runner: Runner, asked: int | None, usual: int = DEFAULT_BATCH) -> int:
    """Pictures at once: what was asked for, else the artifact's own fixed or tuned batch.

    Args:
        runner: of the artifact.
        asked: by the user; None for what it is made for.
        usual: where the artifact leaves the choice.
    """
    fixed = runner.fixed_batch
    if fixed is not None:
        if asked not in (None, fixed):
            raise VimDeployError(
                "VIM-415",
                f"batch size {asked} was asked for, but the artifact's batch is fixed",
                why=f"it takes {fixed} pictures at once; fewer are filled up",
                fix="leave --batch away, or export the model with --batch dynamic",
            )
        return fixed
    return asked or runner.usual_batch or usual
