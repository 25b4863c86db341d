"""Bench: models and baselines become subjects, which are measured in turns."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vim_deploy.bench import environment
from vim_deploy.bench.compare import compared, read_baseline, require_common
from vim_deploy.bench.measure import SKIPPED, Measurement, Timing, measure_group
from vim_deploy.bench.report import BenchReport, busy_notes
from vim_deploy.bench.subject import Subject, SubjectKey
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import output_errors, prepare_folder
from vim_deploy.paths import OptionalPath, StrPath, as_text, several
from vim_deploy.ranges import (
    BENCH_BATCH,
    DURATION,
    IMAGE_SIDE,
    REGRESSION,
    SEED,
    THREADS,
    WARMUP,
    require_all,
    require_names,
)
from vim_deploy.report.plot import check_plot, draw, require_sizes
from vim_deploy.report.write import require_html, write_pages
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.specs import GraphChoice
from vim_deploy.stages.bench_subjects import SubjectMaker
from vim_deploy.text import storable
from vim_deploy.untrusted import read_json

Progress = Callable[[str], None]

#: Share of the free memory that a group may be expected to take: estimates are rough.
_USABLE_MEMORY = 0.9


@dataclass(frozen=True)
class BenchOptions:
    """What to measure and for how long.

    Attributes:
        batches: batch sizes.
        image_sizes: sizes to export at; only for checkpoints, recipes and variants.
        baselines: ``pytorch``, ``deit``, ``deit-tiny``, ``deit-small``, ``deit-base``.
        warmup, duration: seconds of untimed and of timed calls for each measurement.
        threads: threads inside one operator; None for the processors this process may use.
        random_weights: seed of weights for variants, instead of their checkpoints.
        graph: form of what is exported.
        runner: where the artifacts run; its ``max_batch`` is not used, batches are given here.
        cuda_graph: replay captured CUDA graphs of engines.
        export_dir: folder that keeps what is exported; None for a temporary one.
        compare: an earlier ``bench.json``.
        max_regress: largest share by which a figure may be worse than there.
        output: folder for the report; None to write nothing.
        html: write a page to look at as well; needs ``output`` and jinja2.
        force: replace a report that was made with other settings.
        plot: picture of time and memory against image size to write, ``.svg``.
    """

    batches: tuple[int, ...] = (1,)
    image_sizes: tuple[int | tuple[int, int], ...] = ()
    baselines: tuple[str, ...] = ()
    warmup: float = 1.0
    duration: float = 3.0
    threads: int | None = None
    random_weights: int | None = None
    graph: GraphChoice = "auto"
    runner: RunnerOptions = RunnerOptions()  # noqa: RUF009 - frozen
    cuda_graph: bool = False
    export_dir: OptionalPath = OptionalPath()
    compare: OptionalPath = OptionalPath()
    max_regress: float = 0.05
    output: OptionalPath = OptionalPath()
    html: bool = False
    force: bool = False
    plot: OptionalPath = OptionalPath()

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_names(self, graph=get_args(GraphChoice))
        require_all(
            self,
            batches=BENCH_BATCH,
            image_sizes=IMAGE_SIDE,
            warmup=WARMUP,
            duration=DURATION,
            threads=THREADS,
            random_weights=SEED,
            max_regress=REGRESSION,
        )


def benchmark(
    artifacts: StrPath | Sequence[StrPath],
    options: BenchOptions | None = None,
    command: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> BenchReport:
    """Measure exported files, engines, checkpoints, recipes or variants, baselines beside them.

    Args:
        artifacts: ``.onnx`` files, engines, or anything ``export`` takes. Ratios refer to the
            first.
        options: sizes, baselines and times.
        command: for the report.
        progress: told what happens, in words.

    Returns:
        The report, already written where ``options.output`` says. ``require_measured`` and
        ``bench.compare.require_no_regression`` raise what it found (VIM-1002, VIM-1001).

    Raises:
        VimDeployError: VIM-202, VIM-203, VIM-204 (options, output), VIM-301, VIM-4xx (artifacts),
            VIM-418 (baseline file from another machine).
    """
    names = [as_text(artifact, "artifacts") for artifact in several(artifacts)]
    options = options or BenchOptions()
    timing = Timing(
        options.warmup, options.duration, options.threads or environment.available_cpus()
    )
    settings = _settings(names, options, timing)
    machine = environment.machine()
    _check_options(names, options)
    _check_output(options, settings)
    if options.html:
        require_html()
    if options.plot is not None:
        check_plot(options.plot)
    baseline = read_baseline(options.compare, machine, settings) if options.compare else None
    with _export_folder(options.export_dir) as folder:
        maker = SubjectMaker(
            folder,
            image_sizes=options.image_sizes,
            batches=options.batches,
            baselines=options.baselines,
            random_weights=options.random_weights,
            graph=options.graph,
            runner=options.runner,
            cuda_graph=options.cuda_graph,
            progress=progress,
        )
        groups = maker.groups(names)
        if baseline is not None and options.compare is not None:
            keys = [subject.key for group in groups for subject in group]
            require_common(baseline, keys, options.compare.name)
        if options.plot is not None:
            require_sizes(len({group[0].image for group in groups}))
        state, times, own = environment.state(), environment.cpu_times(), _own_cpu_seconds()
        measurements = _measure(groups, timing, progress)
    disturbance = environment.disturbance(times, environment.cpu_times(), _own_cpu_seconds() - own)
    notes = (
        *maker.notes,
        *_finding_notes(measurements),
        *busy_notes(state, machine["cpus"], disturbance),
    )
    report = BenchReport(
        tuple(measurements), timing, machine, state, disturbance, settings, notes, tuple(command)
    )
    if baseline is not None and options.compare is not None:
        report = compared(report, baseline, options.compare.name, options.max_regress)
    if options.output is not None:
        report.write(options.output / "bench.json")
        write_pages("bench", encode(report), options.output, with_html=options.html)
    if options.plot is not None and not draw(encode(report), options.plot):
        progress(f"{options.plot} is not drawn: fewer than two image sizes were measured")
    return report


def _settings(artifacts: Sequence[str], options: BenchOptions, timing: Timing) -> dict[str, Any]:
    return {
        "artifacts": [storable(artifact) for artifact in artifacts],
        "batches": list(options.batches),
        "image_sizes": [
            list(size) if isinstance(size, tuple) else size for size in options.image_sizes
        ],
        "baselines": list(options.baselines),
        "random_weights": options.random_weights,
        "graph": options.graph,
        "runtime": options.runner.runtime,
        "provider": options.runner.provider,
        "ops": options.runner.ops,
        "cuda_graph": options.cuda_graph,
        "warmup_seconds": timing.warmup,
        "duration_seconds": timing.duration,
        "threads": timing.threads,
    }


def _check_options(artifacts: Sequence[str], options: BenchOptions) -> None:
    if not artifacts:
        raise VimDeployError("VIM-202", "nothing to measure", fix="name a model")
    if not options.batches:
        raise VimDeployError("VIM-202", "--batches: one or more sizes", fix="--batches 1,8")


def _check_output(options: BenchOptions, settings: Mapping[str, Any]) -> None:
    """Before minutes are spent: may the report be written where it is to be?"""
    if options.html and options.output is None:
        raise VimDeployError("VIM-203", "html needs a folder", fix="name one as output")
    if options.output is None:
        return
    path = options.output / "bench.json"
    prepare_folder(options.output, "--report")
    if options.compare is not None and path.exists() and path.samefile(options.compare):
        raise VimDeployError(
            "VIM-203",
            f"the report would overwrite {options.compare}, which it is compared with",
            fix="--report ANOTHER_FOLDER",
        )
    if not path.exists() or options.force:
        return
    why = "it is not a report of vim-deploy bench"
    try:
        found = read_json(path, lambda text: VimDeployError("VIM-418", text))
        old = found["settings"] if isinstance(found, dict) else None
    except (VimDeployError, KeyError):
        old = None
    if isinstance(old, dict):
        changed = [key for key in settings if old.get(key) != settings[key]]
        if not changed:
            return
        why = "it differs in " + ", ".join(changed)
    raise VimDeployError(
        "VIM-204",
        f"{path} exists and was made with other settings",
        why=why,
        fix="add --force to replace it, or choose another folder with --report",
    )


@contextlib.contextmanager
def _export_folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        with output_errors(wanted, "--export-dir"):
            wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="vim-deploy-bench-") as name:
        yield Path(name).resolve()


def _own_cpu_seconds() -> float:
    """Processor seconds of this process and of all children that have ended."""
    return sum(os.times()[:4])


def _measure(
    groups: Sequence[Sequence[Subject]], timing: Timing, progress: Progress
) -> list[Measurement]:
    found: list[Measurement] = []
    for number, group in enumerate(groups):
        height, width = group[0].image
        place = f"group {number + 1} of {len(groups)}, {height}x{width}, batch {group[0].batch}: "

        def tell(text: str, place: str = place) -> None:
            progress(place + text)

        skipped = too_large(group, environment.available_memory())
        kept = [subject for subject in group if subject.key not in skipped]
        measured = {item.subject.key: item for item in measure_group(kept, timing, number, tell)}
        for subject in group:
            reason = skipped.get(subject.key)
            if reason is None:
                found.append(measured[subject.key])
            else:
                tell(f"skipping {subject.label} ({subject.runtime}): {reason}")
                found.append(Measurement(subject, number, SKIPPED, reason))
    return found


def too_large(group: Sequence[Subject], available: int | None) -> dict[SubjectKey, str]:
    """Members that memory has no room for, by key, largest first, each with the reason."""
    skipped: dict[SubjectKey, str] = {}
    if available is None:
        return skipped
    room = available * _USABLE_MEMORY
    known = sorted(
        (subject for subject in group if subject.estimated_bytes is not None),
        key=lambda subject: -(subject.estimated_bytes or 0),
    )
    total = sum(subject.estimated_bytes or 0 for subject in known)
    for subject in known:
        if total <= room:
            break
        size = subject.estimated_bytes or 0
        together = " together with the others it is measured with" if size <= room else ""
        skipped[subject.key] = (
            f"needs about {size / 1e9:.1f} GB{together}; {available / 1e9:.1f} GB are free"
        )
        total -= size
    return skipped


def _finding_notes(measurements: Sequence[Measurement]) -> Iterator[str]:
    for item in measurements:
        if item.ok and not item.finite:
            yield f"{item.subject.label} ({item.subject.runtime}) gives NaN or Inf on random input"
        if "rounding after every operator" in item.runtime:
            yield (
                f"{item.subject.label}: {item.runtime.partition(' (')[0]} has no operators of "
                "this precision; the time includes the casts that stand in for them"
            )
