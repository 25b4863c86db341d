"""``vim-deploy export``."""

from __future__ import annotations

import shlex
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
from vim_deploy.cli.output import answer, json_option, result, say
from vim_deploy.cli.quantization_options import quantization_options, take_quantize_options
from vim_deploy.codec import encode

if TYPE_CHECKING:
    from vim_deploy.stages.export_options import ExportOptions
    from vim_deploy.stages.exporting import ExportResult

#: Kinds of notes that are said at the end; others were said while they came up.
_SAID = ("not fused", "kept in float32", "lost bits", "quantized", "not checked")


def take_export_options(options: dict[str, Any], force: bool = False) -> ExportOptions:
    """Take values of ``graph_options`` and ``quantization_options`` out of a command's keywords."""
    from vim_deploy.stages.export_options import ExportOptions

    names = ("graph", "scan_body", "standalone", "dump_passes", "precision", "precision_policy",
             "io_precision", "opset", "preprocess", "head")  # fmt: skip
    return ExportOptions(
        batch=options.pop("batch") or None,
        check=not options.pop("no_check"),
        force=force,
        quantize=take_quantize_options(options, options["precision"]),
        **{name: options.pop(name) for name in names},
    )


@click.command("export")
@model_options
@graph_options
@quantization_options
@output_option
@force_option
@json_option
def command(output: Path | None, force: bool, **options: Any) -> None:  # noqa: ANN401
    """Export a checkpoint to one self-describing ONNX file.

    CHECKPOINT-OR-RECIPE is a checkpoint (.pth, .safetensors or a folder holding one), a hub
    address hf://owner/name[/file], the name of a recipe (vim-deploy recipes list) or a recipe
    file. The file is compared with PyTorch before it is put in place. With --standalone it may be
    an exported file, too.
    """
    from vim_deploy.stages import export

    request = take_request(options)
    made = export(request, output, take_export_options(options, force))
    _report(made)
    result(str(made.path))
    if not made.up_to_date:
        seeded = made.info.checkpoint.part == "seeded"
        _say_next(made.path, made.info.checkpoint.name if seeded else request.source)
    answer(encode(made))


def _say_next(path: Path, source: str) -> None:
    """What is done with an exported file, to copy; PICTURES stands for the user's own."""
    file = shlex.quote(str(path))
    say(
        f"next: vim-deploy verify {file} --against {shlex.quote(source)}; "
        f"vim-deploy build-engine {file}; vim-deploy run {file} PICTURES"
    )


def _report(made: ExportResult) -> None:
    if made.up_to_date:
        say(f"up to date: {made.path}")
        return
    summary = made.summary
    inlined = ", standalone" if made.info.standalone else ""
    say(
        f"wrote {made.path}: {made.info.model}, {made.info.graph} {made.info.precision} "
        f"graph, {made.info.scan_body} body{inlined}, {made.path.stat().st_size / 1e6:.1f} MB, "
        f"{summary.blocks} blocks, {summary.scans} scans ({summary.fused_scans} fused pairs), "
        f"{sum(summary.ops.values())} nodes, {made.seconds:.1f} s"
    )
    if made.activations is not None:
        say(str(made.activations))
    for path in made.files[1:]:
        say(
            f"wrote {path}: the weights, {path.stat().st_size:,} bytes; keep the two files together"
        )
    for note in made.notes:
        if note.kind in _SAID:
            say(note.text)
    if made.parity is not None:
        worst = made.parity.worst
        say(f"checked: {made.parity.candidate} against {made.parity.reference}, " + worst.in_words)
