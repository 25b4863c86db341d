"""A whole detector on this machine: export, a photograph in ONNX Runtime, the official code beside.

    python benchmarks/detection.py [--model cascade-vimdet-tiny] [--threads 2] [--out FOLDER]
                                   [--official CHECKOUT] [--check]

The model is a recipe, whose weights are seeded, or a checkpoint; the picture is scikit-learn's
china.jpg, fitted into the input. The exported file with native ops, with the functions in it and,
with --official, the official code of Vim-Tiny's detector (``official_detector.py``) on the same
weights and threads are processes that take turns. ``ratios`` are of median times, the official
code's below; ``parity`` compares what it found with what the file found. The exported graph does
the same work whatever it finds, and the official code less where there is less: ``official`` says
how many proposals and detections it had, of 1000 and 100.

The machine has to be quiet; --busy tries it without writing results. About 5 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import official_detector
from detection_worker import OFFICIAL, SEED, WAYS
from scaling import MOST_LOAD, disturbed, library
from scaling_report import write_compact
from scaling_steps import OK, run_step, short
from spine import about

from vim_deploy.artifact import Artifact
from vim_deploy.bench import environment
from vim_deploy.images import fit_from
from vim_deploy.parity.detections import compare_detections
from vim_deploy.parity.limits import detection_limits

#: Longest export, in seconds.
_LIMIT = 900
_WORKER = Path(__file__).parent / "detection_worker.py"


@dataclass
class Worker:
    """A process that runs one detector (``detection_worker.py``), and the answers it gave."""

    process: subprocess.Popen[str]
    outputs: Path
    answers: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """One run; what it took."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(self.outputs, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.outputs.stem}: exit status {self.process.wait()}")
        self.answers.append(json.loads(line))
        print(f"{self.outputs.stem}: {self.answers[-1]['ms']:.0f} ms", flush=True)
        return self.answers[-1]


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core"
    parser.add_argument("--out", type=Path, default=default, help="folder for detection.json")
    parser.add_argument("--model", default="cascade-vimdet-tiny", help="recipe or checkpoint")
    parser.add_argument("--threads", type=int, default=2, help="threads inside one operator")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each")
    parser.add_argument("--official", type=Path, help="checkout of hustvl/Vim")
    parser.add_argument("--check", action="store_true", help="export with its check, too")
    parser.add_argument("--busy", action="store_true", help="only try it; nothing is written")
    return parser.parse_args()


def exported(model: str, file: Path, *options: str) -> dict[str, Any]:
    """Export ``model``; seconds and peak memory of that process."""
    command = ["export", model, "-o", file.name, "--json", *options]
    command += [] if Path(model).exists() else ["--random-weights", str(SEED)]
    found = run_step([sys.executable, "-m", "vim_deploy", *command], file.parent, _LIMIT)
    if found.status != OK:
        raise SystemExit(f"export: {found.status}, {found.reason}")
    print(f"export: {found.seconds:.1f} s, {found.peak_bytes / 1e9:.2f} GB", flush=True)
    sizes = {"peak_bytes": found.peak_bytes, "file_bytes": file.stat().st_size}
    return {"command": ["vim-deploy", *command], "seconds": found.seconds, **sizes}


def fitted(file: Path, picture: Path) -> dict[str, Any]:
    """Write the picture as the workers read it; what it is."""
    from sklearn.datasets import load_sample_image

    pixels, size = fit_from(
        load_sample_image("china.jpg"), Artifact.open(file).require_info().image
    )
    np.savez(picture, padded=pixels, size=np.array([size]))
    return {"file": "scikit-learn china.jpg", "input": pixels.shape[0], "size": size}


def turns(workers: Mapping[str, Worker], rounds: int) -> dict[str, Any]:
    """Time all of them in turns, after a run each to warm up; what else ran meanwhile."""
    for worker in workers.values():
        worker.run()
        worker.answers.clear()
    before, own = environment.cpu_times(), sum(os.times()[:2])
    for _ in range(rounds):
        for worker in workers.values():
            worker.run()
    mine = sum(os.times()[:2]) - own
    mine += sum(answer["cpu_ms"] for w in workers.values() for answer in w.answers) / 1e3
    return environment.disturbance(before, environment.cpu_times(), mine)


