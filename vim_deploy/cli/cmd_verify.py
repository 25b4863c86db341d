"""``vim-deploy verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vim_deploy.cli.options import WholeNumbers, json_option, runner_options, take_runner
from vim_deploy.cli.output import command_line, print_json, print_table, say

if TYPE_CHECKING:
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
    "--image-limit", type=click.IntRange(min=1), default=64, show_default=True, help="At most N."
)
@click.option("--random", type=click.IntRange(min=1), help="Number of random images.")
@click.option(
    "--batches",
    type=WholeNumbers(),
    help="Batch sizes to run.  [default: 1,2,5; those of an engine's profiles]",
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
    batches: tuple[int, ...] | None,
    report_folder: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Compare an exported file or engine with PyTorch, another file or stored outputs.

    ARTIFACT is an ONNX file, which runs in ONNX Runtime, or an engine, which runs in TensorRT.

    Leaves with exit code 7 when a tolerance is not met. The report goes to parity.json in the
    folder of --report, by default the artifact's.
    """
    from vim_deploy.pipeline import verify
    from vim_deploy.pipeline.verifying import VerifyOptions

    options["top1_agreement"] = options.pop("top1_agree")
    given = {name: options.pop(name) for name in _LIMITS}
    limits = {name: value for name, value in given.items() if value is not None}
    runner = take_runner(options)
    result = verify(
        artifact,
        against,
        VerifyOptions(batches=batches, limits=limits, runner=runner, **options),
        command_line(),
    )
    path = (report_folder or artifact.parent) / "parity.json"
    result.write(path)
    print_report(result)
    say(f"wrote {path}")
    if as_json:
        print_json(result.as_dict())
    result.require_passed()


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
