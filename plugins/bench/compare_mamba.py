"""Times our scans against mamba_ssm's CUDA kernel, in one process on one GPU.

    python compare_mamba.py --mamba PATH --library libvim_kernels.so [--output FILE]

PATH is a checkout of mamba_ssm (or of Vim's mamba-1p1p1) whose ``csrc/selective_scan`` is built
here with the flags of its own setup.py; nothing of it is copied. The library is the kernels' C
interface, for example::

    nvcc -std=c++17 -O3 -arch=native --shared -Xcompiler -fPIC -Iinclude \\
        kernels/*.cpp kernels/*.cu -o libvim_kernels.so

Rows per shape, all from CUDA-graph replays of the same fp16 values in the layout each side wants:
    scan    their forward with z, two launches (one a direction), against our VimBiSelectiveScan
    mixer   their scans with every flip, copy and sum the official bidirectional module makes around
            them, against ours; the convolutions are left out on both sides
Their kernel also writes ``out`` before the gate and the training state ``x``: its interface has no
way to leave them out. Outputs are compared in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils import cpp_extension

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "host"))

from kernel_library import (
    DATA_TYPES,
    BiSelectiveScanParams,
    KernelLibrary,
)

MODELS = {"Ti": 384, "S": 768, "B": 1536}
BATCHES = (1, 8, 64, 128)
#: Vim's lengths, and two for which mamba_ssm's vectorised loads apply.
LENGTHS = (197, 730, 1025, 2048, 4096, 4097, 6085)
STATES = 16
REPLAYS = 60
#: fp16 rounding of two different orders of summation.
AGREEMENT = 5e-3


def build_mamba(path: Path) -> Any:  # noqa: ANN401 - an extension module
    """mamba_ssm's selective_scan extension, from the user's checkout."""
    folder = path / "csrc" / "selective_scan"
    sources = [folder / "selective_scan.cpp", *sorted(folder.glob("selective_scan_fwd_*.cu"))]
    sources += sorted(folder.glob("selective_scan_bwd_*.cu"))
    if not sources[0].is_file():
        sys.exit(f"{folder} holds no selective_scan.cpp: give the root of a mamba checkout")
    cuda_flags = ["-O3", "-std=c++17", "--use_fast_math", "--expt-relaxed-constexpr"]
    cuda_flags += ["--expt-extended-lambda", "-U__CUDA_NO_HALF_OPERATORS__"]
    cuda_flags += ["-U__CUDA_NO_HALF_CONVERSIONS__", "-U__CUDA_NO_BFLOAT16_OPERATORS__"]
    return cpp_extension.load(
        name="vim_bench_selective_scan",
        sources=[str(source) for source in sources],
        extra_include_paths=[str(folder)],
        extra_cflags=["-O3", "-std=c++17"],
        extra_cuda_cflags=cuda_flags,
    )


def replay_microseconds(work: Callable[[], object]) -> dict[str, float]:
    """Median, p10 and p90 of single graph replays."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for i in range(REPLAYS + 10):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        if i >= 10:
            times.append(1e3 * start.elapsed_time(stop))
    deciles = statistics.quantiles(times, n=10)
    return {"median_us": statistics.median(times), "p10_us": deciles[0], "p90_us": deciles[-1]}


