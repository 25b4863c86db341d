"""``vim-deploy export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vim_deploy.cli.options import (
    force_option,
    graph_options,
    model_options,
    output_option,
    take_request,
)
from vim_deploy.cli.output import json_option, print_json, say
from vim_deploy.codec import encode

if TYPE_CHECKING:
    from vim_deploy.stages.exporting import ExportOptions, ExportResult

#: Kinds of notes that are said at the end; others were said while they came up.
_SAID = ("not fused", "kept in float32", "lost bits", "not checked")


def take_export_options(options: dict[str, Any], force: bool = False) -> ExportOptions:
    """Take ``graph_options``'s values out of a command's keywords."""
    from vim_deploy.stages.exporting import ExportOptions

    names = ("graph", "scan_body", "dump_passes", "precision", "precision_policy", "io_precision",
             "opset", "preprocess", "head")  # fmt: skip
    return ExportOptions(
        batch=options.pop("batch") or None,
        check=not options.pop("no_check"),
        force=force,
        **{name: options.pop(name) for name in names},
    )


@click.command("export")
@model_options
@graph_options
@output_option
@force_option
@json_option
def command(output: Path | None, force: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Export a checkpoint to one self-describing ONNX file.

    CHECKPOINT-OR-RECIPE is a checkpoint (.pth, .safetensors or a folder holding one), a hub
    address hf://owner/name[/file], the name of a recipe (vim-deploy recipes list) or a recipe
    file. The file is compared with PyTorch before it is put in place.
    """
    from vim_deploy.stages import export

    request = take_request(options)
    result = export(request, output, take_export_options(options, force))
    _report(result)
    if as_json:
        print_json(encode(result))


def _report(result: ExportResult) -> None:
    if result.up_to_date:
        say(f"up to date: {result.path}")
        return
    summary = result.summary
    say(
        f"wrote {result.path}: {result.info.model}, {result.info.graph} {result.info.precision} "
        f"graph, {result.info.scan_body} body, {result.path.stat().st_size / 1e6:.1f} MB, "
        f"{summary.blocks} blocks, {summary.scans} scans ({summary.fused_scans} fused pairs), "
        f"{sum(summary.ops.values())} nodes, {result.seconds:.1f} s"
    )
    if result.activations is not None:
        say(str(result.activations))
    for path in result.files[1:]:
        say(
            f"wrote {path}: the weights, {path.stat().st_size:,} bytes; keep the two files together"
        )
    for note in result.notes:
        if note.kind in _SAID:
            say(note.text)
    if result.parity is not None:
        worst = result.parity.worst
        say(
            f"checked: {result.parity.candidate} against {result.parity.reference}, "
            + worst.in_words
        )
