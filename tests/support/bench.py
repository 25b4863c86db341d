"""Benchmark reports and measuring processes without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vim_deploy.bench import environment
from vim_deploy.bench.measure import Measurement, Timing
from vim_deploy.bench.report import BenchReport
from vim_deploy.bench.subject import Subject

#: A worker that does not measure: it answers as its job's ``source`` says.
WORKER = """
import json, os, signal, sys, time
job = json.loads(sys.stdin.readline())
plan = job["source"]

def say(**values):
    print(json.dumps(values), flush=True)

if plan.get("fail") == "load":
    say(event="failed", code="VIM-409", message="bad file", why="w", fix="f")
    sys.exit()
say(event="ready", name="fake 1.0", finite=True, load_seconds=0.1, call_seconds=plan["call"])
turns = 0
for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "end":
        say(event="end", memory={"runtime_bytes": 10, "run_peak_bytes": 40}, cpu_seconds=1.5)
        break
    turns += 1
    if plan.get("fail") == "killed" and turns == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if plan.get("fail") == "runtime" and turns == 3:
        say(event="failed", code="", message="RuntimeError: out of memory")
        break
    if plan.get("fail") == "exit" and turns == 3:
        print("the last words", file=sys.stderr)
        sys.exit(7)
    with open(plan["log"], "a") as log:
        log.write(plan["name"] + ("+" if order["settle"] else "") + chr(10))
    cpu = [plan.get("cpu", plan["call"])] * 2
    say(event="turn", host=[plan["call"]] * 2, cpu=cpu, device=plan.get("device"))
"""


def subject(label: str = "vim", runner: str = "onnxruntime", **changes: Any) -> Subject:
    """A subject that nothing can run."""
    values: dict[str, Any] = {"source": {}, "batch": 1, "image": (224, 224), "tokens": 197}
    return Subject(label, runner, **{**values, **changes})


def measured(
    label: str = "vim",
    milliseconds: float = 10.0,
    memory: int = 100 << 20,
    group: int = 0,
    **changes: Any,
) -> Measurement:
    """A measurement of three turns of 40 calls that all took the same time."""
    turns = [np.full(40, milliseconds / 1e3) for _ in range(3)]
    sizes = {"runtime_bytes": 50 << 20, "run_peak_bytes": memory + (50 << 20)}
    return Measurement(
        subject(label, **changes), group, runtime="fake 1.0", turns=turns, memory=sizes
    )


def bench_report(*measurements: Measurement, threads: int = 2, **changes: Any) -> BenchReport:
    """A report of this machine."""
    values: dict[str, Any] = {
        "timing": Timing(1.0, 3.0, threads),
        "machine": environment.machine(),
        "state": environment.state(),
        "disturbance": environment.disturbance(None, None, 0.0),
        "settings": {"threads": threads},
        "command": ("vim-deploy", "bench", "vim.onnx"),
    }
    return BenchReport(measurements, **{**values, **changes})


def written(report: BenchReport, folder: Path) -> Path:
    """The report as a baseline file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bench.json"
    report.write(path)
    return path
