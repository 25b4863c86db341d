"""Dense models on this machine: export, verify, TensorRT-RTX build and inference, with memory.

    python benchmarks/dense.py [--models upernet-vim-tiny,vimdet-tiny] [--out FOLDER]

The published configurations at their own sizes (UPerNet 512 pixels, 1024 tokens; detection backbone
1024 pixels, 4096 tokens) with random weights: none of this depends on their values. Every step is a
process of its own; its seconds and peak memory are those of the whole process. Inference is one
image in ONNX Runtime, with the PyTorch module in turns beside it.

The machine has to be quiet; --busy tries it without writing results.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaling import MOST_LOAD, disturbed
from scaling_report import write_compact
from scaling_steps import OK, Step, run_step
from spine import about

from vim_deploy.bench import environment

MODELS = ("upernet-vim-tiny", "vimdet-tiny", "upernet-vim-small", "vimdet-small")
PRECISIONS = ("fp32", "fp16")
#: Longest step, in seconds.
LIMIT = 900
_COMMAND = (sys.executable, "-m", "vim_deploy", "-q")
_ONE = ("--min-batch=1", "--opt-batch=1", "--max-batch=1")


def steps_of(model: str, precision: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Names and commands of the steps of one model, in order."""
    path = str(folder / f"{model}.{precision}.onnx")
    exported = ["--precision", precision, "--no-check", "--force", "--json", "-o", path]
    yield "export", ["export", model, "--random-weights", "0", *exported]
    checked = ["--against", "seed:0", "--random", "1", "--batches", "1", "--json"]
    yield "verify", ["verify", path, *checked]
    plan = str(folder / "engine.plan")
    built = ["--runtime", "tensorrt-rtx", "-o", plan, "--force", "--json", *_ONE]
    yield "build", ["build-engine", path, *built]
    if precision == "fp32":
        timed = ["--baseline", "pytorch", "--duration", "10", "--warmup", "2", "--force", "--json"]
        yield "inference", ["bench", path, *timed, "--export-dir", str(folder)]


def kept(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """What the results keep of a step's output."""
    if name == "verify":
        outputs = value["results"][0]["outputs"]
        return {
            "outputs": {
                item["output"]: {key: item[key] for key in ("max_abs", "relative_l2", "passed")}
                for item in outputs
            }
        }
    if name == "build":
        return {key: value[key] for key in ("build_seconds", "peak_memory_bytes")}
    if name == "inference":
        return {key: value[key] for key in ("results", "ratios", "notes")}
    return {}


def measure(model: str, folder: Path, *, busy: bool) -> dict[str, Any]:
    """Every step of one model in every precision; a step that others disturbed is run again."""
    found: dict[str, Any] = {}
    for precision in PRECISIONS:
        for name, command in steps_of(model, precision, folder):
            entry = _run(command, folder)
            if disturbed(entry) and not busy:
                entry = _run(command, folder)
                if disturbed(entry):
                    raise SystemExit(f"{model} {name}: the machine is not quiet")
            value = entry.pop("value")
            if entry["status"] == OK:
                entry |= kept(name, value)
            found[f"{name} {precision}"] = entry
            print(model, precision, name, entry["status"], f"{entry['seconds']:.1f} s", flush=True)
        path = folder / f"{model}.{precision}.onnx"
        found[f"file bytes {precision}"] = path.stat().st_size
        found[f"plan bytes {precision}"] = (folder / "engine.plan").stat().st_size
    return found


def _run(command: list[str], folder: Path) -> dict[str, Any]:
    before, own = environment.cpu_times(), sum(os.times()[:2])
    step: Step = run_step([*_COMMAND, *command], folder, LIMIT)
    mine = step.cpu_seconds + sum(os.times()[:2]) - own
    other = environment.disturbance(before, environment.cpu_times(), mine)
    return {
        "command": ["vim-deploy", *(Path(part).name for part in command)],
        "status": step.status,
        "reason": step.reason,
        "seconds": round(step.seconds, 2),
        "peak_bytes": step.peak_bytes,
        "value": step.value,
        **other,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core"
    parser.add_argument("--out", type=Path, default=default, help="folder for dense.json")
    parser.add_argument("--models", default=",".join(MODELS), help="recipes to measure")
    parser.add_argument("--busy", action="store_true", help="only try it; nothing is written")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    if not options.busy and load > MOST_LOAD * environment.available_cpus():
        raise SystemExit(f"the machine is not quiet (load {load:.2f}): try later")
    results: dict[str, Any] = about()
    for model in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            results[model] = measure(model, Path(folder), busy=options.busy)
        if not options.busy:
            options.out.mkdir(parents=True, exist_ok=True)
            write_compact(options.out / "dense.json", results)
    print(json.dumps(results, indent=1) if options.busy else f"wrote {options.out}/dense.json")


if __name__ == "__main__":
    main()
