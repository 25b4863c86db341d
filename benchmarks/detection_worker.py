"""One detector in a process of its own, that ``detection.py`` asks for runs on one picture.

    python benchmarks/detection_worker.py KIND MODEL PICTURE.npz THREADS [CHECKOUT]

KIND is ``native`` or ``function`` for an exported file in ONNX Runtime, ``official`` for a recipe
with seeded weights, or a checkpoint, in the official code of CHECKOUT. Every line of the standard
input is the path of a file: one run, whose outputs it will hold; a line of JSON with its time
answers. Pixels are normalised within that time, by all; pictures are decoded before, and no mask is
pasted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vim_deploy.images import batch_from_crops

#: What a file's ops run in, and the official code.
NATIVE, FUNCTION, OFFICIAL = "native", "function", "official"
WAYS = (NATIVE, FUNCTION)
SEED = 0
Outputs = Mapping[str, NDArray[Any]]


def exported(
    path: str, picture: Outputs, threads: int, ops: str
) -> tuple[Callable[[], Outputs], str]:
    """A run of an exported file, and what it runs in."""
    from vim_deploy.artifact import Artifact
    from vim_deploy.runtimes.onnxruntime.runner import OrtRunner

    artifact = Artifact.open(Path(path))
    info = artifact.require_info()
    runner = OrtRunner(path, threads=threads, ops=ops)

    def run() -> Outputs:
        image = batch_from_crops([picture["padded"]], info.image, info.preprocess)
        return runner.run(image, picture["size"])

    return run, runner.name


def official(
    path: str, picture: Outputs, threads: int, checkout: Path
) -> tuple[Callable[[], Outputs], str]:
    """A run of the official code, and what it runs in; rows of a batch of one are added."""
    import torch
    from official_detector import detect, load

    from vim_deploy.model.load import load_model
    from vim_deploy.recipe.schema import ModelRequest

    torch.set_num_threads(threads)
    seed = None if Path(path).exists() else SEED
    weights = load_model(ModelRequest(path, random_weights=seed)).module.state_dict()
    network = load(checkout, weights)
    height, width = picture["size"][0]
    pixels = np.ascontiguousarray(picture["padded"][:height, :width])

    def run() -> Outputs:
        found = detect(network, pixels)
        proposals = found.pop("proposals")
        batch = {name: value[None] for name, value in found.items()}
        return {**batch, "count": np.array([len(found["scores"])]), "proposals": proposals}

    return run, f"official code, PyTorch {torch.__version__}"


def peak_bytes() -> int:
    """The most memory that was resident: of this process alone, not of the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Answer until the input ends."""
    kind, path, picture, threads, *checkout = sys.argv[1:]
    # What libraries print is none of the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    with np.load(picture) as arrays:
        given = dict(arrays)
    if kind == OFFICIAL:
        run, name = official(path, given, int(threads), Path(checkout[0]))
    else:
        run, name = exported(path, given, int(threads), kind)
    for line in sys.stdin:
        before, started = sum(os.times()[:2]), time.perf_counter()
        outputs = run()
        seconds = time.perf_counter() - started
        answer = {"name": name, "ms": 1e3 * seconds}
        answer |= {"cpu_ms": 1e3 * (sum(os.times()[:2]) - before), "peak_bytes": peak_bytes()}
        np.savez(line.strip(), **outputs)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
