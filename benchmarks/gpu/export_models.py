"""The models that ``call2.sh`` builds with TensorRT 8.6, made on the machine itself; no GPU needed.

    python benchmarks/gpu/export_models.py FOLDER [--sizes 224,1248] [--jobs 4] [--no-deit]

Of the Vim with seeded weights, by this project's own export and the lowering that build-engine has
for 8.6 (``runtimes/tensorrt/lower.py``), at each size: ``vim-SIZE-fp32.onnx`` and
``vim-SIZE-fp16.onnx`` with our ops as nodes for the plugin, and ``.types``, a line "tensor float16"
or "tensor float32" for each tensor, which layers have to obey. Vim-Ti is exported with low-rank dt,
as it always is unless asked otherwise. Of DeiT-Ti, the baseline of ``vim-deploy bench`` with plain
attention: ``deit-SIZE.onnx`` in float32, whose types TensorRT may choose, without the mask of
tokens times tokens that the exporter writes down and PyTorch never makes.

Beside each ``.in`` and ``.out``: images and the module's logits on the CPU, raw float32, what the
engines are compared with. ``models.json`` says how each file came about.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from vim_deploy.artifact import Artifact  # noqa: E402
from vim_deploy.bench import environment  # noqa: E402
from vim_deploy.bench.subject import PYTORCH, PYTORCH_DEIT, open_runner  # noqa: E402
from vim_deploy.files import write_bytes  # noqa: E402
from vim_deploy.parity.cases import random_case  # noqa: E402
from vim_deploy.precisions import Precision  # noqa: E402
from vim_deploy.recipe.schema import ModelRequest  # noqa: E402
from vim_deploy.runtimes.base import Runner  # noqa: E402
from vim_deploy.runtimes.building.graph import graph_of_precision  # noqa: E402
from vim_deploy.runtimes.tensorrt.capability import Capabilities  # noqa: E402
from vim_deploy.runtimes.tensorrt.lower import lower  # noqa: E402
from vim_deploy.runtimes.tensorrt.plan_layers import float_types  # noqa: E402
from vim_deploy.stages.deit_baseline import deit_graph  # noqa: E402
from vim_deploy.stages.export_options import ExportOptions  # noqa: E402
from vim_deploy.stages.exporting import export  # noqa: E402

#: What ``runtimes.tensorrt.capability`` says of TensorRT 8.6.0, of which lowering asks the last
#: opset, functions and constants in 8 bits. Its bindings end at Python 3.10.
TENSORRT_8_6 = Capabilities(
    version="8.6.0",
    generation="8.6",
    strongly_typed=False,
    network_flags=("EXPLICIT_BATCH",),
    local_functions=False,
    max_opset=17,
    builder_flags=frozenset(),
    hardware_levels=frozenset(),
    bfloat16=False,
    float8=False,
    narrow_constants=False,
    progress_monitor=False,
    plugins_to_serialize=True,
    serialization_config=False,
    debug_tensors=False,
)
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
DEIT, ATTENTION = "tiny", "eager"
SEED = 0
#: Processes: at 1248 px a model takes longer than the others together.
JOBS = max(1, min(4, environment.available_cpus() // 2))
#: Images that are compared: several where one takes little time.
MANY, SMALL_IMAGE = 8, 256


def export_vim(folder: Path, request: ModelRequest, stem: str) -> dict[str, Any]:
    """One Vim: its two models, their types, images and logits; what was done to each."""
    path = folder / f"{stem}.onnx"
    export(request, path, ExportOptions(force=True, check=False))
    made = {}
    for precision in PRECISIONS:
        # Typing changes the model that a file holds.
        typed = graph_of_precision(Artifact.open(path), precision)
        types = float_types(typed.model)
        lowered = lower(typed.model, TENSORRT_8_6, use_plugin=True)
        name = f"{stem}-{precision}"
        write_bytes(folder / f"{name}.onnx", lowered.model.SerializeToString())
        write_bytes(folder / f"{name}.types", type_lines(types).encode())
        assert typed.export is not None
        made[name] = {
            "graph": typed.export.graph,
            "steps": [*typed.steps, *lowered.steps],
            "plugin_nodes": lowered.plugin_nodes,
            "types": dict(Counter(types.values())),
        }
    # Of this one file: its own checkpoint, or seeded weights where it has those.
    checkpoint = None if request.random_weights is not None else request.source
    source = {"path": str(path), "checkpoint": checkpoint}
    # The scan makes many small calls, whose threads would wait for each other.
    _store(folder / stem, open_runner(PYTORCH, source, threads=1))
    return made


def export_deit(folder: Path, size: int, stem: str) -> dict[str, Any]:
    """One DeiT: model, images and logits; what was done to it."""
    model = deit_graph(DEIT, (size, size), ATTENTION)
    lowered = lower(model, TENSORRT_8_6, use_plugin=False)
    write_bytes(folder / f"{stem}.onnx", lowered.model.SerializeToString())
    source = {"size": DEIT, "image": (size, size), "attention": ATTENTION}
    _store(folder / stem, open_runner(PYTORCH_DEIT, source, threads=environment.available_cpus()))
    return {stem: {"attention": ATTENTION, "steps": list(lowered.steps)}}


def type_lines(types: Mapping[str, str]) -> str:
    """A line "tensor type" for each; ValueError for a name that would not come back from it."""
    for name in types:
        if not name or name.split() != [name]:
            raise ValueError(f"the tensor {name!r} has white space in its name")
    return "".join(f"{name} {kind}\n" for name, kind in types.items())


def _store(place: Path, runner: Runner) -> None:
    """Images and the module's answer beside ``place``, raw float32."""
    count = MANY if runner.input.shape[-1] <= SMALL_IMAGE else 1
    images = random_case(runner.input, "none", count).images
    (logits,) = runner.run(images).values()
    for end, array in ((".in", images), (".out", logits)):
        write_bytes(place.with_name(place.name + end), array.astype(np.float32).tobytes())


