"""``vim-deploy build-engine``, and the options of every command that builds an engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from vim_deploy import precisions
from vim_deploy.cli.options import WholeNumber, all_of, force_option, output_option
from vim_deploy.cli.output import (
    answer,
    command_line,
    json_option,
    print_table,
    result,
    say,
    show_build,
)
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.ranges import BATCH, OPT_LEVEL, PROFILE, WORKSPACE_MIB
from vim_deploy.runtimes import AUTO, builders
from vim_deploy.specs import HardwareCompat

if TYPE_CHECKING:
    from vim_deploy.artifact.profiles import ProfileOptions
    from vim_deploy.artifact.record import EngineRecord
    from vim_deploy.runtimes.building.request import TrtOptions

_RUNTIME = click.option(
    "--runtime",
    type=click.Choice([AUTO, *(row.name for row in builders())]),
    default=AUTO,
    show_default=True,
    help="What builds the engine.",
)

_PRECISION_OPTIONS = (
    click.option(
        "--precision",
        type=click.Choice(precisions.FLOATS),
        help="Types a float32 file in memory; else must match.  [default: the graph's]",
    ),
    click.option("--fp16", is_flag=True, help="Short for --precision fp16."),
)

_PROFILE_OPTIONS = (
    click.option("--min-batch", type=WholeNumber(BATCH), help="Smallest batch.  [default: 1]"),
    click.option("--opt-batch", type=WholeNumber(BATCH), help="Tuned batch.  [default: 8]"),
    click.option("--max-batch", type=WholeNumber(BATCH), help="Largest batch.  [default: 32]"),
    click.option("--minShapes", "min_shapes", multiple=True, help="As trtexec: image:1x3x224x224."),
    click.option("--optShapes", "opt_shapes", multiple=True, help="As trtexec."),
    click.option("--maxShapes", "max_shapes", multiple=True, help="As trtexec."),
    click.option(
        "--profile",
        "indices",
        type=WholeNumber(PROFILE),
        multiple=True,
        help="Number of the profile whose shapes follow, as trtexec; may be left out.",
    ),
)

_COMPUTE_CAPABILITY = click.option(
    "--compute-capability",
    "compute_capabilities",
    multiple=True,
    metavar="CC",
    help="TensorRT-RTX: GPU to build for, such as 8.6; repeatable. Default: all from 8.0 on.",
)

_TENSORRT_OPTIONS = (
    click.option(
        "--plugin",
        default="auto",
        show_default=True,
        metavar="PATH",
        help="Plugin library; auto finds or builds one, none takes the ops' local functions.",
    ),
    click.option(
        "--timing-cache",
        default="on",
        show_default=True,
        metavar="on|off|FILE",
        help="Reuse kernel timings of earlier builds on this GPU with this TensorRT.",
    ),
    click.option("--opt-level", type=WholeNumber(OPT_LEVEL), help="Builder optimisation level."),
    click.option(
        "--workspace",
        "workspace_mib",
        type=WholeNumber(WORKSPACE_MIB),
        metavar="MIB",
        help="Limit of the builder's workspace.  [default: the GPU's memory]",
    ),
    click.option(
        "--hardware-compat",
        type=click.Choice(get_args(HardwareCompat)),
        default="none",
        show_default=True,
        help="GPUs the engine runs on besides this one.",
    ),
    click.option(
        "--version-compatible", is_flag=True, help="Runs on later versions of TensorRT, slower."
    ),
    click.option(
        "--embed-plugin",
        is_flag=True,
        help="Put the plugin library into the engine (needs --version-compatible).",
    ),
    click.option("--refit", is_flag=True, help="Weights can be exchanged: vim-deploy refit."),
    click.option(
        "--strip-weights", is_flag=True, help="Leave the weights out; refit before it is used."
    ),
    click.option("--tf32", is_flag=True, help="Round factors of float32 matrix products to TF32."),
    click.option(
        "--tactic-sources",
        default="",
        metavar="LIST",
        help="As trtexec: -CUDNN,-CUBLAS,+JIT_CONVOLUTIONS.",
    ),
    click.option(
        "--export-layers",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write the engine inspector's full description as JSON.",
    ),
    click.option(
        "--inner-tensors",
        is_flag=True,
        help="For diagnosis: give out inner tensors, for verify --per-block.",
    ),
)

_BUILD = (*_PROFILE_OPTIONS, _COMPUTE_CAPABILITY, *_TENSORRT_OPTIONS)
engine_options = all_of((_RUNTIME, *_BUILD))


def take_engine_options(options: dict[str, Any]) -> tuple[ProfileOptions, TrtOptions]:
    """Take the values of profiles and of full TensorRT out of a command's keywords."""
    from vim_deploy.artifact.profiles import ProfileOptions
    from vim_deploy.runtimes.building.request import TrtOptions

    def take(kind: Any) -> Any:  # noqa: ANN401 - a dataclass
        return kind(**{entry.name: options.pop(entry.name) for entry in dataclasses.fields(kind)})

    return take(ProfileOptions), take(TrtOptions)


