"""Native ops in ONNX Runtime on this machine: what remains, low-rank dt, and OpenVINO beside.

    python benchmarks/native_ops.py [--places vim-tiny:224,...] [--threads 1,2] [--out FOLDER]

For every place (a model and an image size) and number of threads one group, measured in turns: Vim
with native ops in the fused and in the low-rank graph, with the function bodies, DeiT of the same
width in each form of its attention; and, where OpenVINO is installed, Vim and plain DeiT in it.
Then ONNX Runtime's profile of Vim with native ops. ``native_ops.json`` has time and processor time
of all, with ratios to the first.

The machine has to be quiet; with --busy nothing is kept. About 10 minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from native_profile import profile
from scaling import MOST_LOAD, disturbed, library
from scaling_report import write_compact
from scaling_steps import kept_ratio, kept_result, short

from vim_deploy.bench import environment
from vim_deploy.bench.measure import Timing, measure_group
from vim_deploy.bench.report import BenchReport
from vim_deploy.bench.subject import Subject, input_for
from vim_deploy.codec import encode
from vim_deploy.plugin.ort_library import find_ort_library
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes import runtime_named
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.runtimes.openvino.runner import OpenVinoRunner
from vim_deploy.stages.bench_subjects import SubjectMaker
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

PLACES = "vim-tiny:224,vim-tiny:1248,vim-small:224,vim-base:224"
FORMS = ("fused", "fused-low-rank")
#: Runs of a profile; the shortest of each node counts.
_RUNS = 5
#: Kinds of nodes with less than this share of the time are not kept.
_LEAST_SHARE = 0.01
OPENVINO = runtime_named("openvino")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core"
    parser.add_argument("--out", type=Path, default=default, help="folder for native_ops.json")
    parser.add_argument("--places", default=PLACES, help="models and image sizes")
    parser.add_argument("--threads", default="1,2", help="threads inside one operator")
    parser.add_argument("--duration", type=float, default=4.0, help="timed seconds per runtime")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before the clock")
    parser.add_argument("--busy", action="store_true", help="only try it; the figures do not count")
    return parser.parse_args()


def files_of(model: str, size: int, folder: Path) -> dict[str, Path]:
    """The model with seeded weights in each form of its graph."""
    found = {}
    for form in FORMS:
        path = folder / f"{model}-{size}-{form}.onnx"
        request = ModelRequest(model, image_size=size, random_weights=0)
        export(request, path, ExportOptions(graph=form, check=False))
        found[form] = path
    return found


def subjects_of(files: dict[str, Path], folder: Path, *, openvino: bool) -> list[Subject]:
    """Everything of one place; the first is what ratios refer to."""
    maker = SubjectMaker(
        folder,
        image_sizes=(),
        batches=(1,),
        baselines=("deit",),
        random_weights=None,
        graph="fused",
        runner=RunnerOptions(ops="auto"),
        cuda_graph=False,
        progress=print,
    )
    (group,) = maker.groups([str(path) for path in files.values()])
    # The loop is in both graphs, and dt is a small part of it: once is enough.
    low = files[FORMS[1]].stem
    group = [one for one in group if one.label != low or one.source.get("ops") == "native"]
    plain = next(one for one in group if one.facts.get("attention") == "eager")
    for one in (group[0], plain) if openvino else ():
        source = {"path": one.source["path"], "max_batch": one.batch}
        facts = {"form": "functions inlined, constants folded, batch fixed"}
        place = (one.batch, one.image, one.tokens)
        group.append(Subject(one.label, OPENVINO.name, source, *place, facts))
    return group


def distance(path: Path) -> float:
    """How far OpenVINO's logits are from ONNX Runtime's, over the largest, on a random image."""
    with OrtRunner(path, ops="function") as runner:
        image = input_for(runner, 1)
        expected = runner.run(image)["logits"]
    with OpenVinoRunner(path, 1) as runner:
        found = runner.run(image)["logits"]
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def measure_place(
    place: str, group: Sequence[Subject], timing: Timing, number: int
) -> dict[str, Any]:
    """One group: an entry of the results."""
    before, own = environment.cpu_times(), sum(os.times()[:4])

    def tell(text: str) -> None:
        print(f"{place}, {timing.threads} threads: {text}", flush=True)

    found = measure_group(group, timing, number, tell)
    mine = sum(os.times()[:4]) - own
    shares = environment.disturbance(before, environment.cpu_times(), mine)
    value = encode(BenchReport(tuple(found), timing, {}, {}, {}, {}))
    return {
        "place": place,
        "threads": timing.threads,
        **shares,
        "results": [kept_result(result) for result in value["results"]],
        "ratios": [kept_ratio(ratio) for ratio in value["ratios"]],
    }


def kept_profile(path: Path, library: Path | None, threads: int) -> dict[str, Any]:
    """ONNX Runtime's profile of a file; ``ms`` is of all nodes, also those without a row here."""
    found = profile(path, library, threads, _RUNS)
    rows = [row for row in found["rows"] if row["share"] >= _LEAST_SHARE]
    kept: dict[str, Any] = short({**found, "rows": rows})
    return kept


