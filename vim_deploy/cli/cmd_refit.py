"""``vim-deploy refit``."""

from __future__ import annotations

from pathlib import Path

import click

from vim_deploy.cli.options import force_option, key_option, use_ema_option
from vim_deploy.cli.output import answer, command_line, json_option, result, say, show_build
from vim_deploy.codec import encode


@click.command("refit")
@click.argument("engine", metavar="ENGINE", type=click.Path(path_type=Path))
@click.argument("source", metavar="CHECKPOINT-OR-ONNX", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="New engine; by default ENGINE itself."
)
@click.option(
    "--plugin",
    default="auto",
    show_default=True,
    metavar="PATH",
    help="Plugin library to load the engine with; auto finds or builds one.",
)
@use_ema_option
@key_option
@force_option
@json_option
def command(
    engine: Path,
    source: Path,
    output: Path | None,
    plugin: str,
    use_ema: bool,
    key: str | None,
    force: bool,
) -> None:
    """Give an engine the weights of another checkpoint of the same model.

    The engine must have been built with --refit or --strip-weights. Every weight is set, or
    nothing changes.
    """
    from vim_deploy.stages import refit

    record = refit(
        engine,
        source,
        output,
        plugin=plugin,
        use_ema=use_ema,
        key=key,
        progress=show_build,
        force=force,
        command=command_line(),
    )
    say(f"wrote {record.plan.name} and {record.plan.name}.json: weights of {source.name}")
    result(str(output or engine))
    answer(encode(record))
