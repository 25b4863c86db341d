"""The PyTorch module of an exported file on the GPU, in turns with engines of the same file.

    python benchmarks/torch_cuda.py MODEL.onnx --library libvim_plugins.so \\
        --engine vim-tiny-fp16.plan [--engine ...] [--engine-python PYTHON] [--mamba CHECKOUT]

The module runs eagerly, in float32 and under autocast to float16 as the official evaluation does,
once with our kernels as its scan and, where a checkout of mamba_ssm (or Vim's mamba-1p1p1) is
named, once with that project's kernel, with the flips and copies its layout needs. Engines run in
a process of their own, of the interpreter that has TensorRT. Everything takes turns, and prints as
one JSON object. The clock, on the host: from a batch in host memory to logits in host memory,
copies included, on both sides.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "plugins" / "bench")]

ROUNDS = 10
TURN_SECONDS = 0.3

Call = Callable[[float], list[float]]


def module_of(path: Path, device: str) -> torch.nn.Module:
    """The reference module of an exported file, with its own or seeded weights."""
    from vim_deploy.bench.subject import require_info, seeded
    from vim_deploy.model.reference import reference_model

    address, info = seeded(require_info(path))
    return reference_model(address, info).to(device)


def mamba_scan(fwd: Callable[..., list[Tensor]]) -> Callable[..., Tensor]:
    """The scan operator's meaning by mamba_ssm's forward, whose tensors are [B, D, L]."""

    def scan(
        u: Tensor,
        dt: Tensor,
        a: Tensor,
        bc: Tensor,
        d_skip: Tensor,
        dt_bias: Tensor,
        z: Tensor,
        reverse: bool,
        delta_softplus: bool,
        b_off: int,
        c_off: int,
        z_off: int,
        has_z: bool,
    ) -> Tensor:
        states, channels = a.shape

        def turned(value: Tensor) -> Tensor:
            value = value.transpose(1, 2)
            return (value.flip(-1) if reverse else value).contiguous()

        b, c = (turned(bc[..., at : at + states])[:, None] for at in (b_off, c_off))
        gate = turned(z[..., z_off : z_off + channels]) if has_z else None
        rows = a.transpose(0, 1).contiguous()
        result = fwd(turned(u), turned(dt), rows, b, c, d_skip, gate, dt_bias, delta_softplus)
        out = result[2] if has_z else result[0]
        return (out.flip(-1) if reverse else out).transpose(1, 2).contiguous()

    return scan


class Scans:
    """Which implementation the scan operator has on CUDA, changed between turns."""

    def __init__(self, library: Path, mamba: Path | None) -> None:
        from vim_deploy.model.scan import selective_scan_op
        from vim_deploy.plugin.kernels import ScanLibrary
        from vim_deploy.runtimes.torch.runner import use_scan_kernels

        kernels = ScanLibrary(library)
        self._named: dict[str, Callable[[], object]] = {
            "our kernels": lambda: use_scan_kernels(kernels)
        }
        if mamba is not None:
            from compare_mamba import build_mamba

            theirs = mamba_scan(build_mamba(mamba).fwd)
            register = selective_scan_op.register_kernel
            self._named["mamba_ssm's kernel"] = lambda: register("cuda")(theirs)

    @property
    def names(self) -> tuple[str, ...]:
        """What there is."""
        return tuple(self._named)

    def use(self, name: str) -> None:
        """From now on the module's scans run on this."""
        self._named[name]()


def torch_turn(module: torch.nn.Module, image: Tensor, half: bool) -> Call:
    """Calls back to back for some seconds; the time of each."""
    device = next(module.parameters()).device

    def call() -> None:
        context: Any = contextlib.nullcontext()
        if half:
            context = torch.autocast(device.type, torch.float16)
        with torch.inference_mode(), context:
            module(image.to(device)).cpu()

    def turn(seconds: float) -> list[float]:
        times: list[float] = []
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        return times

    return turn


def measure(arguments: argparse.Namespace, batch: int, stack: contextlib.ExitStack) -> Any:  # noqa: ANN401
    """Median milliseconds of everything at one batch size, in turns, and ratios to the first."""
    from vim_deploy.bench.measure import WORKER_MODULE, WorkerProcess

    module = module_of(arguments.model, "cuda")
    shape = (batch, 3, *module.model.config.image_hw)  # type: ignore[union-attr]
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0)).pin_memory()
    scans = Scans(arguments.library, arguments.mamba)
    turns: dict[str, Call] = {}
    for engine in arguments.engine:
        command = (arguments.engine_python, "-m", WORKER_MODULE)
        worker = stack.enter_context(WorkerProcess(command))
        source = {"path": str(engine.resolve()), "plugin": str(arguments.library.resolve())}
        source |= {"allow_plan_code": False, "cuda_graph": False, "batch": batch}
        worker.ask({"runner": "tensorrt", "source": source, "batch": batch, "threads": 1})
        turns[f"engine {engine.stem}"] = _engine_turn(worker)
    for name in scans.names:
        for half in (False, True):
            turn = torch_turn(module, image, half)
            turns[f"PyTorch {'fp16 autocast' if half else 'fp32'}, {name}"] = _with(
                scans, name, turn
            )
    times: dict[str, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        turn(TURN_SECONDS)  # warm-up
    for number in range(ROUNDS):
        order = list(turns)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            times[name] += turns[name](TURN_SECONDS)
    medians = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    first = next(iter(medians))
    return {
        "median_ms": {name: round(value, 4) for name, value in medians.items()},
        f"ratio_to_{first}": {
            name: round(value / medians[first], 3) for name, value in medians.items()
        },
        "calls": {name: len(values) for name, values in times.items()},
    }


def _engine_turn(worker: Any) -> Call:  # noqa: ANN401
    def turn(seconds: float) -> list[float]:
        return list(worker.ask({"do": "turn", "seconds": seconds, "settle": True})["host"])

    return turn


def _with(scans: Scans, name: str, turn: Call) -> Call:
    def run(seconds: float) -> list[float]:
        scans.use(name)
        return turn(seconds)

    return run


def main() -> None:
    """Measure every batch size and print one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--engine", type=Path, action="append", default=[])
    parser.add_argument("--engine-python", default=sys.executable)
    parser.add_argument("--mamba", type=Path)
    parser.add_argument("--batches", default="1,8,32")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU here")
    found = {}
    for batch in (int(text) for text in arguments.batches.split(",")):
        with contextlib.ExitStack() as stack:
            found[f"batch {batch}"] = measure(arguments, batch, stack)
    clock = "host, from a batch in host memory to logits in host memory"
    about = {"torch": torch.__version__, "gpu": torch.cuda.get_device_name(), "clock": clock}
    print(json.dumps({**about, **found}))


if __name__ == "__main__":
    main()