def measure(options: argparse.Namespace, openvino: bool) -> dict[str, Any]:
    """All of it."""
    entries: list[dict[str, Any]] = []
    profiles: list[dict[str, Any]] = []
    distances: dict[str, float] = {}
    ops = find_ort_library("cpu")
    counts = [int(count) for count in options.threads.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in options.places.split(","):
            model, _, size = place.partition(":")
            print(f"exporting {place}", flush=True)
            files = files_of(model, int(size), folder)
            group = subjects_of(files, folder, openvino=openvino)
            if openvino:
                distances |= {path.stem: distance(path) for path in files.values()}
            for threads in counts:
                timing = Timing(options.warmup, options.duration, threads)
                entries.append(measure_place(place, group, timing, len(entries)))
                if disturbed(entries[-1]) and not options.busy:
                    raise SystemExit(f"{place} on {threads}: others were at work; try later")
                profiles += [
                    {"place": place, "form": form, **kept_profile(path, ops, threads)}
                    for form, path in files.items()
                ]
    return {"entries": entries, "profiles": profiles, "openvino_distance": distances}


def summary(value: Mapping[str, Any]) -> Iterator[str]:
    """What was found, as lines."""
    for entry in value["entries"]:
        ratios = {(ratio["of"], ratio["of_runner"]): ratio for ratio in entry["ratios"]}
        yield f"{entry['place']} on {entry['threads']}:"
        for result in entry["results"]:
            name = f"  {result['label']}, {result['runner']}"
            if result["status"] != "ok":
                yield f"{name}: {result['status']}, {result['reason']}"
                continue
            ratio = ratios.get((result["label"], result["runner"]))
            times = [f"{result[key]['value']:.1f} ms" for key in ("ms", "cpu_ms")]
            over = (
                [1.0, 1.0] if ratio is None else [ratio[k]["value"] for k in ("time", "cpu_time")]
            )
            yield f"{name}: {times[0]} ({over[0]:.2f}), CPU {times[1]} ({over[1]:.2f})"
    for found in value["profiles"]:
        where = f"{found['place']}, {found['form']}, on {found['threads']}"
        yield f"{where}, nodes with native ops: {found['ms']:.1f} ms"
        for row in found["rows"]:
            rate = f", {row['gflops']:.0f} GFLOP/s" if "gflops" in row else ""
            yield f"  {row['kind']} x{row['nodes']}: {row['share']:.1%}{rate}"
    for name, far in value["openvino_distance"].items():
        yield f"{name} in OpenVINO: logits differ by {far:.1e} of the largest"


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    load, processors = os.getloadavg()[0], environment.available_cpus()
    if not options.busy and load > MOST_LOAD * processors:
        raise SystemExit(f"the machine is not quiet (load {load:.2f}): try later")
    openvino = OPENVINO.is_installed()
    about = {
        "command": ["python", *sys.argv],
        "machine": environment.machine(),
        "state": environment.state(),
        "settings": {"duration": options.duration, "warmup": options.warmup, "batch": 1},
        "library": library(),
        "openvino": "beside" if openvino else "not installed: not measured",
    }
    value = {**about, **measure(options, openvino)}
    print("\n".join(summary(value)))
    if options.busy:
        print("the figures do not count: --busy")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    write_compact(options.out / "native_ops.json", value)
    print(f"wrote {options.out / 'native_ops.json'}")


if __name__ == "__main__":
    main()
