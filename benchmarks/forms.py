"""Base against fused float16 files: size, load time in ONNX Runtime, engine build.

    python benchmarks/forms.py [--out FOLDER] [--models vim-tiny,vim-small,...]

Weights are random: none of this depends on their values. Every export and build runs in a process
of its own. The clock of a load covers the creation of the session, after one that warmed the file
cache; the two files take turns in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx
from spine import about, timed

MODELS = ("vim-tiny", "vim-small", "vim-base", "vim-tiny-plus")
ROUNDS = 5
FORMS = {
    "base fp32": ("base", "fp32"),
    "base fp16": ("base", "fp16"),
    "fused fp16": ("fused", "fp16"),
}


def load_seconds(paths: dict[str, Path]) -> dict[str, float]:
    """Median seconds to make a session of each file, in turns."""
    from vim_deploy.runtimes.onnxruntime import capability as ort

    times: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(ROUNDS + 1):
        for name, path in paths.items():
            started = time.perf_counter()
            ort.create_session(path, ort.SessionSettings(), path.name)
            if number:
                times[name].append(time.perf_counter() - started)
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def measure(model: str, folder: Path) -> dict[str, Any]:
    """One architecture in both forms."""
    paths, exports = {}, {}
    for name, (graph, precision) in FORMS.items():
        path = folder / f"{model}.{graph}.{precision}.onnx"
        seconds, memory = timed(
            *("export", model, "--random-weights", "0", "--no-check", "-o", str(path)),
            *("--graph", graph, "--precision", precision),
            folder=folder,
        )
        onnx.checker.check_model(str(path), full_check=True)
        exports[name] = {"seconds": round(seconds, 2), "peak_gb": round(memory, 2)}
        paths[name] = path
    loads = load_seconds(paths)
    fused = paths["fused fp16"]
    seconds, memory = timed("build-engine", str(fused), "-o", "m.plan", "--force", folder=folder)
    megabytes = (folder / "m.plan").stat().st_size / 1e6
    return {
        "export": exports,
        "file_mb": {name: round(path.stat().st_size / 1e6, 1) for name, path in paths.items()},
        "load_seconds": loads,
        "fused_fp16_loads_faster_by": {
            name: round(loads[name] / loads["fused fp16"], 2) for name in ("base fp32", "base fp16")
        },
        "tensorrt_rtx": {
            "seconds": round(seconds, 1),
            "peak_gb": round(memory, 2),
            "plan_mb": round(megabytes, 1),
        },
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core"
    parser.add_argument("--out", type=Path, default=default, help="folder for forms.json")
    parser.add_argument("--models", default=",".join(MODELS))
    arguments = parser.parse_args()
    results: dict[str, Any] = {**about(), "rounds": ROUNDS}
    for model in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            results[model] = measure(model, Path(folder))
        print(model, json.dumps(results[model], indent=1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "forms.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
