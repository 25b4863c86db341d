"""``vim-deploy verify``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from vim_deploy import precisions
from vim_deploy.cli import completion
from vim_deploy.cli.options import (
    Numbers,
    Percent,
    RealNumber,
    WholeNumber,
    checkpoint_options,
    force_option,
    runner_options,
)
from vim_deploy.cli.output import answer, json_option, say
from vim_deploy.cli.quantization_options import trial_quantization_options
from vim_deploy.cli.verify_modes import run_mode
from vim_deploy.codec import encode
from vim_deploy.ranges import BATCH, COSINE, COUNT, RANDOM, RELATIVE, SHARE, TOLERANCE, TRIALS


@click.command("verify")
@click.argument("source", metavar="ARTIFACT-or-CHECKPOINT", shell_complete=completion.recipes)
@click.option(
    "--against",
    shell_complete=completion.recipes,
    help="The checkpoint it was made from, another ONNX file or engine, or an .npz of outputs.",
)
@click.option(
    "--per-block",
    is_flag=True,
    help="Compare the inner tensors of every block, too, and name the first that differs.",
)
@click.option(
    "--ladder",
    is_flag=True,
    help="From PyTorch to the file in rungs (typed twin, base, fused, typed or quantized graph), "
    "up to the first that does not hold.",
)
@click.option(
    "--bisect",
    is_flag=True,
    help="Find the smallest set of roles and blocks to keep in float32, or not to quantize, and "
    "write it as a precision policy for export.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --bisect: the policy file.  [default: NAME.policy.toml]",
)
@click.option(
    "--max-trials",
    type=WholeNumber(TRIALS),
    help="With --bisect: models to run at most.  [default: 200]",
)
@click.option(
    "--precision",
    type=click.Choice(precisions.NAMES),
    help="With --ladder and --bisect: of the lower forms.  [default: the artifact's, or fp32]",
)
@click.option(
    "--precision-policy",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="With --ladder on a checkpoint: what stays in float32.  [default: the shipped policy]",
)
@click.option("--images", type=click.Path(path_type=Path), help="Picture or folder of pictures.")
@click.option(
    "--image-limit",
    type=WholeNumber(COUNT),
    help="At most N pictures.  [default: 64; of a data set all]",
)
@click.option("--random", type=WholeNumber(RANDOM), help="Number of random images.")
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    help="Accuracy instead: a folder with one folder of pictures for each class, or an .npz with "
    "image and labels; of a detector a folder in COCO's form.",
)
@click.option(
    "--max-loss",
    type=Percent(SHARE),
    help="With --dataset: largest upper bound of the loss of top-1 accuracy, or box and mask AP.",
)
@click.option(
    "--batches",
    type=Numbers(BATCH),
    help="Batch sizes to run.  [default: 1,2,5; those of an engine's profiles; with --dataset 16, "
    "of a detector 1,2 and 1]",
)
@click.option("--twin", is_flag=True, help="Compare with PyTorch typed as the file is.")
@click.option("--atol", type=RealNumber(TOLERANCE), help="Absolute; fp32's default is 1e-4.")
@click.option("--rtol", type=RealNumber(RELATIVE), help="Relative; fp32's default is 1e-5.")
@click.option(
    "--relative-l2",
    type=RealNumber(RELATIVE),
    help=f"Of a whole output; the default is {precisions.RELATIVE_L2_IN_WORDS}.",
)
@click.option("--cosine", type=RealNumber(COSINE), help="Smallest cosine of an image.")
@click.option(
    "--top1-agree",
    type=RealNumber(SHARE),
    help="Smallest share of equal top-1, of images or (segmentation) pixels.",
)
@click.option(
    "--box-pixels",
    type=RealNumber(TOLERANCE),
    help="Of detections: largest difference of a box's side; half precision's default is 0.5.",
)
@click.option(
    "--score-difference",
    type=RealNumber(SHARE),
    help="Of detections: largest difference of a score; half precision's default is 0.01.",
)
@click.option(
    "--mask-difference",
    type=RealNumber(SHARE),
    help="Of detections: largest difference of a mask's value; half precision has no default.",
)
@click.option("--kl", type=RealNumber(TOLERANCE), help="Largest KL of an image's softmax, nats.")
@click.option(
    "--report",
    "report_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the JSON, with an HTML report and its Markdown twin.",
)
@checkpoint_options
@trial_quantization_options
@runner_options
@force_option
@json_option
def command(
    source: str,
    report_folder: Path | None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Compare an exported file or engine with PyTorch, another file or stored outputs.

    ARTIFACT is an ONNX file, which runs in ONNX Runtime, or an engine, which runs in TensorRT.

    With --dataset, compare the accuracy on labelled pictures, image by image. With --ladder, go
    from PyTorch to the file form by form; --ladder and --bisect also take a checkpoint or recipe
    instead of a file. Leaves with exit code 7 when a tolerance is not met or accuracy was lost, and
    with 4 when pictures of the data set could not be read. The report goes to parity.json,
    accuracy.json or bisect.json in the folder of --report; by default to the artifact's, else to
    this one, and nowhere when neither can be written.
    """
    from vim_deploy.stages.reporting import place_of_run, prepare_report, provenance, write_run

    if report_folder is None:
        beside = [Path(source).parent] if os.path.exists(source) else []
        folder = place_of_run(*beside, Path())
    else:
        folder = report_folder
        prepare_report(folder)
    options["top1_agreement"] = options.pop("top1_agree")
    against = options["against"]
    kind, result, check = run_mode(source, options)
    value = {**encode(result), **provenance(against)}
    if folder is not None:
        written = write_run(kind, value, folder, pages=report_folder is not None)
        say(f"wrote {', '.join(map(str, written))}")
    answer(value, check)
