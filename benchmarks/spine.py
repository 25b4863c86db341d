"""Time the spine for Vim-Ti at 224 on this machine: help, export, ONNX Runtime, engine.

    python benchmarks/spine.py [--out FOLDER]

Prints a table and writes ``spine.json``. Every command runs in a process of its own, so that wall
time and peak memory are what a user sees. The runtimes are compared by ``vim-deploy bench``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vim_deploy.bench import environment

COMMAND = (sys.executable, "-m", "vim_deploy")


def timed(*arguments: str, folder: Path) -> tuple[float, float]:
    """Wall seconds and peak resident memory in GB of one ``vim-deploy`` command."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    stderr = process.stderr.read().decode() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"vim-deploy {' '.join(arguments)} failed:\n{stderr}")
    return seconds, usage.ru_maxrss * 1024 / 1e9


def compare_runtimes(folder: Path) -> dict[str, Any]:
    """What ``bench`` says of ONNX Runtime and PyTorch at batch 1 and 8, measured in turns."""
    timed("bench", "vim-tiny.onnx", "--baseline", "pytorch", "--batches", "1,8", folder=folder)
    found = json.loads((folder / "bench.json").read_text())
    return {name: found[name] for name in ("settings", "results", "ratios")}


def about() -> dict[str, Any]:
    """Machine, versions, commit, date and command."""
    command = " ".join(["python", *sys.argv])
    return {"command": command, "machine": environment.machine(), "state": environment.state()}


def measure() -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = about()
        help_seconds = statistics.median(timed("--help", folder=folder)[0] for _ in range(5))
        seconds, memory = timed("export", "vim-tiny", "--random-weights", "0", folder=folder)
        runtimes = compare_runtimes(folder)
        timed("build-engine", "vim-tiny.onnx", folder=folder)
        record = json.loads((folder / "vim-tiny.plan.json").read_text())
        return {
            **before,
            "model": "vim-tiny, 224 x 224, seeded weights",
            "help_seconds": round(help_seconds, 3),
            "export": {"seconds": round(seconds, 1), "peak_memory_gb": round(memory, 2)},
            "runtimes": runtimes,
            "engine": {
                "seconds": round(record["build_seconds"], 1),
                "peak_memory_gb": round(record["peak_memory_bytes"] / 1e9, 2),
                "plan_mb": round(record["plan"]["bytes"] / 1e6, 1),
            },
        }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core"
    parser.add_argument("--out", type=Path, default=default, help="folder for spine.json")
    out: Path = parser.parse_args().out
    figures = measure()
    print(json.dumps(figures, indent=2))
    out.mkdir(parents=True, exist_ok=True)
    (out / "spine.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(f"wrote {out / 'spine.json'}")


if __name__ == "__main__":
    main()
