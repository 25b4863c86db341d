"""``vim-deploy package``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from vim_deploy.cli.options import WholeNumber, force_option, ops_option
from vim_deploy.cli.output import answer, json_option, print_table, result, say, say_notes
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.ranges import BATCH, INSTANCES, QUEUE_DELAY_US, SERVED_THREADS
from vim_deploy.specs import Backend

if TYPE_CHECKING:
    from vim_deploy.packaging.check import CheckReport
    from vim_deploy.stages.packaging import PackageResult

#: What a package can be made for -> one line about it.
TARGETS = {
    "triton": "a model repository for Triton Inference Server, with client and scripts",
    "cpp": "a CMake project with an ONNX file or engine and the C++ library that runs it",
    "web": "a page that runs an ONNX file in the browser, offline",
}
#: What is done with the folder after its check.
_THEN = {"triton": "{}/run.sh", "cpp": "read {}/README.md", "web": "read {}/README.md"}
_SERVING = (
    "runtime",
    "name",
    "max_batch",
    "instances",
    "queue_delay_us",
    "dynamic_batching",
    "cuda_graphs",
    "threads",
    "ops",
)


@click.command("package")
@click.argument("artifact", metavar="ARTIFACT-or-FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--target",
    type=click.Choice(list(TARGETS)),
    default="triton",
    show_default=True,
    help="; ".join(f"{name}: {text}" for name, text in TARGETS.items()) + ".",
)
@click.option("--check", is_flag=True, help="Check the package in FOLDER instead of making one.")
@click.option(
    "--runtime",
    type=click.Choice(get_args(Backend)),
    help="Triton's backend; python runs an ONNX file on a CPU, also without a container.  "
    "[default: tensorrt for an engine, onnxruntime for an ONNX file]",
)
@click.option("--name", help="Of the model.  [default: the artifact's]")
@click.option(
    "--max-batch",
    type=WholeNumber(BATCH),
    help="Most pictures in one execution.  [default: the engine's largest, 32 for an ONNX file, 1 "
    "for a detector's]",
)
@click.option(
    "--instances",
    type=WholeNumber(INSTANCES),
    default=1,
    show_default=True,
    help="Copies of the model that run side by side.",
)
@click.option(
    "--queue-delay-us",
    type=WholeNumber(QUEUE_DELAY_US),
    default=500,
    show_default=True,
    help="How long a request waits for others to join its batch, in microseconds.",
)
@click.option(
    "--dynamic-batching/--no-dynamic-batching",
    default=True,
    show_default=True,
    help="Join requests of several clients to one batch.",
)
@click.option("--cuda-graphs", is_flag=True, help="Record CUDA graphs, for engines.")
@click.option(
    "--threads",
    type=WholeNumber(SERVED_THREADS),
    default=0,
    show_default=True,
    help="Threads inside one operator, for the python runtime; 0 for its own choice.",
)
@ops_option(
    "Native ops for an ONNX file on a CPU: taken along where they are found and the server is "
    "known to load them, in any case, or never (function)."
)
@click.option("--image", help="Triton's container image; must hold the engine's TensorRT.")
@click.option(
    "--plugin", type=click.Path(path_type=Path), help="Plugin library to put beside an engine."
)
@click.option(
    "--golden-from",
    type=click.Path(path_type=Path),
    metavar="MODEL.onnx",
    help="Store this file's outputs, where the engine built from it does not run.",
)
@click.option(
    "--web-runtime",
    type=click.Path(path_type=Path),
    metavar="FOLDER-or-TGZ",
    help="The npm package onnxruntime-web for a page.  [default: the one fetched before; else "
    "it is fetched from npm's registry]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write.")
@force_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    artifact: Path,
    target: str,
    check: bool,
    output: Path | None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Make a folder that serves, embeds or shows an ONNX file or engine, or check one.

    For Triton it holds the artifact, its configuration, scripts that start the server on 127.0.0.1,
    a client and stored outputs; for C++ the artifact, its native ops or plugin library, and a CMake
    project; for a browser the ONNX file, a page and onnxruntime-web. All have a manifest with the
    hash of every file.
    """
    from vim_deploy.packaging.repository import ServingOptions
    from vim_deploy.stages.packaging import PackageOptions, check_package, package

    if check:
        _refuse_others(context)
        report = check_package(artifact)
        _print_checks(report)
        answer(encode(report))
        return
    serving = ServingOptions(**{name: options.pop(name) for name in _SERVING})
    made = package(artifact, output, PackageOptions(serving, target=target, **options))
    _print_made(made)
    answer(encode(made))


def _refuse_others(context: click.Context) -> None:
    """VIM-203 for an option that says how to make a package."""
    given = [
        name
        for name in context.params
        if name not in ("artifact", "check")
        and context.get_parameter_source(name) == ParameterSource.COMMANDLINE
    ]
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise VimDeployError(
            "VIM-203", "--check takes a package as it is", fix=f"leave {options} away"
        )


def _print_checks(report: CheckReport) -> None:
    rows = [
        (item.name, "passed" if item.checked else "not checked", item.detail)
        for item in report.checks
    ]
    print_table(f"{report.folder}: {report.name}, {report.runtime}", ("check", "", ""), rows)


def _print_made(made: PackageResult) -> None:
    say_notes(made.notes)
    if made.up_to_date:
        say(f"{made.folder} is up to date")
    else:
        say(f"wrote {made.folder}: {made.name} for {made.runtime}, {len(made.files)} files")
    result(str(made.folder))
    if not made.up_to_date:
        folder = shlex.quote(str(made.folder))
        say(f"next: vim-deploy package --check {folder}; {_THEN[made.target].format(folder)}")
