"""``vim-deploy plugin``: build, describe and test the TensorRT plugin library."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from vim_deploy.cli.options import WholeNumber, force_option, output_option
from vim_deploy.cli.output import answer, json_option, print_table, result, say
from vim_deploy.codec import encode
from vim_deploy.ranges import THREADS
from vim_deploy.specs import Generation

library_argument = click.argument(
    "library", type=click.Path(path_type=Path), required=False, default=None
)


@click.group("plugin")
def command() -> None:
    """Build, describe and test the TensorRT plugin library."""


@command.command("build")
@click.option(
    "--arch",
    default="native",
    show_default=True,
    help="GPUs to compile for: native, all, or a list such as 80,90.",
)
@click.option(
    "--tensorrt",
    type=click.Choice(get_args(Generation)),
    default="10",
    show_default=True,
    help="TensorRT release; a library for 10 serves 11 and the other way round.",
)
@click.option(
    "--tensorrt-root", type=click.Path(path_type=Path), help="Where TensorRT's headers are."
)
@click.option("--cuda-root", type=click.Path(path_type=Path), help="CUDA toolkit to compile with.")
@click.option(
    "--jobs", type=WholeNumber(THREADS), default=2, show_default=True, help="Compilers at once."
)
@output_option
@force_option
@json_option
def build(
    arch: str,
    tensorrt: str,
    tensorrt_root: Path | None,
    cuda_root: Path | None,
    jobs: int,
    output: Path | None,
    force: bool,
) -> None:
    """Compile libvim_plugins.so; the same settings are compiled once and kept in a cache."""
    from vim_deploy.plugin.build import PluginSettings, build_plugin

    settings = PluginSettings(arch, tensorrt, tensorrt_root, cuda_root, jobs)
    built = build_plugin(settings, output, say, force=force)
    state = "up to date" if built.up_to_date else f"built in {built.seconds:.0f} s"
    say(f"{built.library}: {state}, for TensorRT {' and '.join(built.info.serves)}")
    result(str(built.library))
    answer(encode(built))


@command.command("info")
@library_argument
@json_option
def info(library: Path | None) -> None:
    """Ops, versions and GPU architectures of LIBRARY (the one built last by default)."""
    from vim_deploy.plugin.describe import describe_plugin, find_plugin_library

    found = describe_plugin(find_plugin_library(library))
    if answer({**encode(found), "serves": list(found.serves)}):
        return
    rows = [
        ("file", found.path),
        ("sha256", found.sha256),
        ("ops", ", ".join(found.ops)),
        ("op version", found.plugin_version),
        ("contract", str(found.contract_version)),
        ("TensorRT", f"{' and '.join(found.serves)} (compiled with headers of {found.tensorrt})"),
        ("plugin interface", found.interface),
        ("CUDA", found.cuda),
        ("GPU code", ", ".join(found.architectures)),
        ("kernels", found.kernels),
    ]
    print_table("plugin library", ("what", "value"), rows)


@command.command("test")
@library_argument
@json_option
def test(library: Path | None) -> None:
    """Run every op of LIBRARY on the GPU at hand and compare with float64."""
    from vim_deploy.plugin.check import check_plugin_on_gpu

    report = check_plugin_on_gpu(library, say)
    rows = [
        (line.op, line.dtype, str(line.cases), f"{line.worst:.2e}", f"{line.tolerance:.2e}")
        for line in report.summary()
    ]
    print_table(
        f"{report.library} on {report.gpu}",
        ("op", "dtype", "runs", "worst relative L2", "allowed"),
        rows,
    )
    answer(encode(report), report.require_ok)
