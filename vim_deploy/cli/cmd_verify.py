"""``vim-deploy verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vim_deploy.cli.options import (
    Percent,
    WholeNumbers,
    json_option,
    runner_options,
    take_runner,
)
from vim_deploy.cli.output import command_line, image_progress, print_json, print_table, say
from vim_deploy.errors import VimDeployError

if TYPE_CHECKING:
    from vim_deploy.parity.accuracy import AccuracyReport
    from vim_deploy.parity.report import ParityReport

#: Options that are limits of ``parity.metrics.Tolerance``.
_LIMITS = ("atol", "rtol", "relative_l2", "cosine", "top1_agreement")


@click.command("verify")
@click.argument("artifact", metavar="ARTIFACT", type=click.Path(path_type=Path))
@click.option(
    "--against",
    required=True,
    help="The checkpoint it was made from, another ONNX file or engine, or an .npz of outputs.",
)
@click.option("--images", type=click.Path(path_type=Path), help="Picture or folder of pictures.")
@click.option(
    "--image-limit",
    type=click.IntRange(min=1),
    help="At most N pictures.  [default: 64; of a data set all]",
)
@click.option("--random", type=click.IntRange(min=1), help="Number of random images.")
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    help="Accuracy instead: a folder with one folder of pictures for each class, or an .npz with "
    "image and labels.",
)
@click.option(
    "--max-loss",
    type=Percent(),
    help="With --dataset: largest upper bound of the loss of top-1 accuracy.",
)
@click.option(
    "--batches",
    type=WholeNumbers(),
    help="Batch sizes to run.  [default: 1,2,5; those of an engine's profiles; with --dataset 16]",
)
@click.option("--twin", is_flag=True, help="Compare with PyTorch typed as the file is.")
@click.option("--atol", type=click.FloatRange(min=0), help="Absolute; fp32's default is 1e-4.")
@click.option("--rtol", type=click.FloatRange(min=0), help="Relative; fp32's default is 1e-5.")
@click.option(
    "--relative-l2",
    type=click.FloatRange(min=0),
    help="Of a whole output; the default is 1e-2 for fp16, 8e-2 for bf16.",
)
@click.option("--cosine", type=click.FloatRange(-1, 1), help="Smallest cosine of an image.")
@click.option("--top1-agree", type=click.FloatRange(0, 1), help="Smallest share of equal top-1.")
@click.option("--report", "report_folder", type=click.Path(path_type=Path), help="Folder to write.")
@runner_options
@json_option
def command(
    artifact: Path,
    against: str,
    report_folder: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Compare an exported file or engine with PyTorch, another file or stored outputs.

    ARTIFACT is an ONNX file, which runs in ONNX Runtime, or an engine, which runs in TensorRT.

    With --dataset, compare the accuracy on labelled pictures, image by image. Leaves with exit
    code 7 when a tolerance is not met or accuracy was lost. The report goes to parity.json, or
    accuracy.json, in the folder of --report, by default the artifact's.
    """
    folder = report_folder or artifact.parent
    options["top1_agreement"] = options.pop("top1_agree")
    result: ParityReport | AccuracyReport
    if options["dataset"] is None:
        result, path = _compare_outputs(artifact, against, options), folder / "parity.json"
    else:
        result, path = _compare_accuracy(artifact, against, options), folder / "accuracy.json"
    result.write(path)
    say(f"wrote {path}")
    if as_json:
        print_json(result.as_dict())
    result.require_passed()


def _refuse(options: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    """An option that would be without effect is an error."""
    for name in names:
        if options[name] is not None:
            option = "--" + name.replace("_", "-")
            raise VimDeployError("VIM-203", f"{option} has no effect: {why}", fix="leave it out")


def _compare_outputs(artifact: Path, against: str, options: dict[str, Any]) -> ParityReport:
    from vim_deploy.pipeline import verify
    from vim_deploy.pipeline.verifying import VerifyOptions

    _refuse(options, ("max_loss",), "it belongs to --dataset")
    names = ("image_limit", "batches")
    given = {name: options[name] for name in names if options[name] is not None}
    chosen = VerifyOptions(
        images=options["images"],
        random=options["random"],
        limits={name: options[name] for name in _LIMITS if options[name] is not None},
        twin=options["twin"],
        runner=take_runner(options),
        **given,
    )
    result = verify(artifact, against, chosen, command_line())
    print_report(result)
    return result


def _compare_accuracy(artifact: Path, against: str, options: dict[str, Any]) -> AccuracyReport:
    from vim_deploy.parity.accuracy import Limits
    from vim_deploy.pipeline import verify_dataset
    from vim_deploy.pipeline.verifying_dataset import DEFAULT_BATCH, DatasetOptions

    unused = ("images", "random", "atol", "rtol", "relative_l2", "cosine")
    _refuse(options, unused, "--dataset compares classes, not values")
    batches = options["batches"] or (DEFAULT_BATCH,)
    if len(batches) > 1:
        raise VimDeployError(
            "VIM-203", "--dataset is gone through once", fix=f"--batches {batches[0]}"
        )
    limits = Limits(options["max_loss"], options["top1_agreement"])
    chosen = DatasetOptions(
        batches[0], options["image_limit"], limits, options["twin"], take_runner(options)
    )
    with image_progress() as progress:
        result = verify_dataset(
            artifact, against, options["dataset"], chosen, command_line(), progress
        )
    print_accuracy(result)
    return result


def print_accuracy(result: AccuracyReport) -> None:
    """One row for each side, and what the comparison says."""
    from vim_deploy.parity.accuracy import unreadable_lines

    def share(count: int | None) -> str:
        return "-" if count is None else f"{100 * count / result.images:.2f} %  ({count})"

    rows = [
        (role, side.name, share(side.top1), share(side.top5), str(side.not_a_number))
        for role, side in (("reference", result.reference), ("artifact", result.candidate))
    ]
    print_table(
        f"{result.artifact} on {result.dataset}: {result.images} images",
        ("", "runtime", "top-1", "top-5", "NaN"),
        rows,
    )
    say(f"classes: {result.classes_by}")
    say(f"same class on both sides: {result.same_class} of {result.images}")
    for line in (*result.sentences, *unreadable_lines(result.unreadable)):
        say(line)


def print_report(result: ParityReport) -> None:
    """One row for each case, batch size and output."""
    rows = [
        (
            entry.case,
            str(entry.batch),
            item.output,
            f"{item.max_abs:.2e}",
            f"{item.relative_l2:.2e}",
            f"{item.cosine:.7f}",
            _share(item.top1_agreement),
            _share(item.top5_agreement),
            "ok" if item.passed else "; ".join(item.failures),
        )
        for entry in result.results
        for item in entry.comparisons
    ]
    columns = ("case", "batch", "output", "max abs", "rel L2", "cosine", "top-1", "top-5", "")
    print_table(f"{result.candidate} against {result.reference}", columns, rows)
    for note in result.notes:
        say(f"note: {note}")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
