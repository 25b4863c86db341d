"""One step of ``scaling.py``: a process of its own, watched, and what is kept of its output."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vim_deploy.bench import environment
from vim_deploy.errors import VimDeployError
from vim_deploy.recipe.catalog import find_variant

#: Bytes that are left to the system: below, the step is stopped.
LEAST_MEMORY = 1 << 30
#: Seconds between two looks at memory and clock.
_LOOK = 0.2
_COMMAND = (sys.executable, "-m", "vim_deploy", "-q")
_EXPORT = (sys.executable, str(Path(__file__).resolve()))

OK, LEFT_OUT, FAILED, DISTURBED = "ok", "left out", "failed", "disturbed"


@dataclass(frozen=True)
class Task:
    """One stage of one model at one image size (square, pixels); ``threads`` of inference."""

    model: str
    size: int
    stage: str
    threads: int = 1

    @property
    def tokens(self) -> int:
        """Sequence length of the model at this size."""
        return find_variant(self.model).replace(img_size=self.size).num_tokens


@dataclass
class Step:
    """How a process ended: wall seconds, peak memory in bytes, processor seconds, output."""

    status: str
    reason: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    cpu_seconds: float = 0.0
    value: dict[str, Any] = field(default_factory=dict)


def command_of(task: Task, folder: Path, options: argparse.Namespace, smallest: int) -> list[str]:
    """The process that does ``task``; it prints JSON."""
    path = str(folder / f"{task.model}-{task.size}.onnx")
    if task.stage == "export":
        return [*_EXPORT, task.model, str(task.size), path]
    if task.stage == "verify":
        rest = ["--against", "seed:0", "--random", "1", "--batches", "1", "--json"]
        return [*_COMMAND, "verify", path, *rest]
    if task.stage == "build":
        batch = [f"--{name}-batch=1" for name in ("min", "opt", "max")]
        output = str(folder / "engine.plan")
        rest = ["--runtime", "tensorrt-rtx", "-o", output, "--force", "--json"]
        return [*_COMMAND, "build-engine", path, *rest, *batch]
    times = ["--duration", str(options.duration), "--warmup", str(options.warmup)]
    times += ["--threads", str(task.threads)]
    beside = ["--ops", "auto", "--baseline", "deit"]
    if task.size == smallest and task.threads == 1:
        beside += ["--baseline", "pytorch"]
    report = ["--force", "--json", "--export-dir", str(folder)]
    return [*_COMMAND, "bench", path, *beside, *times, *report]


def export_with_clock(model: str, size: int, path: Path) -> dict[str, float]:
    """Export seeded weights; seconds of the whole and of the fusion passes inside."""
    from vim_deploy.families.vim import fusion
    from vim_deploy.recipe.schema import ModelRequest
    from vim_deploy.stages.export_options import ExportOptions
    from vim_deploy.stages.exporting import export

    inner = fusion.run_passes
    passes = [0.0]

    def timed(*given: Any, **options: Any) -> Any:  # noqa: ANN401 - as the passes
        started = time.perf_counter()
        try:
            return inner(*given, **options)
        finally:
            passes[0] += time.perf_counter() - started

    fusion.run_passes = timed
    request = ModelRequest(model, image_size=size, random_weights=0)
    result = export(request, path, ExportOptions(check=False))
    return {"export_seconds": result.seconds, "passes_seconds": passes[0]}


def run_step(command: Sequence[str], folder: Path, seconds: float) -> Step:
    """Run one process with its children, at most so long, while there is memory."""
    with (folder / "stdout").open("w+b") as out, (folder / "stderr").open("w+b") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=err, start_new_session=True
        )
        reason = ""
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            free = environment.available_memory()
            if time.perf_counter() - started > seconds:
                reason = reason or "the time is over"
            elif free is not None and free < LEAST_MEMORY:
                reason = reason or f"memory ended: {free / 1e9:.2f} GB left"
            if reason:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            time.sleep(_LOOK)
        process.returncode = os.waitstatus_to_exitcode(status)
        step = Step(
            OK,
            seconds=time.perf_counter() - started,
            peak_bytes=usage.ru_maxrss * 1024,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
        )
        out.seek(0)
        err.seek(0)
        text, said = out.read().decode(), err.read().decode(errors="replace")
    if reason:
        step.status, step.reason = LEFT_OUT, reason
    elif process.returncode:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
        coded = next((line for line in said.splitlines() if line.startswith("error ")), last)
        step.status, step.reason = FAILED, coded or f"exit status {process.returncode}"
    else:
        step.value = json.loads(text)
    return step


def kept_values(stage: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """What the results keep of a step's output."""
    if stage == "export":
        return dict(value)
    if stage == "verify":
        entry = value["results"][0]["outputs"][0]
        return {key: entry[key] for key in ("max_abs", "relative_l2", "passed")}
    if stage == "build":
        memory, seconds = value["peak_memory_bytes"], value["build_seconds"]
        return {"build_seconds": seconds, "build_peak_bytes": memory}
    return {
        "results": [kept_result(result) for result in value["results"]],
        "ratios": [kept_ratio(ratio) for ratio in value["ratios"]],
        "notes": value["notes"],
    }


_RATIO = ("of", "of_runner", "to", "to_runner", "time", "cpu_time", "model_memory")
_RESULT = ("label", "runner", "runtime", "tokens", "status", "reason")
_FACTS = ("ops", "library", "like eager")


def kept_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the results keep of one measurement: ``ms`` is its median, or the mean of few calls."""
    kept = {key: result[key] for key in _RESULT}
    kept["facts"] = {key: result["facts"][key] for key in _FACTS if key in result["facts"]}
    if result["status"] == OK:
        latency = result["latency"]
        kept |= {"calls": result["calls"], "ms": latency["p50_ms"] or latency["mean_ms"]}
        kept |= {"cpu_ms": result.get("cpu_ms"), "model_bytes": result["memory"]["model_bytes"]}
    result_in_short: dict[str, Any] = short(kept)
    return result_in_short


def kept_ratio(ratio: Mapping[str, Any]) -> dict[str, Any]:
    """What the results keep of one ratio."""
    kept: dict[str, Any] = short({key: ratio.get(key) for key in _RATIO})
    return kept


def short(value: Any) -> Any:  # noqa: ANN401 - JSON
    """The same with numbers of five digits, which is more than was measured."""
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [short(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    try:
        print(json.dumps(export_with_clock(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
    except VimDeployError as error:
        raise SystemExit(f"error {error.code}: {error.message}") from error
