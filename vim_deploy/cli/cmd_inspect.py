"""``vim-deploy inspect``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from vim_deploy.cli.inspect_summary import summary
from vim_deploy.cli.options import WholeNumber, force_option, key_option
from vim_deploy.cli.output import answer, is_verbose, json_option, print_table, result, say
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.ranges import BATCH


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--graph",
    is_flag=True,
    help="An ONNX file's blocks: operators, types, kernel launches, sizes, share of the scans.",
)
@click.option("--batch", type=WholeNumber(BATCH), help="Pictures, for --graph.  [default: 1]")
@click.option("--gpu", help="GPU to predict for, for --graph.  [default: h200]")
@key_option
@click.option(
    "--describe-from",
    metavar="ORIGINAL",
    type=click.Path(path_type=Path),
    help="Write FILE, which a tool made of this exported file, with the description of this one.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="New file, for --describe-from."
)
@force_option
@json_option
def command(
    file: Path,
    graph: bool,
    batch: int | None,
    gpu: str | None,
    key: str | None,
    **carrying: Any,  # noqa: ANN401 - the options of _carry
) -> None:
    """Describe an ONNX file, engine, checkpoint, recipe or package.

    Reads an engine's header and record without loading it, so no GPU is needed. Of a package, a
    folder, every file is compared with the manifest. Prints a summary; -v and --json say all.
    """
    from vim_deploy.stages import inspect
    from vim_deploy.stages.inspecting import GraphQuestion

    if any(carrying.values()):
        _carry(file, asked=(graph, batch, gpu, key), **carrying)
        return
    if not graph and (batch is not None or gpu is not None):
        raise VimDeployError(
            "VIM-203", "--batch and --gpu belong to --graph", fix="add --graph, or leave them out"
        )
    question = GraphQuestion(batch=batch or 1, gpu=gpu or "h200") if graph else None
    description = inspect(file, question, key=key)
    if answer(description):
        return
    inventory = description.pop("inventory", None)
    title = f"{file.name}: {description['kind']}"
    if is_verbose():
        _print_sections(title, description)
    else:
        print_table(title, ("what", "value"), summary(description))
        say(f"all that is known: vim-deploy inspect -v {shlex.quote(str(file))}")
    if inventory is not None:
        _print_inventory(inventory)


def _carry(
    file: Path,
    *,
    asked: tuple[object, ...],
    describe_from: Path | None,
    output: Path | None,
    force: bool,
) -> None:
    """Write the file that says again what it is."""
    from vim_deploy.stages import describe_from as carry_over

    if describe_from is None or output is None or any(item not in (None, False) for item in asked):
        raise VimDeployError(
            "VIM-203",
            "--describe-from and -o belong together, and take no other option but --force",
            fix="vim-deploy inspect CHANGED.onnx --describe-from ORIGINAL.onnx -o NEW.onnx",
        )
    made = carry_over(file, describe_from, output, force=force)
    if answer(encode(made)):
        return
    differs = f"; other than there: {', '.join(made.changed)}" if made.changed else ""
    say(f"wrote {made.path}: {file.name} with the description of {describe_from.name}{differs}")
    # That both hold the same weights no description shows.
    again = shlex.join(["vim-deploy", "verify", str(made.path), "--against", str(describe_from)])
    say(f"next: {again}")
    result(str(made.path))


#: Rows up to which a description is one table.
_ONE_TABLE = 20


def _print_sections(title: str, description: dict[str, Any]) -> None:
    """One table, or where that would be long, one for each mapping that the description holds."""
    if len(list(flat_rows(description))) <= _ONE_TABLE:
        print_table(title, ("what", "value"), flat_rows(description))
        return
    parts = {key: item for key, item in description.items() if isinstance(item, dict) and item}
    rest = {key: item for key, item in description.items() if key not in parts}
    print_table(title, ("what", "value"), flat_rows(rest))
    for key, part in parts.items():
        # Names stay whole: a row found by grep says what it is about.
        print_table(key, ("what", "value"), flat_rows(part, f"{key}."))


_BLOCK_COLUMNS = ("block", "nodes", "types", "launches", "parameters", "activations, MB")


def _print_inventory(inventory: dict[str, Any]) -> None:
    tokens = inventory["tokens"]
    title = (f"{tokens} tokens, " if tokens else "") + f"batch {inventory['batch']}"
    rows = []
    for block in inventory["blocks"]:
        ops = ", ".join(f"{count} {name}" for name, count in block["ops"].items())
        types = ", ".join(f"{count} {name}" for name, count in block["edge_types"].items())
        sizes = (f"{block['parameters']:,}", f"{block['activation_bytes'] / 1e6:.2f}")
        rows.append((block["name"], ops, types, _text(block["launches"]), *sizes))
    print_table(title, _BLOCK_COLUMNS, rows)
    found = inventory["prediction"]
    if found is None:
        scans = [scan for block in inventory["blocks"] for scan in block["scans"]]
        directions = sum(scan["directions"] for scan in scans)
        counted = f"{len(scans)} scans, {directions} directions in all; " if scans else ""
        result(f"{counted}no ideal times: {inventory['not_predicted']}")
        return
    result(
        f"{inventory['launches']} kernel launches expected; ideal times on {found['gpu']}: scans "
        f"{found['scan_us']:.1f} us (bound by {found['scan_bound_by']}), the rest "
        f"{found['rest_us']:.1f} us, so the scans are {found['scan_share']:.0%}"
    )


def flat_rows(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as dotted keys; lists of plain values on one line."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            yield from flat_rows(item, f"{name}.")
        elif isinstance(item, list | tuple) and any(isinstance(part, dict) for part in item):
            for index, part in enumerate(item):
                yield from flat_rows({f"{name}[{index}]": part})
        else:
            yield name, _text(item)


def _text(item: Any) -> str:  # noqa: ANN401
    if isinstance(item, list | tuple):
        return ", ".join(map(str, item)) if len(item) <= 12 else f"{len(item)} entries"
    return "-" if item is None else str(item)
