"""``vim-deploy run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vim_deploy.cli.number_types import WholeNumber
from vim_deploy.cli.options import force_option, json_option, runner_options, take_runner
from vim_deploy.cli.output import print_error, print_json, print_table, say
from vim_deploy.cli.scene_options import print_segmentation, scene_options, take_scene
from vim_deploy.errors import VimDeployError
from vim_deploy.ranges import BATCH, COUNT

if TYPE_CHECKING:
    from vim_deploy.stages.run_records import RunResult


@click.command("run")
@click.argument("artifact", metavar="ARTIFACT", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGES...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--top",
    type=WholeNumber(COUNT),
    help="Classes to print for each picture.  [default: 5; of a segmentation all that are there]",
)
@click.option(
    "--batch",
    type=WholeNumber(BATCH),
    help="Pictures, or windows of them, at once.  [default: what the artifact is made for, else 8]",
)
@scene_options
@runner_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Write the raw outputs, or the labels of a segmentation, and the pictures' names; needed "
    "for the head features.",
)
@force_option
@json_option
def command(
    artifact: Path,
    images: tuple[Path, ...],
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Run pictures through an exported file or engine and print the classes.

    ARTIFACT is an ONNX file, which runs in ONNX Runtime, or an engine, which runs in TensorRT;
    IMAGES are files and folders. Of a classification model the best classes are printed, of a
    segmentation model all classes with their areas. A picture that cannot be read is named, the
    others are still run, and the command leaves with exit code 4.
    """
    from vim_deploy.stages import run
    from vim_deploy.stages.run_records import RunOptions

    runner, scene = take_runner(options), take_scene(options)
    result = run(artifact, images, RunOptions(runner=runner, scene=scene, **options))
    _report(result)
    try:
        result.require_complete()
    except VimDeployError as error:
        if not as_json:
            raise
        # One JSON object on stdout: the results with the error, not the one after the other.
        print_json({**result.as_dict(), "error": error.as_dict()})
        print_error(error, as_json=False)
        raise click.exceptions.Exit(int(error.exit_code)) from error
    if as_json:
        print_json(result.as_dict())


def _report(result: RunResult) -> None:
    """A table of classes, and what was written."""
    from vim_deploy.stages.run_records import SegmentationResult

    for note in result.notes:
        say(f"note: {note}")
    if isinstance(result, SegmentationResult):
        print_segmentation(result)
    else:
        _print_classes(result)
    if result.output is not None:
        say(f"wrote {result.output}, pictures: {len(result.images)}")


def _print_classes(result: RunResult) -> None:
    """One row for each picture and class."""
    rows = [
        (
            image.file if rank == 1 else "",
            str(rank),
            f"{item.index} {item.label}".rstrip(),
            f"{100 * item.probability:.2f} %",
        )
        for image in result.images
        for rank, item in enumerate(image.top, 1)
    ]
    if rows:
        print_table(
            f"{result.artifact} in {result.runtime}", ("picture", "", "class", "probability"), rows
        )
