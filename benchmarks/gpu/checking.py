"""Every op, type and tactic against float64 at the shapes of models: ``kernels.py check``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from launches import TACTIC_NAMES, Problem
from problems import bi_scan, conv, scan

from vim_deploy.files import write_json
from vim_deploy.plugin.cases import PLAIN
from vim_deploy.plugin.check import ARITHMETIC, GPU_ARITHMETIC, ROUNDING
from vim_deploy.plugin.kernels import ScanLibrary, data_type

TYPES = (torch.float32, torch.float16, torch.bfloat16)
#: Asked for a GPU of one multiprocessor, a library offers every tactic that runs the shape.
ALL_TACTICS = 1
#: The generic kernel runs everything, and is not offered where a fast one does.
GENERIC = 1
#: Columns before B and C: the rank of Vim-Ti.
RANK = 12
#: B, L, D: one token, more than a block of tokens; channels that few and that all tactics take.
SMALL = ((1, 1, 72), (2, 33, 80))
#: Vim-Ti at 224 px without and with the token that classifies, 1248 px, and widths in between.
LARGE = ((2, 197, 384), (2, 196, 384), (1, 730, 768), (2, 1025, 384), (1, 6085, 384))
#: Scans of other families as models have them, B, L, D, N and columns before: MambaVision at
#: 224 px, VMamba's first stage.
FAMILIES = ((4, 196, 320, 8, 20), (4, 49, 640, 8, 40), (4, 196, 392, 8, 49), (2, 3136, 96, 1, 6))

Make = Callable[[], Problem]


def problems(dtype: torch.dtype, device: torch.device, quick: bool) -> Iterator[Make]:
    """What is checked of one type; each is made when it is its turn, as some are large."""
    seeds = iter(range(1000))
    for batch, length, channels in SMALL if quick else SMALL + LARGE:
        shape = {"batch": batch, "length": length, "channels": channels}
        common: dict[str, Any] = {**shape, "device": device}
        for low_rank in (False, True):
            yield partial(bi_scan, dtype, **common, rank=RANK, low_rank=low_rank, seed=next(seeds))
        for reverse in (False, True):
            way: dict[str, Any] = {"gated": True, "reverse": reverse, "seed": next(seeds)}
            yield partial(scan, dtype, **common, states=16, before=RANK, **way)
        yield partial(conv, dtype, **common, seed=next(seeds))
    plain = [(2, min(length, 49), 80, states, before) for states, length, before in PLAIN]
    for batch, length, channels, states, before in plain if quick else [*plain, *FAMILIES]:
        for reverse in (False, True):
            yield partial(
                scan,
                dtype,
                batch,
                length,
                channels,
                states,
                before=before,
                gated=False,
                reverse=reverse,
                device=device,
                seed=next(seeds),
            )


def check_problem(library: ScanLibrary, problem: Problem) -> Iterator[dict[str, Any]]:
    """A row for each tactic: the worst error of two runs, and whether both gave the same bits."""
    want = problem.truth()
    arithmetic = GPU_ARITHMETIC if problem.device.type == "cuda" else ARITHMETIC
    limit = arithmetic + ROUNDING[data_type(problem.result)]
    offered = library.tactics(problem.params(), ALL_TACTICS)
    for tactic in sorted({GENERIC, *offered}):
        launch = problem.launch(library, tactic)
        errors, results, intact = [], [], True
        for _ in range(2):
            launch.poison()
            _finish(problem.device)
            launch()
            _finish(problem.device)
            found = problem.result.double()
            errors.append(float((found - want).norm() / want.norm()))
            results.append(problem.result.clone())
            intact &= launch.intact()
        # As bits: NaN is not equal to itself.
        first, second = (result.view(torch.uint8) for result in results)
        same = bool(torch.equal(first, second))
        # max() may pass over a NaN, which each comparison fails on.
        ok = all(error <= limit for error in errors) and intact and same
        yield {
            "op": problem.op.name,
            "dtype": str(problem.dtype).rpartition(".")[2],
            "shape": problem.label,
            "tactic": TACTIC_NAMES[tactic],
            # None where a value is not finite.
            "errors": [error if math.isfinite(error) else None for error in errors],
            "limit": limit,
            "same_bits": same,
            "guards_intact": intact,
            "ok": ok,
        }


def check(library: ScanLibrary, device: torch.device, output: Path, *, quick: bool) -> int:
    """Check everything, write the rows, print the worst of each op, type and tactic.

    Returns:
        The number of rows that are not right.
    """
    rows: list[dict[str, Any]] = []
    for dtype in TYPES:
        for make in problems(dtype, device, quick):
            for row in check_problem(library, make()):
                rows.append(row)
                if not row["ok"]:
                    print("FAILED", row, flush=True)
            # After each: nothing is lost when the time is over.
            failures = sum(not row["ok"] for row in rows)
            write_json(output, {"complete": False, "failures": failures, "rows": rows})
    failures = sum(not row["ok"] for row in rows)
    write_json(output, {"complete": True, "failures": failures, "rows": rows})
    worst: dict[tuple[str, str, str], tuple[float, str]] = {}
    for row in rows:
        key = (row["op"], row["dtype"], row["tactic"])
        error = max(math.inf if one is None else one for one in row["errors"])
        worst[key] = max(worst.get(key, (0.0, "")), (error / row["limit"], row["shape"]))
    for key, (share, shape) in worst.items():
        print(*key, f"{share:.0%} of the limit at {shape}")
    print(f"{len(rows)} runs, {failures} failed")
    return failures


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
