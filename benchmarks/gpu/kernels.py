"""The plugin library's kernels on a GPU: right, fast, and seen from inside.

    python benchmarks/gpu/kernels.py check LIBRARY OUT.json [--quick]
    python benchmarks/gpu/kernels.py time LIBRARY OUT.json [--seconds 60] [--clock LIB] [--ext DIR]
    python benchmarks/gpu/kernels.py ncu LIBRARY OUT.json

``check``: every op, type and tactic at the shapes of models against float64 that is computed on the
GPU; outputs and workspaces full of NaN between guards, everything twice. ``time``: medians, shares
of the bounds, mamba_ssm's and causal_conv1d's launches where DIR has their built extensions.
``ncu``: Nsight Compute on one launch of each kind. Needs PyTorch; exit code 1 when a check failed,
3 when something is missing. With ``--device cpu`` the first two run on the kernels that
``plugins/tests/host`` compiles for the CPU, to rehearse (``--quick``: small shapes).
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vim_deploy.cuda import driver
from vim_deploy.errors import VimDeployError
from vim_deploy.files import write_json

#: What each kernel is asked for: time, instructions, what limits it.
METRICS = (
    "gpu__time_duration.sum",
    "sm__inst_executed.sum",
    "sm__inst_issued.avg.pct_of_peak_sustained_active",
    "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio",
    "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "l1tex__data_bank_conflicts_pipe_lsu.sum",
    "launch__registers_per_thread",
    "launch__occupancy_limit_registers",
)
#: B, L and tactic of Vim-Ti's scan, each where that tactic is meant to be best.
PROFILED = (
    (128, 197, "serial"),
    (64, 197, "serial1"),
    (8, 197, "chunked16"),
    (1, 197, "chunked8"),
    (1, 197, "chunked4"),
    (1, 197, "cluster8"),
)


def launch_profiled(library: Path) -> None:
    """One launch of each of ``PROFILED``, and of the convolution."""
    import torch
    from launches import TACTIC_IDS
    from problems import bi_scan, conv

    from vim_deploy.plugin.kernels import ScanLibrary

    kernels, device, half = ScanLibrary(library), torch.device("cuda"), torch.float16
    for batch, length, tactic in PROFILED:
        shape = (batch, length, 384)
        bi_scan(half, *shape, 12, low_rank=False, device=device).launch(
            kernels, TACTIC_IDS[tactic]
        )()
    conv(half, 128, 197, 384, device=device).launch(kernels, TACTIC_IDS["vector"])()
    torch.cuda.synchronize()


def profile(library: Path, output: Path) -> None:
    """Nsight Compute on ``launch_profiled``: its metrics by kernel.

    Raises:
        RuntimeError: ncu is not there, or measured nothing.
    """
    ncu = shutil.which("ncu")
    if ncu is None:
        raise RuntimeError("ncu is not on PATH")
    command = [ncu, "--clock-control", "none", "-k", "regex:scan_kernel|conv_", "--csv"]
    command += ["--metrics", ",".join(METRICS), sys.executable, __file__, "launch", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n")
    kernels = metrics_of(done.stdout)
    if not kernels:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise RuntimeError("ncu measured nothing: " + " / ".join(said[-2:]))
    write_json(output, {"asked": [list(item) for item in PROFILED], "kernels": kernels})


def metrics_of(text: str) -> list[dict[str, Any]]:
    """The kernels of ncu's CSV, in order, each with its metrics and their units."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), None)
    found: dict[str, dict[str, Any]] = {}
    for row in csv.DictReader(lines[start:]) if start is not None else ():
        kernel = found.setdefault(row["ID"], {"kernel": row["Kernel Name"], "metrics": {}})
        kernel["metrics"][row["Metric Name"]] = [row["Metric Value"], row["Metric Unit"]]
    return list(found.values())


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "time", "ncu", "launch"):
        one = commands.add_parser(name)
        one.add_argument("library", type=Path)
        if name != "launch":
            one.add_argument("output", type=Path)
        if name in ("check", "time"):
            one.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
            one.add_argument("--quick", action="store_true", help="small shapes")
        if name == "time":
            one.add_argument("--seconds", type=float, default=60.0, help="for all of it")
            one.add_argument("--clock", type=Path, help="sm_clock.cu as a library")
            one.add_argument("--ext", type=Path, help="folder of built extensions to compare with")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what was asked; the exit code."""
    options = parsed(argv)
    try:
        # Before PyTorch is imported, which takes seconds.
        if getattr(options, "device", "cuda") == "cuda":
            driver.gpu()
        if options.command == "launch":
            launch_profiled(options.library)
            return 0
        if options.command == "ncu":
            profile(options.library, options.output)
            return 0
        import torch

        from vim_deploy.plugin.kernels import ScanLibrary

        library, device = ScanLibrary(options.library), torch.device(options.device)
        if options.command == "check":
            from checking import check

            return 1 if check(library, device, options.output, quick=options.quick) else 0
        from timing import time_all

        time_all(
            library,
            device,
            options.output,
            clock=options.clock,
            extensions=options.ext,
            seconds=options.seconds,
            quick=options.quick,
        )
    except (VimDeployError, RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