def _timed(job: Callable[[str], dict[str, Any]], stem: str) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    return job(stem), time.monotonic() - began


def main() -> int:
    """Export everything; 1 when something could not be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", default="224,1248")
    parser.add_argument("--model", default="vim-tiny", help="a named variant, its weights seeded")
    parser.add_argument("--no-deit", action="store_true")
    parser.add_argument("--jobs", type=int, default=JOBS, help="models that are made at a time")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    jobs: dict[str, Callable[[str], dict[str, Any]]] = {}
    for size in (int(text) for text in arguments.sizes.split(",")):
        request = ModelRequest(arguments.model, random_weights=SEED, image_size=size)
        jobs[f"vim-{size}"] = partial(export_vim, folder, request)
        if not arguments.no_deit:
            jobs[f"deit-{size}"] = partial(export_deit, folder, size)
    made: dict[str, Any] = {}
    failed: list[str] = []
    # Processes of their own, and not forks: PyTorch has threads.
    spawn = multiprocessing.get_context("spawn")
    print(f"making {', '.join(jobs)}, {arguments.jobs} at a time", flush=True)
    with ProcessPoolExecutor(arguments.jobs, spawn) as pool:
        running = {pool.submit(_timed, job, stem): stem for stem, job in jobs.items()}
        for done in as_completed(running):
            stem = running[done]
            try:
                facts, seconds = done.result()
                made |= facts
                said = f"made, {seconds:.0f} s"
            except Exception as error:
                # The others are of use without it; the last line says what is missing.
                said = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                failed.append(f"{stem}: {said}")
                made[stem] = {"error": f"{type(error).__name__}: {error}"}
            write_bytes(folder / "models.json", (json.dumps(made, indent=1) + "\n").encode())
            print(f"{stem}: {said}", flush=True)
    if failed:
        print("; ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
