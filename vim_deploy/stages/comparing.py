"""Compare: may B take A's place? Answers on pictures, size, time and memory, and one sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import DataSetMisfitError
from vim_deploy.files import require_file
from vim_deploy.parity.accuracy import Progress
from vim_deploy.parity.agreement import (
    Agreement,
    OpenSide,
    Unread,
    differences_of,
    kind_compared,
)
from vim_deploy.parity.class_agreement import ClassAgreement, compare_classes
from vim_deploy.parity.detection_agreement import DetectionAgreement, compare_found
from vim_deploy.parity.pixel_agreement import PixelAgreement, compare_label_maps
from vim_deploy.paths import StrPath, as_path, as_text
from vim_deploy.precisions import TABLE
from vim_deploy.ranges import BATCH, BENCH_BATCH, COUNT, DURATION, THREADS, WARMUP, require_all
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.scene.thumbnails import Thumbnails
from vim_deploy.stages.benchmarking import BenchOptions
from vim_deploy.stages.comparing_pictures import ChosenPictures, choose_pictures
from vim_deploy.stages.comparing_report import (
    ComparedPictures,
    CompareLimits,
    CompareReport,
)
from vim_deploy.stages.comparing_sides import (
    ComparedSide,
    Source,
    open_sides,
    read_infos,
    read_sources,
)
from vim_deploy.stages.comparing_time import Tell, batches_of_both, measure_both

#: Pictures in memory at once, by what is compared; a detector holds gigabytes for each.
DEFAULT_BATCH = {"classes": 16, "segmentation": 4, "detections": 1}
#: Batch sizes that are timed.
DEFAULT_TIMED = {"classes": (1, 8), "segmentation": (1, 2), "detections": (1, 2)}
#: Names of pictures that an error lists.
_NAMED = 5


@dataclass(frozen=True)
class CompareOptions:
    """How to compare.

    Attributes:
        image_limit: at most so many pictures, spread over all of them; None for all.
        batch: pictures, or windows of them, in memory at once; None for 16, or fewer of dense
            models.
        time: whether to measure time and memory.
        time_batches: batch sizes to measure; None for 1 and 8, of dense models 1 and 2.
        warmup, duration: seconds of untimed and of timed calls for each measurement.
        threads: inside one operator while time is measured; None for the processors this process
            may use.
        limits: what is demanded.
        thumbnails: make small pictures of what differs, for a page.
        runner: where files run.
    """

    image_limit: int | None = None
    batch: int | None = None
    time: bool = True
    time_batches: tuple[int, ...] | None = None
    warmup: float = 0.5
    duration: float = 2.0
    threads: int | None = None
    limits: CompareLimits = CompareLimits()  # noqa: RUF009 - frozen
    thumbnails: bool = False
    runner: RunnerOptions = RunnerOptions()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(
            self,
            image_limit=COUNT,
            batch=BATCH,
            time_batches=BENCH_BATCH,
            warmup=WARMUP,
            duration=DURATION,
            threads=THREADS,
        )


def compare(
    a: StrPath,
    b: StrPath,
    images: StrPath,
    options: CompareOptions | None = None,
    command: Sequence[str] = (),
    progress: Progress = lambda done, of: None,
    tell: Tell = lambda text: None,
) -> CompareReport:
    """Compare two files on pictures: may B take A's place?

    Args:
        a, b: exported ONNX files or engines; one of them may be the checkpoint or recipe of the
            other, which runs in PyTorch.
        images: folder of pictures. With one folder for each class, as ``verify_dataset`` takes
            them, accuracy is compared as well.
        options: pictures, time and limits.
        command: for the report.
        progress: told how many of how many pictures are done.
        tell: told what is measured, in words.

    Returns:
        The report; ``advice`` is its sentence, ``require_passed`` raises VIM-701 when a demand is
        not met.

    Raises:
        VimDeployError: VIM-203 (options; one file twice), VIM-401 (a file or pictures that are not
            there), VIM-410, VIM-419 (a limit on accuracy without class folders; no picture that can
            be read), VIM-440 (files that cannot be compared); errors of the runtimes.
    """
    options = options or CompareOptions()
    folder = as_path(images, "images")
    if not folder.is_dir():
        # Before a model is read; what a folder holds is looked at when its classes are known.
        require_file(folder, "folder of pictures")
    sources = read_sources(as_text(a, "a"), as_text(b, "b"))
    infos = read_infos(sources)
    need_classes = options.limits.max_loss is not None
    chosen = choose_pictures(folder, infos, options.image_limit, need_classes=need_classes)
    ran = _on_pictures(sources, infos, chosen, options, progress)
    _require_some(ran.found, ran.unread, chosen)
    time, untimed = None, "it was not asked for"
    if options.time and not ran.batches:
        untimed = "the files are made for different batch sizes"
    elif options.time:
        untimed = ""
        timing = BenchOptions(
            batches=ran.batches,
            warmup=options.warmup,
            duration=options.duration,
            threads=options.threads,
            runner=options.runner,
        )
        time = measure_both(sources, ran.sides, timing, tell)
    return CompareReport(
        *ran.sides,
        ComparedPictures(
            chosen.folder,
            ran.found.images,
            chosen.labelled,
            chosen.classes_by,
            ran.unread,
            chosen.left_out,
        ),
        ran.found,
        time,
        untimed,
        options.limits,
        (*differences_of(*infos), *ran.notes, *(time.notes if time else ())),
        tuple(command),
        ran.small.uris,
    )


class _Ran(NamedTuple):
    """What came of the pictures; the sides are closed, and their memory is free for the clock."""

    sides: tuple[ComparedSide, ComparedSide]
    found: ClassAgreement | PixelAgreement | DetectionAgreement
    unread: tuple[Unread, ...]
    batches: tuple[int, ...]
    notes: tuple[str, ...]
    small: Thumbnails


def _on_pictures(
    sources: tuple[Source, Source],
    infos: tuple[ExportInfo, ExportInfo],
    chosen: ChosenPictures,
    options: CompareOptions,
    progress: Progress,
) -> _Ran:
    """Open both sides and run them on all pictures, as their kind of answer is compared."""
    kind, pictures = kind_compared(infos[0]), chosen.pictures
    assert kind is not None
    wanted = options.batch or DEFAULT_BATCH[kind]
    taken = Thumbnails()
    small = taken if options.thumbnails else None
    # An engine refuses more than it was built for; only who asks for a batch is told so.
    runner = dataclasses.replace(options.runner, max_batch=options.batch)
    with open_sides(sources, infos, runner, wanted) as sides:
        batches = batches_of_both(sides, options.time_batches, DEFAULT_TIMED[kind])
        batch = min(side.runner.batch_within(wanted) for side in sides)
        a, b = (source.described(side) for source, side in zip(sources, sides, strict=True))
        coarser = max((a.precision, b.precision), key=lambda name: TABLE[name].relative_l2)
        found: ClassAgreement | PixelAgreement | DetectionAgreement
        if kind == "classes":
            found, unread = compare_classes(sides, pictures, batch, progress, small)
        elif kind == "segmentation":
            found, unread = compare_label_maps(sides, pictures, batch, coarser, progress, small)
        else:
            found, unread = compare_found(sides, pictures, coarser, progress, small)
        notes = _notes(sides)
    if taken.left_out:
        notes.append(f"{taken.left_out} pictures are not shown: the page would be too large")
    return _Ran((a, b), found, unread, batches, tuple(dict.fromkeys(notes)), taken)


def _notes(sides: tuple[OpenSide, OpenSide]) -> list[str]:
    """What the runners say; once, where both say it."""
    told = [side.runner.told for side in sides]
    both = [note for note in told[0] if note in told[1]]
    own = [
        f"{name}: {note}"
        for name, notes in zip("AB", told, strict=True)
        for note in notes
        if note not in both
    ]
    return [*both, *own]


def _require_some(found: Agreement, unread: Sequence[Unread], chosen: ChosenPictures) -> None:
    if found.images:
        return
    raise DataSetMisfitError(
        "VIM-419",
        f"no picture of {chosen.folder} could be read",
        why="\n".join(f"{item.file}: {item.why}" for item in unread[:_NAMED]),
        fix="give complete image files of 8 bits a channel",
    )
