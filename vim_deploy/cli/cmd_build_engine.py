"""``vim-deploy build-engine``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vim_deploy.cli.engine_options import (
    precision_options,
    take_precision,
    take_tensorrt_options,
    tensorrt_options,
)
from vim_deploy.cli.options import (
    force_option,
    json_option,
    output_option,
    profile_options,
    runtime_options,
)
from vim_deploy.cli.output import build_progress, command_line, print_json, print_table, say

if TYPE_CHECKING:
    from vim_deploy.artifact.profiles import ProfileOptions
    from vim_deploy.artifact.record import EngineRecord


def take_profiles(options: dict[str, Any]) -> ProfileOptions:
    """Take ``profile_options``'s values out of a command's keywords."""
    from vim_deploy.artifact.profiles import ProfileOptions

    names = ("min_batch", "opt_batch", "max_batch", "min_shapes", "opt_shapes", "max_shapes")
    return ProfileOptions(**{name: options.pop(name) for name in (*names, "indices")})


compute_capability_option = click.option(
    "--compute-capability",
    "compute_capabilities",
    multiple=True,
    metavar="CC",
    help="TensorRT-RTX: GPU to build for, such as 8.6; repeatable. Default: all from 8.0 on.",
)


@click.command("build-engine")
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@runtime_options
@precision_options
@profile_options
@compute_capability_option
@tensorrt_options
@click.option("--dry-run", is_flag=True, help="Say what would be built, and build nothing.")
@output_option
@force_option
@json_option
def command(
    model: Path,
    output: Path | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Build an engine from an exported ONNX file.

    Writes the raw plan and a record of it, NAME.plan and NAME.plan.json. Full TensorRT (8.6, 10,
    11) builds for the GPU at hand, with the plugin library. TensorRT-RTX builds without a GPU; its
    engines run on compute capability 7.5, 8.0, 8.6, 8.9 and 12.x only.
    """
    from vim_deploy.stages.building import build_engine, plan_engine

    # What is left in options, the runtime and the compute capabilities, has the stage's names.
    asked: dict[str, Any] = {
        "profiles": take_profiles(options),
        "precision": take_precision(options),
        "options": take_tensorrt_options(options),
        **options,
    }
    if dry_run:
        report_plan(plan_engine(model, output, **asked), as_json)
        return
    with build_progress() as progress:
        record = build_engine(
            model, output, progress=progress, force=force, command=command_line(), **asked
        )
    report(record)
    if as_json:
        print_json({**record.as_dict(), "up_to_date": record.up_to_date})


def report_plan(decided: dict[str, Any], as_json: bool) -> None:
    """What would be built, as a table or as JSON."""
    from vim_deploy.cli.cmd_inspect import flat_rows

    if as_json:
        print_json({"dry_run": True, **decided})
    print_table("nothing was built; this would be", ("what", "value"), flat_rows(decided))


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