def _take_precision(options: dict[str, Any]) -> str:
    """Take the precision; empty when nothing was asked for.

    Raises:
        VimDeployError: VIM-203 when ``--fp16`` contradicts ``--precision``.
    """
    precision: str = options.pop("precision") or ""
    if not options.pop("fp16"):
        return precision
    if precision not in ("", "fp16"):
        raise VimDeployError(
            "VIM-203",
            f"--fp16 contradicts --precision {precision}",
            fix="leave out one of the two",
        )
    return "fp16"


@click.command("build-engine")
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@all_of((_RUNTIME, *_PRECISION_OPTIONS, *_BUILD))
@click.option("--dry-run", is_flag=True, help="Say what would be built, and build nothing.")
@output_option
@force_option
@json_option
def command(
    model: Path,
    output: Path | None,
    dry_run: bool,
    force: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Build an engine from an exported ONNX file.

    Writes the raw plan and a record of it, NAME.plan and NAME.plan.json. Full TensorRT (8.6, 10,
    11) builds for the GPU at hand, with the plugin library. TensorRT-RTX builds without a GPU; its
    engines run on compute capability 7.5, 8.0, 8.6, 8.9 and 12.x only.
    """
    from vim_deploy.runtimes.building.request import BuildRequest
    from vim_deploy.stages.building import build, plan_build

    profiles, tensorrt = take_engine_options(options)
    precision = _take_precision(options)
    # What is left in options, the runtime and the compute capabilities, has the request's names.
    request = BuildRequest(
        model,
        output,
        profiles=profiles,
        tensorrt=tensorrt,
        precision=precision,
        force=force,
        command=command_line(),
        **options,
    )
    if dry_run:
        report_plan(plan_build(request))
        return
    record = build(request, show_build)
    report(record)
    result(str(request.plan))
    answer({**encode(record), "up_to_date": record.up_to_date})


def report_plan(decided: dict[str, Any]) -> None:
    """What would be built, as a table or as JSON."""
    from vim_deploy.cli.cmd_inspect import flat_rows

    print_table("nothing was built; this would be", ("what", "value"), flat_rows(decided))
    answer({"dry_run": True, **decided})


def report(record: EngineRecord) -> None:
    """What was built, in a few lines."""
    if record.up_to_date:
        say(f"up to date: {record.plan.name}")
        return
    say(
        f"wrote {record.plan.name} ({record.plan.bytes / 1e6:.1f} MB) and {record.plan.name}.json: "
        f"{record.runtime} {record.runtime_version}, {record.layers} layers"
    )
    say(
        f"built in {record.build_seconds:.1f} s with {record.peak_memory_bytes / 1e9:.2f} GB; "
        f"runs on compute capability {', '.join(record.compute_capabilities)}"
        + (" and later" if record.later_gpus else "")
    )
    if record.engine_layers:
        counts = [f"{count} {op}" for op, count in record.plugin_layers.items()]
        types = [f"{count} in {dtype}" for dtype, count in record.layer_types.items()]
        say(
            f"in the engine: {record.precision}, {record.engine_layers} layers "
            f"({', '.join(types)}); plugin layers: {', '.join(counts) or 'none'}"
        )
    if record.inner_tensors:
        say(
            f"for diagnosis only: it gives out {len(record.inner_tensors)} inner tensors, for "
            "verify --per-block"
        )
    if record.stripped:
        say(f"it holds no weights: vim-deploy refit {record.plan.name} {record.source.name}")
