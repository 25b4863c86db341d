"""``vim-deploy bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from vim_deploy.cli import completion
from vim_deploy.cli.options import (
    ImageSizes,
    Numbers,
    Percent,
    WholeNumber,
    clock_options,
    force_option,
    runner_options,
    take_runner,
)
from vim_deploy.cli.output import (
    answer,
    command_line,
    json_option,
    print_table,
    result,
    say,
    say_notes,
)
from vim_deploy.codec import encode
from vim_deploy.ranges import BENCH_BATCH, REGRESSION, SEED
from vim_deploy.specs import Baseline, GraphChoice

if TYPE_CHECKING:
    from vim_deploy.bench.report import BenchReport


@click.command("bench")
@click.argument(
    "artifacts",
    nargs=-1,
    required=True,
    metavar="ARTIFACT...",
    shell_complete=completion.recipes,
)
@click.option(
    "--batches",
    type=Numbers(BENCH_BATCH),
    default="1",
    show_default=True,
    help="Batch sizes to run.",
)
@click.option(
    "--image-sizes",
    type=ImageSizes(),
    help="Sizes to export at, for example 224,512; for checkpoints, recipes and variants.",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(get_args(Baseline)),
    help="Measure this beside each model; may be given several times. deit: the DeiT of the "
    "same width with each form of its attention; with pytorch as well, in PyTorch too.",
)
@click.option(
    "--random-weights",
    type=WholeNumber(SEED),
    metavar="SEED",
    help="Seeded weights for variants; time does not depend on values.",
)
@click.option(
    "--graph",
    type=click.Choice(get_args(GraphChoice)),
    default="auto",
    show_default=True,
    help="Form of what is exported here.",
)
@click.option(
    "--export-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that keeps what is exported here.  [default: a temporary one]",
)
@clock_options(warmup=1.0, duration=3.0)
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="OLD.json",
    help="An earlier bench.json of this machine; exit code 10 when a figure is worse.",
)
@click.option(
    "--max-regress",
    type=Percent(REGRESSION),
    default="5%",
    show_default=True,
    help="How much worse than in --compare is still accepted.",
)
@click.option(
    "--report",
    "output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for bench.json, bench.md and the report bench.html.  [default: this folder, "
    "without bench.html]",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Draw time and memory against image size.",
)
@click.option("--cuda-graph", is_flag=True, help="Engines: replay a captured CUDA graph.")
@runner_options
@force_option
@json_option
def command(artifacts: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401
    """Measure latency, throughput and memory on this machine, in turns.

    ARTIFACT is an exported ONNX file (in ONNX Runtime), an engine (in TensorRT), or a checkpoint,
    recipe or variant, which is exported first, at every size of --image-sizes. Every measurement
    has a process of its own; those of one image and batch size take turns, and ratios refer to
    the first ARTIFACT, with native ops where they are measured.
    """
    from vim_deploy.stages import benchmark
    from vim_deploy.stages.benchmarking import BenchOptions
    from vim_deploy.stages.reporting import place_of_run

    image_sizes, given = options.pop("image_sizes") or (), options.pop("output")
    output = given or place_of_run(Path())
    chosen = BenchOptions(
        image_sizes=image_sizes,
        runner=take_runner(options),
        output=output,
        html=given is not None,
        **options,
    )
    report = benchmark(artifacts, chosen, command_line(), say)
    value = encode(report)
    print_report(value)
    if output is not None:
        names = "bench.json, bench.md" + (", bench.html" if chosen.html else "")
        say(f"wrote {names} into {given or 'this folder'}")
    answer(value, lambda: _require_good(report))


def _require_good(report: BenchReport) -> None:
    report.require_measured()
    if report.comparison is not None:
        from vim_deploy.bench.compare import require_no_regression

        require_no_regression(report)


def print_report(value: dict[str, Any]) -> None:
    """The table of results, the exponents and the notes."""
    from vim_deploy.bench.table import COLUMNS, result_rows, scaling_text

    print_table("benchmark", COLUMNS, result_rows(value))
    say(f"clock: {value['method']['clock']}")
    for entry in value["scaling"]:
        what = f"{entry['label']}, {entry['runner']}, batch {entry['batch']}"
        result(f"{what}: time grows with tokens to the power {scaling_text(entry)}")
    for entry in (value["comparison"] or {"entries": []})["entries"]:
        change = 100 * (entry["ratio"] - 1)
        result(f"{entry['what']}: {entry['figure']} {change:+.1f} % ({entry['verdict']})")
    say_notes(value["notes"])
