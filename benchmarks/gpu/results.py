"""What comes back from a machine with a GPU, as files of ``benchmarks/results``.

    python benchmarks/gpu/results.py machine OUT.json --carried FOLDER --command WORDS
    python benchmarks/gpu/results.py join DEVICE FOLDER [FOLDER...] [--into benchmarks/results]

``machine``, a step of each call, notes there what it runs on: the machine, the versions, the
command, and the commit that ``prepare.py`` built from. ``join``, here, takes the folders of one or
both calls and writes each result with that beside it: NAME.json becomes DEVICE/NAME.json,
NAME.jsonl one list of its lines, and the steps of all calls steps.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vim_deploy.bench import environment
from vim_deploy.files import write_json

RESULTS = Path(__file__).resolve().parents[1] / "results"
#: Files of a call's folder that are no results by themselves.
MACHINE, STEPS = "machine.json", "steps.tsv"
#: What prepare.py leaves in the folder that a call carries.
PREPARED = "prepared.json"
#: What the steps import beside the standard library; README.md says which step wants what.
NEEDED = (
    *("PIL", "click", "msgspec", "numpy", "onnx", "onnx_ir", "onnxscript", "rich", "timm", "torch"),
    "transformers",
)
_DEVICE = re.compile(r"[a-z0-9][a-z0-9-]*")


class ResultsError(Exception):
    """What cannot be joined, for the person who asked."""


def machine_record(carried: Path, command: str) -> dict[str, Any]:
    """What a call runs on; ``prepared`` is None where prepare.py left no record."""
    record = carried / PREPARED
    prepared = json.loads(record.read_text(encoding="utf-8")) if record.exists() else None
    return {
        "command": shlex.split(command),
        "machine": environment.machine(),
        "state": environment.state(),
        "prepared": prepared,
        "missing_modules": [name for name in NEEDED if importlib.util.find_spec(name) is None],
    }


def _read(path: Path) -> Any:  # noqa: ANN401 - anything JSON
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read: {error}") from error


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a call's steps: name, exit code (or a word), seconds, why."""
    try:
        lines = (folder / STEPS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ResultsError(f"{folder} holds no {STEPS}: is it a call's folder?") from error
    rows = []
    for line in lines:
        name, code, seconds, why = [*line.split("\t"), "", "", ""][:4]
        status: int | str = int(code) if code.isdigit() else code
        rows.append({"step": name, "status": status, "seconds": int(seconds or 0), "why": why})
    return rows


def about(folder: Path) -> dict[str, Any]:
    """Command, versions, date and commit of a call.

    Raises:
        ResultsError: the call noted no machine, or it is not known what it ran.
    """
    if not (folder / MACHINE).exists():
        raise ResultsError(f"{folder} holds no {MACHINE}: its step `machine` says why in {STEPS}")
    known: dict[str, Any] = _read(folder / MACHINE)
    commit, built = known["state"].get("commit"), (known.get("prepared") or {}).get("commit")
    # Not sent with the tree, or a tree without its test data: what prepare.py saw is what ran.
    if commit is None or commit == f"{built}-dirty":
        commit = built
    if commit is None:
        raise ResultsError(f"{folder / MACHINE} knows no commit: was .gpu made by prepare.py?")
    known["state"]["commit"] = commit
    return known


def join(device: str, folders: Sequence[Path], into: Path) -> list[Path]:
    """Write the results of calls; the files.

    Args:
        device: name of the folder: small letters, digits and hyphens.
        folders: what came back, one a call.
        into: where the device's folder is, or shall be.

    Raises:
        ResultsError: nothing was written.
    """
    if not _DEVICE.fullmatch(device):
        raise ResultsError(f"{device!r} is no name of a device: h200, for example")
    made: dict[str, dict[str, Any]] = {}
    steps = []
    for folder in folders:
        known = about(folder)
        steps.append({**known, "steps": steps_of(folder)})
        results = [path for end in ("json", "jsonl") for path in folder.glob(f"*.{end}")]
        for path in sorted(results):
            if path.name in (MACHINE, PREPARED):
                continue
            name = f"{path.stem}.json"
            if name in made or name == "steps.json":
                raise ResultsError(f"{name} is in two folders: give each call once")
            made[name] = {**known, "result": _read(path)}
    made["steps.json"] = {"calls": steps}
    target = into / device
    target.mkdir(parents=True, exist_ok=True)
    for name, value in made.items():
        write_json(target / name, value)
    return [target / name for name in made]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    machine = commands.add_parser("machine", help="note what a call runs on")
    machine.add_argument("output", type=Path)
    machine.add_argument("--carried", type=Path, required=True, help="what prepare.py filled")
    machine.add_argument("--command", dest="words", required=True, help="how the call was made")
    joined = commands.add_parser("join", help="make files of benchmarks/results")
    joined.add_argument("device", help="name of the folder, for example h200")
    joined.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    joined.add_argument("--into", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    if options.command == "machine":
        record = machine_record(options.carried, options.words)
        write_json(options.output, record)
        print(record["machine"], record["state"]["versions"])
        print("not to be imported:", ", ".join(record["missing_modules"]) or "nothing is missing")
        return 0
    try:
        for path in join(options.device, options.folders, options.into):
            print(path)
    except ResultsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
