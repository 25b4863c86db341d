"""Vim against DeiT in PyTorch on a GPU, speed and memory, at 224 and 1248 pixels.

    python benchmarks/gpu/models.py LIBRARY OUT.json [--seconds 90] \\
        [--ext FOLDER --official CHECKOUT]

Subjects, with seeded weights: Vim-Ti as this project's module on the scan kernels of LIBRARY; the
same on the fused kernels (``fused.py``), eagerly and as a CUDA graph; the official Vim-Ti where a
checkout and built extensions are given (``official.py``); DeiT-Ti with plain attention and with
SDPA, as the baseline of ``vim-deploy bench`` builds it. All under autocast to float16, as the
official evaluation runs; DeiT with SDPA also with float16 weights, its fastest form.

First every Vim's logits of one image are compared: in float32 (TF32 off) with this project's module
and its PyTorch scan on the CPU where that is short enough, else with the module on the scan
kernels, relative L2 at most 1e-3; then in float16 with the same float32 logits, at most 1e-2. Then
each subject is timed alone: CUDA events around single forward passes, images on the GPU. Memory is
the peak that PyTorch's allocator gave out during a pass, weights and images included.

OUT.json is written after every row. What there was no time for is listed under ``left_out``. The
exit code is 1 when a subject failed, running out of memory apart, or logits are too far apart.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).resolve().parent)]

from subjects import (  # noqa: E402
    EAGER,
    FUSED,
    OFFICIAL,
    SCAN,
    SDPA,
    SDPA_HALF,
    Plan,
    Subject,
    caller,
    subjects,
)

from vim_deploy.bench import environment  # noqa: E402
from vim_deploy.families.vim.config import VimConfig  # noqa: E402
from vim_deploy.families.vim.network.vim import VisionMamba  # noqa: E402
from vim_deploy.files import write_bytes  # noqa: E402
from vim_deploy.model.seeding import seed_weights  # noqa: E402
from vim_deploy.plugin.kernels import ScanLibrary  # noqa: E402
from vim_deploy.runtimes.torch.runner import use_scan_kernels  # noqa: E402

LIMITS = {"fp32": 1e-3, "fp16": 1e-2}
#: Tokens up to which the CPU computes the logits that all others are compared with: the scan in
#: PyTorch makes some small calls a token, direction and block.
CPU_TOKENS = 256
#: Largest batch for which a graph is captured as well: above it launches hide behind the kernels.
GRAPH_BATCH = 8
MOST_CALLS, FEWEST_CALLS = 200, 3
#: arXiv 2401.09417, abstract: Vim-Ti against DeiT-Ti, batch inference at 1248 x 1248.
PAPER = {"speed": 2.8, "memory": -0.868, "size": 1248}
#: What the logits are compared with up to ``CPU_TOKENS``.
REFERENCE = "vim module, CPU"


class Results:
    """What is known so far, written after every change."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        about = {"machine": environment.machine(), "state": environment.state()}
        if plan.on_gpu:
            about["gpu"] = torch.cuda.get_device_name()
        self.value: dict[str, Any] = {
            "command": sys.argv,
            **about,
            "rows": [],
            "agreement": [],
            "failed": {},
            "left_out": {},
            "paper": PAPER,
            "claim": {},
        }

    def add(self, what: str, row: dict[str, Any]) -> None:
        self.value[what].append(row)
        print(json.dumps(row), flush=True)
        self.save()

    def note(self, what: str, name: str, text: str) -> None:
        self.value[what][name] = text
        print(f"{what}: {name}: {text}", flush=True)
        self.save()

    def save(self) -> None:
        write_bytes(self._path, (json.dumps(self.value, indent=1) + "\n").encode())

    @property
    def good(self) -> bool:
        """Nothing failed, something was timed, and all logits agree."""
        agreement = self.value["agreement"]
        agrees = bool(agreement) and all(row["ok"] for row in agreement)
        return bool(self.value["rows"]) and agrees and not self.value["failed"]


def agree(plan: Plan, found: Sequence[Subject], config: VimConfig, results: Results) -> None:
    """Compare the logits of every Vim of this size on one image."""
    size = config.image_hw[0]
    image = _images(plan, 1, size)
    name, expected = SCAN, None
    if config.num_tokens <= CPU_TOKENS:
        # The scan makes many small calls, whose threads would wait for each other.
        torch.set_num_threads(1)
        with torch.inference_mode():
            module = next(s for s in found if s.name == SCAN).make(torch.float32).cpu()
            name, expected = REFERENCE, module(image.cpu())
    vims = [subject for subject in found if subject.is_vim]
    # The scan kernels first: what the others are compared with where the CPU takes too long.
    for dtype in LIMITS:
        for subject in sorted(vims, key=lambda subject: subject.name != SCAN):
            what = f"agreement {subject.name} {size} {dtype}"
            if _out_of_time(plan, what, results):
                continue
            with _kept(results, what):
                module = subject.make(torch.float16 if dtype == "fp16" else torch.float32)
                got = caller(subject, module, plan.device, dtype)(image).float().cpu()
                if expected is None and subject.name == SCAN:
                    expected = got
                    continue
                if expected is None:
                    raise RuntimeError(f"{SCAN} gave no logits to compare with")
                far = float((got - expected).norm() / expected.norm())
                row = {"subject": subject.name, "size": size, "dtype": dtype, "against": name}
                row |= {"relative_l2": far, "limit": LIMITS[dtype], "ok": far <= LIMITS[dtype]}
                results.add("agreement", row)


