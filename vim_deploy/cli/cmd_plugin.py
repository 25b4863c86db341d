"""``vim-deploy plugin``: build, describe and test plugin libraries and native ops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from vim_deploy.cli.options import WholeNumber, force_option, output_option
from vim_deploy.cli.output import answer, json_option, print_table, result, say
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.ranges import THREADS
from vim_deploy.specs import Generation, OpsProvider, PluginTarget

if TYPE_CHECKING:
    from vim_deploy.plugin.check import CheckReport
    from vim_deploy.plugin.describe import PluginInfo
    from vim_deploy.plugin.ort_library import OrtLibraryInfo

library_argument = click.argument(
    "library", type=click.Path(path_type=Path), required=False, default=None
)

target_option = click.option(
    "--target",
    type=click.Choice(get_args(PluginTarget)),
    help="Plugins for full TensorRT, or native ops for ONNX Runtime (docs/native-ops.md).  "
    "[default: tensorrt]",
)
provider_option = click.option(
    "--provider",
    type=click.Choice(get_args(OpsProvider)),
    help="Of --target onnxruntime: where the ops run.  [default: cpu]",
)


@click.group("plugin")
def command() -> None:
    """Build, describe and test the TensorRT plugin library, and ONNX Runtime's native ops."""


@command.command("build")
@target_option
@provider_option
@click.option(
    "--arch",
    help="GPUs to compile for: native, all, or a list such as 80,90.  [default: native where there "
    "is a GPU, else all]",
)
@click.option(
    "--tensorrt",
    type=click.Choice(get_args(Generation)),
    help="TensorRT release; a library for 10 serves 11 and the other way round.  [default: 10]",
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
    target: PluginTarget | None,
    provider: OpsProvider | None,
    arch: str | None,
    tensorrt: str | None,
    tensorrt_root: Path | None,
    cuda_root: Path | None,
    jobs: int,
    output: Path | None,
    force: bool,
) -> None:
    """Compile a library; the same settings are compiled once and kept in a cache.

    libvim_plugins.so for TensorRT; libvim_ort_cpu.so or libvim_ort_cuda.so for ONNX Runtime.
    """
    if target == "onnxruntime":
        _refuse({"--tensorrt": tensorrt, "--tensorrt-root": tensorrt_root}, "--target tensorrt")
        if provider != "cuda":
            _refuse({"--arch": arch, "--cuda-root": cuda_root}, "GPUs: add --provider cuda")
        from vim_deploy.plugin.build_ort import OrtBuildSettings, build_ort_library

        gpus = _gpus(arch) if provider == "cuda" else "native"
        wanted = OrtBuildSettings(provider or "cpu", gpus, cuda_root, jobs)
        made = build_ort_library(wanted, output, say, force=force)
        _report(made.library, made.up_to_date, made.seconds, f"{made.info.title} for ONNX Runtime")
        answer(encode(made))
        return
    _refuse({"--provider": provider}, "--target onnxruntime")
    from vim_deploy.plugin.build import PluginSettings, build_plugin

    settings = PluginSettings(_gpus(arch), tensorrt or "10", tensorrt_root, cuda_root, jobs)
    built = build_plugin(settings, output, say, force=force)
    serves = " and ".join(built.info.serves)
    _report(built.library, built.up_to_date, built.seconds, f"for TensorRT {serves}")
    answer(encode(built))


def _gpus(arch: str | None) -> str:
    from vim_deploy.plugin.build import default_arch

    return arch or default_arch(say)


def _refuse(given: dict[str, object], what: str) -> None:
    """VIM-203 for an option that is for something else."""
    for option, value in given.items():
        if value is not None:
            raise VimDeployError("VIM-203", f"{option} is for {what}", fix=f"leave {option} out")


def _report(library: Path, up_to_date: bool, seconds: float, what: str) -> None:
    state = "up to date" if up_to_date else f"built in {seconds:.0f} s"
    say(f"{library}: {state}, {what}")
    result(str(library))


