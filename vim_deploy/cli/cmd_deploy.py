"""``vim-deploy deploy``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vim_deploy.artifact.engine_file import TENSORRT
from vim_deploy.cli.cmd_build_engine import engine_options, take_engine_options
from vim_deploy.cli.cmd_build_engine import report as report_engine
from vim_deploy.cli.cmd_export import take_export_options
from vim_deploy.cli.options import graph_options, model_options, ops_option, take_request
from vim_deploy.cli.output import (
    answer,
    command_line,
    json_option,
    print_table,
    result,
    say,
    show_build,
)
from vim_deploy.cli.quantization_options import quantization_options
from vim_deploy.cli.verify_tables import print_report
from vim_deploy.codec import encode
from vim_deploy.specs import OpsChoice

if TYPE_CHECKING:
    from vim_deploy.stages.deploying import DeployResult


@click.command("deploy")
@model_options
@graph_options
@quantization_options
@engine_options
@click.option("--images", type=click.Path(path_type=Path), help="Pictures to verify on.")
@ops_option()
@click.option("--no-engine", is_flag=True, help="Stop after the verified ONNX file.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default="vim-deploy-work",
    show_default=True,
    help="Folder in which a new numbered one is made.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for an HTML report of the run, its Markdown twin and deploy.json.  [default: the "
    "numbered folder]",
)
@json_option
def command(
    runtime: str,
    compute_capabilities: tuple[str, ...],
    images: Path | None,
    ops: OpsChoice,
    no_engine: bool,
    work: Path,
    report: Path | None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Export, verify and build in one go, into a numbered work folder.

    Stops at the first stage that fails; what earlier stages made stays.
    """
    from vim_deploy.stages import deploy

    request, export_options = take_request(options), take_export_options(options)
    profiles, trt_options = take_engine_options(options)
    made = deploy(
        request,
        work,
        options=export_options,
        images=images,
        ops=ops,
        engine=not no_engine,
        runtime=runtime,
        profiles=profiles,
        compute_capabilities=compute_capabilities,
        trt_options=trt_options,
        progress=show_build,
        report=report,
        command=command_line(),
    )
    _report(made)
    answer(encode(made))


def _report(made: DeployResult) -> None:
    print_report(made.parity)
    if made.engine is not None:
        report_engine(made.engine)
    rows = [(stage, f"{value:.1f} s") for stage, value in made.seconds.items()]
    print_table(f"made {made.folder}", ("stage", "time"), rows)
    plan = made.engine and made.folder / made.engine.plan.name
    for path in (made.export.path, plan, made.page):
        if path is not None:
            result(str(path))
    # Nothing but a C++ program of the user's own serves an engine of TensorRT-RTX.
    served = plan if made.engine and made.engine.runtime == TENSORRT else made.export.path
    file = shlex.quote(str(served))
    say(f"next: vim-deploy run {file} PICTURES; vim-deploy package {file}")
