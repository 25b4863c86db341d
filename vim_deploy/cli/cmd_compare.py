"""``vim-deploy compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vim_deploy.cli import completion
from vim_deploy.cli.options import (
    Numbers,
    Percent,
    WholeNumber,
    clock_options,
    runner_options,
    take_runner,
)
from vim_deploy.cli.output import (
    answer,
    command_line,
    image_progress,
    json_option,
    print_table,
    result,
    say,
    say_notes,
)
from vim_deploy.cli.tables import one_line
from vim_deploy.codec import encode
from vim_deploy.ranges import BATCH, BENCH_BATCH, COUNT, SHARE

if TYPE_CHECKING:
    from vim_deploy.report.document import Value
    from vim_deploy.stages.comparing import CompareOptions

#: Pictures that differ, and pictures nearest to it, that are printed; the report has more.
_PRINTED, _PRINTED_NEAR = 10, 3


@click.command("compare")
@click.argument("a", metavar="A", shell_complete=completion.recipes)
@click.argument("b", metavar="B", shell_complete=completion.recipes)
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of pictures; with one folder for each class accuracy is compared, too.",
)
@click.option(
    "--image-limit",
    type=WholeNumber(COUNT),
    help="At most N pictures, spread over all of them.  [default: all]",
)
@click.option(
    "--batch",
    type=WholeNumber(BATCH),
    help="Pictures, or windows of them, at once.  [default: 16; of a segmentation 4, of a "
    "detector 1]",
)
@click.option(
    "--max-disagreement",
    type=Percent(SHARE),
    help="Largest share of pictures that may get another class; of a segmentation of pixels, of a "
    "detector of detections. Exit code 7 above it.",
)
@click.option(
    "--max-loss",
    type=Percent(SHARE),
    help="Largest upper bound of the loss of top-1 accuracy; needs class folders. Exit code 7 "
    "above it.",
)
@click.option("--no-time", is_flag=True, help="Do not measure time and memory.")
@click.option(
    "--time-batches",
    type=Numbers(BENCH_BATCH),
    help="Batch sizes to measure.  [default: 1,8; of dense models 1,2]",
)
@clock_options(warmup=0.5, duration=2.0)
@click.option(
    "--report",
    "report_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for compare.json, the page compare.html with the pictures, and its Markdown twin.",
)
@runner_options
@json_option
def command(
    a: str,
    b: str,
    images: Path,
    report_folder: Path | None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Say whether B may take A's place: answers, size, time and memory, and one sentence.

    A and B are exported ONNX files or engines; one of them may be the other's checkpoint or
    recipe, which runs in PyTorch. Both run on the same pictures, and those that get another class
    are named. The rules of the advice are in docs/compare.md. Leaves with exit code 7 when a limit
    that was demanded is broken.
    """
    from vim_deploy.stages import compare
    from vim_deploy.stages.reporting import prepare_report, provenance, write_run

    chosen = _take_options(options, thumbnails=report_folder is not None)
    if report_folder is not None:
        prepare_report(report_folder)
    report = compare(a, b, images, chosen, command_line(), image_progress(), say)
    value = {**encode(report), **provenance()}
    print_comparison(value)
    if report_folder is not None:
        shown = {"thumbnails": report.thumbnails}
        written = write_run("compare", value, report_folder, pages=True, shown=shown)
        say(f"wrote {', '.join(map(str, written))}")
    answer(value, report.require_passed)


def _take_options(options: dict[str, Any], *, thumbnails: bool) -> CompareOptions:
    from vim_deploy.stages.comparing import CompareOptions
    from vim_deploy.stages.comparing_report import CompareLimits

    limits = CompareLimits(options.pop("max_disagreement"), options.pop("max_loss"))
    return CompareOptions(
        time=not options.pop("no_time"),
        limits=limits,
        thumbnails=thumbnails,
        runner=take_runner(options),
        **options,
    )


def print_comparison(value: Value) -> None:
    """Both sides in a table, the findings, what differs, and the advice."""
    from vim_deploy.report.compare_page import COLUMNS, side_rows

    pictures, found = value["pictures"], value["found"]
    title = f"on {pictures['images']} pictures of {pictures['folder']}"
    print_table(title, COLUMNS, side_rows(value))
    _say_line(f"classes: {pictures['classes_by']}")
    for line in value["statement"]:
        _say_line(line)
    _print_pictures("differs", found, found["changed"][:_PRINTED])
    if len(found["changed"]) > _PRINTED:
        _say_line(f"and {len(found['changed']) - _PRINTED} more, named with --json and --report")
    _print_pictures("nearest to it", found, found.get("nearest", ())[:_PRINTED_NEAR])
    _print_rest(value)


def _print_rest(value: Value) -> None:
    """What could not be read, what lies beside, the notes, and last the advice."""
    pictures = value["pictures"]
    if pictures["unread"]:
        _say_line(f"{len(pictures['unread'])} pictures could not be read and were left out:")
        for item in pictures["unread"][:_PRINTED]:
            _say_line(f"  {item['file']}: {item['why']}")
    for line in pictures["left_out"]:
        _say_line(line)
    say_notes(value["notes"])
    for line in value["failures"]:
        _say_line(line)
    _say_line(f"advice: {value['advice']['sentence']}")


def _print_pictures(what: str, found: Value, names: Sequence[str]) -> None:
    from vim_deploy.report.compare_found import picture_lines, pictures_named

    for item in pictures_named(found, names):
        _say_line(f"{what}: {item['file']}: {'; '.join(picture_lines(found, item))}")


def _say_line(text: str) -> None:
    """A line of the result: a name of others in it cannot begin another."""
    result(one_line(text))