def time_all(plan: Plan, found: Sequence[Subject], size: int, results: Results) -> None:
    """A row for every subject, batch and, where there is one, graph."""
    for subject in found:
        module = None
        with _kept(results, f"{subject.name} {size}"):
            module = subject.make(torch.float16)
        if module is None:
            continue
        call = caller(subject, module, plan.device, "fp16")
        for batch in plan.sizes[size]:
            graphs = subject.graph and plan.on_gpu and batch <= GRAPH_BATCH
            for graph in (False, True) if graphs else (False,):
                row = {"subject": subject.name, "size": size, "batch": batch, "graph": graph}
                what = " ".join(map(str, row.values()))
                if _out_of_time(plan, what, results):
                    continue
                with _kept(results, what):
                    try:
                        row |= measured(plan, call, _images(plan, batch, size), graph)
                    except torch.cuda.OutOfMemoryError as error:
                        row["out_of_memory"] = str(error)[:200]
                    results.add("rows", row)
        del module, call
        _free(plan)


def measured(plan: Plan, call: Callable[[Tensor], Any], images: Tensor, graph: bool) -> Any:  # noqa: ANN401
    """Milliseconds of one pass (median, first and last decile), images per second, peak MiB."""
    sync = torch.cuda.synchronize if plan.on_gpu else lambda: None
    for _ in range(2):
        call(images)
    sync()
    peak = None
    if plan.on_gpu:
        _free(plan)
        torch.cuda.reset_peak_memory_stats()
    work = _captured(call, images) if graph else lambda: call(images)
    work()
    sync()
    if plan.on_gpu:
        peak = torch.cuda.max_memory_allocated() / 2**20
    times: list[float] = []
    end = time.monotonic() + plan.turn
    while (time.monotonic() < end and len(times) < MOST_CALLS) or len(times) < FEWEST_CALLS:
        times.append(_milliseconds(work, plan.on_gpu))
    p10, median, p90 = (float(value) for value in np.percentile(times, (10, 50, 90)))
    figures = {"median_ms": median, "p10_ms": p10, "p90_ms": p90, "calls": len(times)}
    return {**figures, "images_per_s": 1e3 * len(images) / median, "peak_mib": peak}


def _milliseconds(work: Callable[[], Any], on_gpu: bool) -> float:
    if not on_gpu:
        began = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - began)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop))


def _captured(call: Callable[[Tensor], Any], images: Tensor) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call(images)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        # The graph's memory pool keeps the result.
        call(images)
    return graph.replay


def _images(plan: Plan, batch: int, size: int) -> Tensor:
    generator = torch.Generator(plan.device).manual_seed(1)
    return torch.randn(batch, 3, size, size, device=plan.device, generator=generator)


def _free(plan: Plan) -> None:
    if plan.on_gpu:
        gc.collect()
        torch.cuda.empty_cache()


def _out_of_time(plan: Plan, what: str, results: Results) -> bool:
    over = time.monotonic() > plan.end
    if over:
        results.note("left_out", what, "the time was over")
    return over


@contextlib.contextmanager
def _kept(results: Results, what: str) -> Iterator[None]:
    """A failure is a result of its subject; the others go on."""
    try:
        yield
    except Exception as error:
        results.note("failed", what, f"{type(error).__name__}: {str(error)[:400]}")


def claims(rows: Sequence[Mapping[str, Any]], sizes: Mapping[int, Sequence[int]]) -> dict[str, Any]:
    """Each Vim against each DeiT at the first batch of a size: what the paper's figures are of.

    ``speed`` is DeiT's time over Vim's, ``memory`` Vim's peak over DeiT's, less one.
    """
    there = {
        (row["subject"], row["size"], row["batch"]): row
        for row in rows
        if "median_ms" in row and not row["graph"]
    }
    found = {}
    for size, batches in sizes.items():
        for mine in (FUSED, OFFICIAL):
            for other in (EAGER, SDPA, SDPA_HALF):
                pair = [there.get((name, size, batches[0])) for name in (mine, other)]
                if pair[0] is None or pair[1] is None:
                    continue
                vim, deit = pair
                peaks = (vim["peak_mib"], deit["peak_mib"])
                found[f"{mine} against {other}, {size} px, batch {batches[0]}"] = {
                    "speed": deit["median_ms"] / vim["median_ms"],
                    "memory": peaks[0] / peaks[1] - 1 if all(peaks) else None,
                }
    return found


def run(plan: Plan, results: Results) -> None:
    """Agreement and times of every size."""
    if plan.on_gpu:
        # Products of 10 bits would hide what the comparison in float32 is for.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for size in plan.sizes:
        config = dataclasses.replace(plan.config, img_size=size)
        seeded = VisionMamba(config)
        seed_weights(seeded, 0)
        found = subjects(plan, config, seeded.state_dict())
        agree(plan, found, config, results)
        time_all(plan, found, size, results)
        results.value["claim"] = claims(results.value["rows"], plan.sizes)
        results.save()


def main() -> int:
    """Measure, write and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--ext", type=Path, help="folder with the two built extensions")
    parser.add_argument("--official", type=Path, help="checkout of hustvl/Vim")
    parser.add_argument("--seconds", type=float, default=90, help="after which no row begins")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU here")
    library = ScanLibrary(arguments.library)
    use_scan_kernels(library)
    plan = Plan(library, extensions=arguments.ext, checkout=arguments.official, end=end)
    results = Results(arguments.output.resolve(), plan)
    if plan.checkout is None or plan.extensions is None:
        results.note("left_out", OFFICIAL, "--ext and --official name no built extensions and code")
    run(plan, results)
    print(json.dumps(results.value["claim"], indent=1))
    return 0 if results.good else 1


if __name__ == "__main__":
    sys.exit(main())
