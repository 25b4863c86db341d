"""``vim-deploy inspect``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from vim_deploy.cli.options import json_option
from vim_deploy.cli.output import print_json, print_table


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def command(file: Path, as_json: bool) -> None:
    """Describe an ONNX file, engine, checkpoint or recipe.

    Reads an engine's header and record without loading it, so no GPU is needed.
    """
    from vim_deploy.pipeline import inspect

    description = inspect(file)
    if as_json:
        print_json(description)
        return
    kind = description["kind"]
    print_table(f"{file.name}: {kind}", ("what", "value"), flat_rows(description))


def flat_rows(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as dotted keys; lists of plain values on one line."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            yield from flat_rows(item, f"{name}.")
        elif isinstance(item, list | tuple) and any(isinstance(part, dict) for part in item):
            for index, part in enumerate(item):
                yield from flat_rows(part, f"{name}[{index}].")
        else:
            yield name, _text(item)


def _text(item: Any) -> str:  # noqa: ANN401
    if isinstance(item, list | tuple):
        return ", ".join(map(str, item)) if len(item) <= 12 else f"{len(item)} entries"
    return "-" if item is None else str(item)