@command.command("info")
@library_argument
@target_option
@provider_option
@json_option
def info(library: Path | None, target: PluginTarget | None, provider: OpsProvider | None) -> None:
    """Ops, versions and processors of LIBRARY, of either kind unless --target says which.

    By default the library that would be taken for --target.
    """
    from vim_deploy.plugin.describe import find_plugin_library
    from vim_deploy.plugin.ort_library import OrtLibraryInfo

    if target == "onnxruntime":
        path = _native_ops(library, provider)
    else:
        _refuse({"--provider": provider}, "--target onnxruntime")
        path = library or find_plugin_library()
    found = _describe(path, target or (None if library else "tensorrt"))
    if isinstance(found, OrtLibraryInfo):
        if not answer(encode(found)):
            print_table("native ops for ONNX Runtime", ("what", "value"), _ops_rows(found))
        return
    if not answer({**encode(found), "serves": list(found.serves)}):
        print_table("plugin library", ("what", "value"), _plugin_rows(found))


def _native_ops(library: Path | None, provider: OpsProvider | None) -> Path:
    """The library of native ops to look at.

    VIM-401 when there is none; VIM-903 when it is for another provider than the one asked for.
    """
    from vim_deploy.plugin.ort_library import (
        describe_ort_library,
        find_ort_library,
        no_ort_library,
        require_provider,
    )

    found = find_ort_library(provider or "cpu", library)
    if found is None:
        raise no_ort_library(provider or "cpu")
    if provider is not None:
        require_provider(describe_ort_library(found), provider)
    return found


def _describe(path: Path, target: PluginTarget | None) -> PluginInfo | OrtLibraryInfo:
    """What a library says of itself; VIM-417 when it is not for ``target``, where that is said."""
    from vim_deploy.plugin.describe import BUILD, describe_plugin, not_ours, open_library, own_words
    from vim_deploy.plugin.ort_library import build_command, describe_ort_library

    build = build_command("cpu") if target == "onnxruntime" else BUILD
    words = own_words(path, open_library(path, build), build)
    kind: PluginTarget = "onnxruntime" if "ort_api" in words else "tensorrt"
    if target not in (None, kind):
        raise not_ours(path, f"it is for --target {kind}, not {target}", build)
    return describe_ort_library(path) if kind == "onnxruntime" else describe_plugin(path)


def _plugin_rows(found: PluginInfo) -> list[tuple[str, str]]:
    return [
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


def _ops_rows(found: OrtLibraryInfo) -> list[tuple[str, str]]:
    used = f" (here: {found.instruction_set})" if found.instruction_set else ""
    rows = [
        ("file", found.path),
        ("sha256", found.sha256),
        ("ops", ", ".join(found.ops)),
        ("domain", f"{found.domain}, version {found.domain_version}"),
        ("contract", str(found.contract_version)),
        ("version", found.version),
        ("execution provider", found.provider),
        ("ONNX Runtime", f"C API {found.ort_api} (1.{found.ort_api} and later)"),
        ("instruction sets", ", ".join(found.instruction_sets) + used),
        ("CUDA", found.cuda),
        ("GPU code", ", ".join(found.architectures)),
        ("C library", f"glibc {found.glibc} and later" if found.glibc else ""),
        ("compiler", found.compiler),
        ("kernels", found.kernels),
    ]
    return [row for row in rows if row[1]]


@command.command("test")
@library_argument
@target_option
@provider_option
@json_option
def test(library: Path | None, target: PluginTarget | None, provider: OpsProvider | None) -> None:
    """Run every op of LIBRARY, by default the one to be taken, and compare with float64.

    Kernels for TensorRT run on the GPU at hand, native ops in the ONNX Runtime that is installed.
    """
    report: CheckReport
    if target == "onnxruntime":
        from vim_deploy.runtimes.onnxruntime.check_ops import check_native_ops

        report = check_native_ops(_native_ops(library, provider), say)
    else:
        _refuse({"--provider": provider}, "--target onnxruntime")
        from vim_deploy.plugin.check import check_plugin_on_gpu

        report = check_plugin_on_gpu(library, say)
    rows = [
        (line.op, line.dtype, str(line.cases), f"{line.worst:.2e}", f"{line.tolerance:.2e}")
        for line in report.summary()
    ]
    print_table(
        f"{report.library} on {report.place}",
        ("op", "dtype", "runs", "worst relative L2", "allowed"),
        rows,
    )
    answer(encode(report), report.require_ok)
