"""``vim-deploy run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from vim_deploy.cli.options import (
    ImageSize,
    Parsed,
    RealNumber,
    WholeNumber,
    all_of,
    force_option,
    runner_options,
    take_runner,
)
from vim_deploy.cli.output import answer, json_option, print_table, say, say_notes
from vim_deploy.cli.output import result as print_result
from vim_deploy.codec import encode
from vim_deploy.ranges import BATCH, COUNT, PIXELS, SHARE, shown
from vim_deploy.specs import SceneMode

if TYPE_CHECKING:
    from vim_deploy.scene.records import (
        DetectedImage,
        DetectionOptions,
        DetectionResult,
        RunResult,
        SceneOptions,
        SceneResult,
        SegmentationResult,
    )


class Scale(Parsed):
    """``none``, or ``LONG,SHORT`` in pixels."""

    name = "none or n,n"

    def parse(self, text: str) -> tuple[int, int] | Literal["none"]:
        if text == "none":
            return "none"
        parts = text.split(",")
        if len(parts) != 2:
            raise ValueError(f"{shown(text)} is neither none nor two sizes such as 2048,512")
        return PIXELS.parse(parts[0]), PIXELS.parse(parts[1])


_SCENE_OPTIONS = (
    click.option(
        "--mode",
        type=click.Choice(get_args(SceneMode)),
        help="Segmentation: windows that overlap, or the picture resized to the model's input.  "
        "[default: the model's own test mode]",
    ),
    click.option(
        "--stride",
        type=ImageSize(),
        help="Pixels from one window to the next.  [default: the model's own]",
    ),
    click.option(
        "--pad", is_flag=True, help="Fill a picture that is smaller than a window up with zeros."
    ),
    click.option(
        "--scale",
        type=Scale(),
        metavar="none|LONG,SHORT",
        help="Resize a picture, keeping its shape, to fit into LONG x SHORT before it is cut into "
        "windows.  [default: the model's own]",
    ),
    click.option(
        "--overlay",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Write NAME_overlay.png: each picture under the colours of its classes, and a legend; "
        "of a detector with boxes, names, scores and masks.",
    ),
    click.option(
        "--opacity",
        type=RealNumber(SHARE),
        help="Of the overlay's colours: 0 shows the picture alone, 1 the colours.  [default: 0.5]",
    ),
    click.option(
        "--save-labels",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Write NAME_labels.png: the class of every pixel, with the colours as its palette.",
    ),
)

_DETECTION_OPTIONS = (
    click.option(
        "--score",
        type=RealNumber(SHARE),
        help="Detection: keep what has a higher score.  [default: all that the model gives]",
    ),
    click.option(
        "--coco",
        type=click.Path(path_type=Path),
        metavar="FILE.json",
        help="Detection: write COCO results with masks, and FILE.images.json with the pictures.",
    ),
)


@click.command("run")
@click.argument("artifact", metavar="ARTIFACT", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGES...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--top",
    type=WholeNumber(COUNT),
    help="Classes to print for each picture.  [default: 5; of a segmentation all that are there]  "
    "Of a detector the best detections to keep.  [default: all]",
)
@click.option(
    "--batch",
    type=WholeNumber(BATCH),
    help="Pictures, or windows of them, at once.  [default: what the artifact is made for, else 8, "
    "of a detector 1]",
)
@all_of(_SCENE_OPTIONS)
@all_of(_DETECTION_OPTIONS)
@runner_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Write the raw outputs, the labels of a segmentation or the detections, and the pictures' "
    "names; needed for the head features.",
)
@force_option
@json_option
def command(
    artifact: Path,
    images: tuple[Path, ...],
    **options: Any,  # noqa: ANN401
) -> None:
    """Run pictures through an exported file or engine and print the classes.

    ARTIFACT is an ONNX file, which runs in ONNX Runtime, or an engine, which runs in TensorRT;
    IMAGES are files and folders. Of a classification model the best classes are printed, of a
    segmentation model all classes with their areas, of a detector its detections. A picture that
    cannot be read is named, the others are still run, and the command leaves with exit code 4.
    """
    from vim_deploy.scene.records import RunOptions
    from vim_deploy.stages import run

    runner, scene, detection = take_runner(options), _take_scene(options), _take_detection(options)
    wanted = RunOptions(runner=runner, scene=scene, detection=detection, **options)
    result = run(artifact, images, wanted)
    _report(result)
    answer(encode(result), result.require_complete)


def _report(result: RunResult) -> None:
    """A table of classes, and what was written."""
    from vim_deploy.scene.records import DetectionResult, SegmentationResult

    say_notes(result.notes)
    if isinstance(result, SegmentationResult):
        _print_segmentation(result)
    elif isinstance(result, DetectionResult):
        _print_detections(result)
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
    elif result.output is not None:
        # Of a head without classes the file is what was asked for.
        print_result(str(result.output))


def _print_segmentation(result: SegmentationResult) -> None:
    """For each picture its classes and their areas, and what was written."""
    rows = [row for image in result.images for row in _rows(image)]
    if rows:
        print_table(
            f"{result.artifact} in {result.runtime}: {_how(result)}",
            ("picture", "class", "pixels", "share"),
            rows,
        )
    for image in result.images:
        for path in (image.overlay, image.labels):
            if path is not None:
                say(f"wrote {path}")


def _rows(image: SceneResult) -> list[tuple[str, str, str, str]]:
    """The first row has the file's name and size, a last one what was left out."""
    rows = [
        (
            "",
            area.label if area.label == f"class {area.index}" else f"{area.index} {area.label}",
            f"{area.pixels:,}",
            f"{100 * area.share:.2f} %",
        )
        for area in image.areas
    ]
    left_out = image.classes - len(image.areas)
    if left_out:
        pixels = image.height * image.width - sum(area.pixels for area in image.areas)
        share = 100 * pixels / (image.height * image.width)
        more = "1 more class" if left_out == 1 else f"{left_out} more classes"
        rows.append(("", more, f"{pixels:,}", f"{share:.2f} %"))
    windows = "1 window" if image.windows == 1 else f"{image.windows} windows"
    size, run = (image.height, image.width), (image.run_height, image.run_width)
    at = "" if run == size else f" at {run[0]} x {run[1]}"
    name = f"{image.file}: {size[0]} x {size[1]}, {windows}{at}"
    return [(name, *rows[0][1:]), *rows[1:]]