def kept_runs(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """What the results keep of one worker's runs."""
    kept = {name: [answer[name] for answer in answers] for name in ("ms", "cpu_ms")}
    last = {"runtime": answers[-1]["name"], "peak_bytes": answers[-1]["peak_bytes"]}
    return {**last, **kept, "median_ms": statistics.median(kept["ms"])}


def parity(reference: Path, candidate: Path, file: Path) -> dict[str, Any]:
    """What two workers found, compared in pairs; differences of the pairs, boxes in pixels."""
    limits = detection_limits("fp32", Artifact.open(file).require_info())
    with np.load(reference) as theirs, np.load(candidate) as ours:
        first, *values = compare_detections(dict(theirs), dict(ours), limits)
    assert first.found is not None
    counts = ("reference", "candidate", "matched", "unexcused")
    kept = {name: getattr(first.found, name) for name in counts}
    return {**kept, "max_abs": {item.output: item.max_abs for item in values}}


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All of it."""
    picture, file = folder / "picture.npz", folder / "detector.onnx"
    found: dict[str, Any] = {
        "model": options.model,
        "export": exported(options.model, file, "--no-check"),
    }
    found["picture"] = fitted(file, picture)
    models = dict.fromkeys(WAYS, str(file))
    if options.official is not None:
        models[OFFICIAL] = options.model
    with ExitStack() as stack:
        workers = {}
        for way, model in models.items():
            words = [way, model, str(picture), str(options.threads), str(options.official)]
            command = [sys.executable, str(_WORKER), *words]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = subprocess.Popen(command, **pipes, text=True)
            stack.callback(process.kill)
            workers[way] = Worker(process, folder / f"{way}.npz")
        found |= turns(workers, options.rounds)
    found["runs"] = {way: kept_runs(worker.answers) for way, worker in workers.items()}
    if options.check:
        found["export and check"] = exported(options.model, folder / "checked.onnx")
    if options.official is not None:
        theirs = folder / f"{OFFICIAL}.npz"
        median = found["runs"][OFFICIAL]["median_ms"]
        found["ratios"] = {way: found["runs"][way]["median_ms"] / median for way in WAYS}
        found["parity"] = {way: parity(theirs, folder / f"{way}.npz", file) for way in WAYS}
        with np.load(theirs) as arrays:
            work = {"proposals": int(arrays["proposals"][0]), "detections": int(arrays["count"][0])}
        found["official"] = {"config": official_detector.CONFIG, **work}
    return found


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    load = os.getloadavg()[0]
    if not options.busy and load > MOST_LOAD * environment.available_cpus():
        raise SystemExit(f"the machine is not quiet (load {load:.2f}): try later")
    settings = {"threads": options.threads, "rounds": options.rounds, "batch": 1}
    words = ["python", sys.argv[0], *(Path(word).name for word in sys.argv[1:])]
    value = {**about(), "command": " ".join(words), "settings": settings, "library": library()}
    with tempfile.TemporaryDirectory() as folder:
        value = short({**value, **measure(options, Path(folder))})
    for way, runs in value["runs"].items():
        ratio = value.get("ratios", {}).get(way, 1.0)
        print(f"{way}: {runs['median_ms']:.0f} ms ({ratio:.3f}), {runs['peak_bytes'] / 1e9:.2f} GB")
    print(json.dumps({key: value.get(key) for key in ("parity", "official", "other_share")}))
    if options.busy or disturbed(value):
        print("nothing is written: " + ("--busy" if options.busy else "others were at work"))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    write_compact(options.out / "detection.json", value)
    print(f"wrote {options.out / 'detection.json'}")


if __name__ == "__main__":
    main()
