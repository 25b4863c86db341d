"""Judges what ``trt86_run`` left: an engine's answers, and its layers. One JSON object each.

    python benchmarks/gpu/judge.py parity RESULT.raw EXPECTED.out --limit 1e-3
    python benchmarks/gpu/judge.py layers LAYERS.json FOLDER MODEL [--plugins OP=COUNT,...]

``parity``: raw float32 against raw float32, relative L2 of all numbers together. ``layers``: the
inspector's layers against MODEL's types and plugin nodes in the FOLDER of ``export_models.py``, by
the rules of build-engine, and the plugin layers that there have to be. The exit code is 1 when
something is not as it has to be.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from vim_deploy.errors import VimDeployError  # noqa: E402
from vim_deploy.runtimes.tensorrt.plan_layers import (  # noqa: E402
    findings,
    read_layers,
    require_plugins,
    require_precision,
)

#: Tensors of another type that are named.
SHOWN = 12


def parity(result: Path, expected: Path, limit: float) -> dict[str, Any]:
    """Relative L2 of ``result`` to ``expected``, and whether it is within ``limit``."""
    got, want = (np.fromfile(path, np.float32).astype(np.float64) for path in (result, expected))
    row: dict[str, Any] = {"parity": result.name, "limit": limit, "ok": False}
    if not want.size or got.size != want.size:
        return {**row, "why": f"{got.size} numbers, expected {want.size}"}
    if not np.isfinite(got).all():
        return {**row, "why": f"{int((~np.isfinite(got)).sum())} numbers are not finite"}
    far = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    return {**row, "relative_l2": far, "ok": far <= limit}


def layers(
    inspection: str,
    types: Mapping[str, str],
    plugin_nodes: Mapping[str, str],
    expected: Mapping[str, int],
) -> dict[str, Any]:
    """What is in an engine, and whether it is what was asked for.

    Args:
        inspection: JSON of the engine's inspector.
        types: tensor name -> float type of the graph.
        plugin_nodes: node name -> op type of the nodes that were to become plugins.
        expected: op type -> number of plugin layers that there have to be.
    """
    found = findings(read_layers(inspection), types, plugin_nodes)
    row = dataclasses.asdict(found)
    row["offenders"] = row["offenders"][:SHOWN]
    precision = "fp16" if "float16" in types.values() else "fp32"
    try:
        require_plugins(found, expected)
        require_precision(found, precision)
    except VimDeployError as error:
        return {**row, "ok": False, "why": f"{error.code}: {error.message}: {error.why}"}
    return {**row, "ok": True}


def counts(text: str) -> dict[str, int]:
    """``OP=COUNT,OP=COUNT`` as numbers; ValueError for anything else."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    return {name: int(count) for name, _, count in pairs}


def read_types(path: Path) -> dict[str, str]:
    """What ``export_models.py`` wrote to a ``.types`` file."""
    pairs = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return {pair[0]: pair[1] for pair in pairs}


def main() -> int:
    """Judge one thing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("parity")
    first.add_argument("result", type=Path)
    first.add_argument("expected", type=Path)
    first.add_argument("--limit", type=float, required=True)
    second = commands.add_parser("layers")
    second.add_argument("inspection", type=Path)
    second.add_argument("folder", type=Path)
    second.add_argument("model")
    second.add_argument("--plugins", type=counts, default={})
    given = parser.parse_args()
    try:
        if given.command == "parity":
            row = parity(given.result, given.expected, given.limit)
        else:
            types = read_types(given.folder / f"{given.model}.types")
            models = json.loads((given.folder / "models.json").read_text(encoding="utf-8"))
            text = given.inspection.read_text(encoding="utf-8")
            row = layers(text, types, models[given.model]["plugin_nodes"], given.plugins)
            row = {"inspected": given.inspection.name, **row}
    except (OSError, ValueError, KeyError, IndexError) as error:
        row = {given.command: "not judged", "ok": False, "why": f"{type(error).__name__}: {error}"}
    print(json.dumps(row))
    return 0 if row["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
