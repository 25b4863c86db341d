"""Verify on a data set: accuracy of a file or engine against its reference, image by image."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.file import named
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import of_file
from vim_deploy.parity.accuracy import AccuracyReport, Limits, Progress, compare_accuracy
from vim_deploy.parity.average_precision import require_coco
from vim_deploy.parity.coco_accuracy import ApLimits, CocoReport, compare_coco
from vim_deploy.parity.coco_folder import open_coco
from vim_deploy.parity.dataset import open_dataset
from vim_deploy.paths import StrPath, as_path, as_text
from vim_deploy.progress import stage_log
from vim_deploy.ranges import BATCH, COUNT, require_all
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.scene.detections import detector_of
from vim_deploy.stages.verifying import open_reference, reference_file

#: Images in memory at once; a detector holds gigabytes for each of a full size.
DEFAULT_BATCH, DETECTOR_BATCH = 16, 1


@dataclass(frozen=True)
class DatasetOptions:
    """How to go through a data set.

    Attributes:
        batch: images in memory at once; None for 16, or 1 of a detector.
        limit: at most so many images, spread over all classes; None for all.
        limits: what is demanded of the accuracy.
        twin: compare with the module typed as the file is, instead of the float32 one.
        runner: where the artifact runs.
    """

    batch: int | None = None
    limit: int | None = None
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    twin: bool = False
    runner: RunnerOptions = RunnerOptions()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, batch=BATCH, limit=COUNT)


def verify_dataset(
    artifact: StrPath,
    against: StrPath,
    dataset: StrPath,
    options: DatasetOptions | None = None,
    command: Sequence[str] = (),
    progress: Progress = lambda done, of: None,
) -> AccuracyReport | CocoReport:
    """Compare the accuracy of an exported ONNX file or engine with that of a reference.

    A detector's is its average precision of boxes and masks.

    Args:
        artifact: ONNX file made by ``export``, or an engine made by ``build_engine``.
        against: the checkpoint it came from, or another ONNX file or engine with the same
            input.
        dataset: folder with one folder of images for each class, or an ``.npz`` with ``image``
            (in the graph's own format) and ``labels``.
        options: batch, number of images and limits.
        command: for the report.
        progress: told how many of how many images are done.

    Returns:
        The report; ``require_passed`` raises VIM-701 when accuracy was lost, VIM-411 when images
        could not be read.

    Raises:
        VimDeployError: VIM-431 for a segmentation network or a dense backbone, VIM-301 for a
            detector without pycocotools; of the data set (VIM-401, VIM-414, VIM-419) and the
            models, as ``verify``.
    """
    options = options or DatasetOptions()
    batch = options.batch or DEFAULT_BATCH
    against, dataset = as_text(against, "against"), as_path(dataset, "dataset")
    file = Artifact.open(as_path(artifact, "artifact"))
    if named(against) == "stored":
        raise VimDeployError(
            "VIM-203",
            "stored outputs cannot be compared on a data set",
            fix="compare with the checkpoint, another ONNX file or an engine",
        )
    stage_log.info("loading %s", file.name)
    settings = dataclasses.replace(options.runner, max_batch=batch)
    other = reference_file(against, file) or against
    if file.info is not None and of_file(file.info).kind == "detections":
        return _verify_coco(file, other, dataset, options, command, progress)
    with open_runner(file, settings) as runner:
        _require_classifier(file.name, file.info)
        if os.path.isdir(dataset):
            unsaid = "does not say how pictures are prepared"
            file.require_info(unsaid, fix="give an .npz with prepared images")
        found = open_dataset(dataset, file.info, runner.input, options.limit)
        with open_reference(other, file, runner, options.twin) as (reference, _):
            assert reference is not None
            counts = compare_accuracy(reference, runner, found, batch, progress)
    return AccuracyReport(
        artifact=file.name,
        artifact_sha256=file.sha256,
        limits=options.limits,
        command=tuple(command),
        **counts,
    )


def _verify_coco(
    file: Artifact,
    other: Artifact | str,
    dataset: Path,
    options: DatasetOptions,
    command: Sequence[str],
    progress: Progress,
) -> CocoReport:
    """Average precision of a detector and of its reference."""
    if options.limits.top1_agreement is not None:
        raise VimDeployError(
            "VIM-203",
            "--top1-agree has no effect on detections",
            why="what is compared is average precision",
            fix="--max-loss",
        )
    require_coco("--dataset for a detector")
    info = file.require_info("does not say how pictures are prepared", fix="export the model again")
    classes = detector_of(info).num_classes
    found = open_coco(dataset, info.labels, classes, options.limit)
    batch = options.batch or DETECTOR_BATCH
    settings = dataclasses.replace(options.runner, max_batch=batch)
    with (
        open_runner(file, settings) as runner,
        open_reference(other, file, runner, options.twin) as (reference, _),
    ):
        assert reference is not None
        counts = compare_coco(reference, runner, found, info, batch, progress)
    return CocoReport(
        artifact=file.name,
        artifact_sha256=file.sha256,
        limits=ApLimits(options.limits.max_loss),
        command=tuple(command),
        **counts,
    )


def _require_classifier(artifact: str, info: ExportInfo | None) -> None:
    if info is not None and info.dense:
        raise VimDeployError(
            "VIM-431",
            f"--dataset counts classes of whole pictures, and {artifact} gives none",
            why=f"it is a dense model ({info.dense.task}, head {info.head}); its accuracy (mean "
            "IoU, box AP) is measured against annotated pixels or boxes, by the framework that "
            "trained it",
            fix="compare it with its checkpoint on pictures: vim-deploy verify ... --images DIR "
            "(for segmentation with pixel agreement and mean IoU between the two sides)",
        )