class Shape:
    """The tensors of one shape, channels-last for us and channels-first for mamba_ssm."""

    def __init__(self, batch: int, length: int, channels: int) -> None:
        torch.manual_seed(0)

        def half(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, device="cuda", dtype=torch.float16)

        self.batch, self.length, self.channels = batch, length, channels
        self.u2 = half(2, batch, length, channels)
        self.dt2 = 0.5 * half(2, batch, length, channels)
        self.bc2 = half(2, batch, length, 2 * STATES)
        self.xz = half(batch, length, 2 * channels)
        rates = torch.arange(1.0, STATES + 1, device="cuda")[:, None]
        self.a = -(rates * torch.empty(2, STATES, channels, device="cuda").uniform_(0.5, 1.5))
        self.skip = torch.randn(2, channels, device="cuda")
        self.bias = torch.empty(2, channels, device="cuda").uniform_(-6.9, -2.3)
        self.y = torch.empty(batch, length, channels, device="cuda", dtype=torch.float16)
        # What their kernel reads: the second direction sees the tokens flipped.
        flipped = [t.clone() for t in (self.u2, self.dt2, self.bc2)]
        for t in flipped:
            t[1] = t[1].flip(1)
        self.theirs = [t.transpose(2, 3).contiguous() for t in flipped]
        z = self.xz[..., channels:]
        self.z = [z.transpose(1, 2).contiguous(), z.flip(1).transpose(1, 2).contiguous()]
        self.a_rows = self.a.transpose(1, 2).contiguous()

    def ours(self, library: KernelLibrary) -> Callable[[], None]:
        """Our fused op on the current stream."""
        pointers = {
            "u2": self.u2,
            "dt": self.dt2,
            "xdbl": self.bc2,
            "A": self.a,
            "d_skip": self.skip,
            "dt_bias": self.bias,
            "xz": self.xz,
            "y": self.y,
        }
        params = BiSelectiveScanParams(
            **{name: tensor.data_ptr() for name, tensor in pointers.items()},
            scale=1.0,
            batch=self.batch,
            length=self.length,
            channels=self.channels,
            states=STATES,
            xdbl_columns=2 * STATES,
            xz_columns=2 * self.channels,
            c_off=STATES,
            z_off=self.channels,
            delta_softplus=1,
            type=DATA_TYPES["fp16"],
        )
        fault = library.validate(params)
        if fault is not None:
            raise ValueError(fault)
        sm_count = torch.cuda.get_device_properties(0).multi_processor_count
        tactic = library.default_tactic(params, sm_count)
        scratch = torch.empty(
            max(library.workspace_bytes(params, tactic), 16), device="cuda", dtype=torch.uint8
        )

        def run() -> None:
            stream = torch.cuda.current_stream().cuda_stream
            status = library.launch(params, tactic, scratch.data_ptr(), stream)
            if status != 0:
                raise RuntimeError(f"CUDA error {status}")

        return run

    def scans(self, mamba: Any) -> Callable[[], list[torch.Tensor]]:  # noqa: ANN401
        """Their two launches; gated outputs [B, D, L], the second in flipped token order."""
        u, dt, bc = self.theirs

        def run() -> list[torch.Tensor]:
            outputs = []
            for i in range(2):
                b, c = bc[i][:, None, :STATES], bc[i][:, None, STATES:]
                result = mamba.fwd(
                    u[i], dt[i], self.a_rows[i], b, c, self.skip[i], self.z[i], self.bias[i], True
                )
                outputs.append(result[2])
            return outputs

        return run

    def mixer(self, mamba: Any) -> Callable[[], torch.Tensor]:  # noqa: ANN401
        """Their scans with the module's flips, contiguous copies, sum and final transpose."""
        u, dt, bc = self.theirs
        xz = self.xz.transpose(1, 2).contiguous()

        def run() -> torch.Tensor:
            reverse = xz.flip([-1])
            z = [xz[:, self.channels :], reverse[:, self.channels :]]
            outputs = []
            for i in range(2):
                b = bc[i][:, None, :STATES].contiguous()
                c = bc[i][:, None, STATES:].contiguous()
                result = mamba.fwd(
                    u[i], dt[i], self.a_rows[i], b, c, self.skip[i], z[i], self.bias[i], True
                )
                outputs.append(result[2])
            return (outputs[0] + outputs[1].flip([-1])).transpose(1, 2).contiguous()

        return run


def compare(
    library: KernelLibrary,
    mamba: Any,  # noqa: ANN401 - an extension module
    model: str,
    batch: int,
    length: int,
) -> dict[str, Any]:
    """One row of the table."""
    shape = Shape(batch, length, MODELS[model])
    ours = shape.ours(library)
    ours()
    want = shape.mixer(mamba)().float()
    error = ((shape.y.float() - want).norm() / want.norm()).item()
    if not error < AGREEMENT:
        raise RuntimeError(f"{model} B={batch} L={length}: outputs differ by {error:.2e}")
    times = {
        "ours": replay_microseconds(ours),
        "mamba_scans": replay_microseconds(shape.scans(mamba)),
        "mamba_mixer": replay_microseconds(shape.mixer(mamba)),
    }
    base = times["ours"]["median_us"]
    return {
        "model": model,
        "batch": batch,
        "length": length,
        "relative_l2": error,
        "scan_ratio": times["mamba_scans"]["median_us"] / base,
        "mixer_ratio": times["mamba_mixer"]["median_us"] / base,
        **times,
    }


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mamba", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    library, mamba = KernelLibrary(options.library), build_mamba(options.mamba)
    rows = []
    for model in MODELS:
        for batch in BATCHES:
            for length in LENGTHS:
                try:
                    row = compare(library, mamba, model, batch, length)
                except torch.cuda.OutOfMemoryError:
                    print(f"{model} B={batch} L={length}: skipped, does not fit", file=sys.stderr)
                    continue
                rows.append(row)
                print(
                    f"{model:3} B={batch:<4} L={length:<5} {row['ours']['median_us']:9.2f} us"
                    f"  scans {row['scan_ratio']:5.2f}x  mixer {row['mixer_ratio']:5.2f}x",
                    file=sys.stderr,
                )
    text = json.dumps({"gpu": torch.cuda.get_device_name(), "rows": rows}, indent=1)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