def _how(result: SegmentationResult) -> str:
    scene = result.scene
    window = " x ".join(map(str, scene["window"]))
    if scene["mode"] == "whole":
        return f"whole pictures as {window}"
    stride = " x ".join(map(str, scene["stride"]))
    scale = (
        ""
        if scene["scale"] is None
        else ", pictures fitted into " + " x ".join(map(str, scene["scale"]))
    )
    return f"windows of {window} every {stride}{scale}{', padded' if scene['pad'] else ''}"


def _print_detections(result: DetectionResult) -> None:
    """For each picture its detections, and what was written."""
    rows = [row for image in result.images for row in _detections(image)]
    if rows:
        print_table(
            f"{result.artifact} in {result.runtime}: scores above {result.score:g}",
            ("picture", "class", "score", "left, top, right, bottom", "mask"),
            rows,
        )
    for image in result.images:
        if image.overlay is not None:
            say(f"wrote {image.overlay}")
    if result.coco is not None:
        say(f"wrote {result.coco.results} and {result.coco.images}")


def _detections(image: DetectedImage) -> list[tuple[str, str, str, str, str]]:
    """The first row has the file's name and size, a last one how many were left out."""
    rows = [
        (
            "",
            item.label if item.label == f"class {item.index}" else f"{item.index} {item.label}",
            f"{item.score:.3f}",
            ", ".join(f"{edge:.1f}" for edge in item.box),
            "" if item.pixels is None else f"{item.pixels:,} px",
        )
        for item in image.detections
    ]
    left_out = image.found - len(image.detections)
    if left_out:
        more = "1 more detection" if left_out == 1 else f"{left_out} more detections"
        rows.append(("", more, "", "", ""))
    name = f"{image.file}: {image.height} x {image.width}"
    if (image.run_height, image.run_width) != (image.height, image.width):
        name += f" at {image.run_height} x {image.run_width}"
    first = rows[0][1:] if rows else ("no detections", "", "", "")
    return [(name, *first), *rows[1:]]


def _take_detection(options: dict[str, Any]) -> DetectionOptions:
    """Take the options' values out of a command's keywords."""
    from vim_deploy.scene.records import DetectionOptions

    return DetectionOptions(score=options.pop("score"), coco=options.pop("coco"))


def _take_scene(options: dict[str, Any]) -> SceneOptions:
    """Take the options' values out of a command's keywords."""
    from vim_deploy.scene.records import SceneOptions

    names = ("mode", "pad", "scale", "overlay", "opacity", "save_labels")
    stride = options.pop("stride")
    return SceneOptions(
        stride=(stride, stride) if isinstance(stride, int) else stride,
        **{name: options.pop(name) for name in names},
    )
