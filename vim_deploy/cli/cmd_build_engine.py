"""``vim-deploy build-engine``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vim_deploy.cli.options import (
    force_option,
    json_option,
    output_option,
    profile_options,
    runtime_options,
)
from vim_deploy.cli.output import build_progress, command_line, print_json, say

if TYPE_CHECKING:
    from vim_deploy.engine.profiles import ProfileOptions
    from vim_deploy.engine.record import EngineRecord


def take_profiles(options: dict[str, Any]) -> ProfileOptions:
    """Take ``profile_options``'s values out of a command's keywords."""
    from vim_deploy.engine.profiles import ProfileOptions

    names = ("min_batch", "opt_batch", "max_batch", "min_shapes", "opt_shapes", "max_shapes")
    return ProfileOptions(**{name: options.pop(name) for name in (*names, "indices")})


@click.command("build-engine")
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@runtime_options
@profile_options
@click.option(
    "--compute-capability",
    "gpus",
    multiple=True,
    metavar="CC",
    help="GPU to build for, such as 8.6; repeatable. Default: all from 8.0 on.",
)
@output_option
@force_option
@json_option
def command(
    model: Path,
    runtime: str,
    gpus: tuple[str, ...],
    output: Path | None,
    force: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Build an engine from an exported ONNX file.

    Writes the raw plan and a record of it, NAME.plan and NAME.plan.json. TensorRT-RTX builds
    without a GPU; its engines run on compute capability 7.5, 8.0, 8.6, 8.9 and 12.x only.
    """
    from vim_deploy.pipeline import build_engine

    profiles = take_profiles(options)
    with build_progress() as progress:
        record = build_engine(
            model,
            output,
            runtime=runtime,
            profiles=profiles,
            compute_capabilities=gpus,
            progress=progress,
            force=force,
            command=command_line(),
        )
    report(record)
    if as_json:
        print_json({**record.as_dict(), "up_to_date": record.up_to_date})


def report(record: EngineRecord) -> None:
    """What was built, in two lines."""
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
