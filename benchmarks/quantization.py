"""int8 on this machine: size of the file, time in ONNX Runtime, how far off, TensorRT-RTX.

    python benchmarks/quantization.py [--models vim-tiny,...] [--out FOLDER]

For every model the float32 file, the int8 one with static scales and that with scales per token,
of seeded weights and pictures cut from scikit-learn's two photographs: time depends on neither.
Then all in ONNX Runtime with native ops on batches of 8, one thread, in turns.

The machine has to be quiet; with --busy nothing is kept. Up to 25 minutes with Vim-B.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from native_ops import measure_place
from scaling import MOST_LOAD, library
from scaling_report import write_compact
from spine import about, timed

from vim_deploy.bench.measure import Timing
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.stages.bench_subjects import SubjectMaker

MODELS = "vim-tiny,vim-small,vim-base"
FORMS = {"int8": "static", "int8-per-token": "per-token"}
PICTURES, BATCH = 40, 8


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core"
    parser.add_argument("--out", type=Path, default=default, help="folder for quantization.json")
    parser.add_argument("--models", default=MODELS, help="models, by their variants' names")
    parser.add_argument("--forms", default=",".join(FORMS), help="beside float32")
    parser.add_argument("--work", type=Path, help="folder for the files; kept, and taken if there")
    parser.add_argument("--duration", type=float, default=4.0, help="timed seconds per file")
    parser.add_argument("--busy", action="store_true", help="only try it; the figures do not count")
    return parser.parse_args()


def save_pictures(folder: Path) -> Path:
    """Squares of other sizes and places out of two photographs."""
    from sklearn.datasets import load_sample_images

    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    photographs = load_sample_images().images
    for number in range(PICTURES):
        picture = photographs[number % len(photographs)]
        side = int(generator.integers(200, 420))
        top, left = (int(generator.integers(0, size - side + 1)) for size in picture.shape[:2])
        square = picture[top : top + side, left : left + side]
        PIL.Image.fromarray(square).save(folder / f"{number:02d}.png")
    return folder


def exported(model: str, folder: Path, forms: list[str]) -> dict[str, Any]:
    """Every form of one model, and what it took to make it."""
    pictures = save_pictures(folder / "pictures")
    found: dict[str, Any] = {}
    for form in ("fp32", *forms):
        path = folder / f"{model}-{form}.onnx"
        words = ["export", model, "--random-weights", "0", "-o", str(path), "--json"]
        if form in FORMS:
            words += ["--precision", "int8", "--activation-scales", FORMS[form]]
            words += ["--calibration", str(pictures)]
        if not path.exists():
            seconds, memory = timed(*words, folder=folder)
            found[form] = {"seconds": round(seconds, 1), "peak_gb": round(memory, 2)}
        found.setdefault(form, {})["bytes"] = path.stat().st_size
    return found


def engine(path: Path, folder: Path) -> dict[str, float]:
    """What TensorRT-RTX makes of a file."""
    plan = folder / f"{path.stem}.plan"
    seconds, memory = timed("build-engine", str(path), "-o", str(plan), "--force", folder=folder)
    size = plan.stat().st_size
    plan.unlink()
    return {"seconds": round(seconds, 1), "peak_gb": round(memory, 2), "plan_bytes": size}


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    forms = options.forms.split(",")
    load = os.getloadavg()[0]
    if not options.busy and load > MOST_LOAD * (os.cpu_count() or 1):
        raise SystemExit(f"the machine is not quiet (load {load:.2f}): try later")
    results: dict[str, Any] = {**about(), "library": library(), "batch": BATCH, "models": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = options.work or Path(name)
        folder.mkdir(exist_ok=True)
        for number, model in enumerate(options.models.split(",")):
            entry: dict[str, Any] = {"files": exported(model, folder, forms)}
            maker = SubjectMaker(
                folder,
                image_sizes=(),
                batches=(BATCH,),
                baselines=(),
                random_weights=None,
                graph="auto",
                runner=RunnerOptions(ops="native"),
                cuda_graph=False,
                progress=print,
            )
            paths = [folder / f"{model}-{form}.onnx" for form in ("fp32", *forms)]
            (group,) = maker.groups([str(path) for path in paths])
            timing = Timing(1.0, options.duration, 1)
            entry["times"] = measure_place(f"{model}:224", group, timing, number)
            entry["tensorrt_rtx"] = engine(paths[1], folder)
            results["models"][model] = entry
            print(model, json.dumps(entry, indent=1), flush=True)
    if not options.busy:
        write_compact(options.out / "quantization.json", results)


if __name__ == "__main__":
    main()
