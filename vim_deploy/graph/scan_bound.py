"""How fast the scans of a graph can be at best on a GPU, and their share of the whole.

Two bounds hold for a scan kernel; the larger one counts:

- special functions: each (picture, token, channel) needs, for each direction, one exponential per
  state and two for softplus, and two for the gate's SiLU once a node. A multiprocessor does 16 a
  clock (CUDA C++ Programming Guide, throughput of native arithmetic instructions, compute
  capability 8.0 to 12.0).
- memory: the bytes the node reads and writes.

Everything else is taken as bound by the bytes it moves. At large batch and width its matrix
products take longer than that, at batch 1 every kernel takes longer than its bound, so the share is
one of the ideal times, not a measurement.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vim_deploy.errors import VimDeployError
from vim_deploy.graph.inventory import BlockInventory, Scan

#: Special-function results a clock and multiprocessor.
_SPECIAL_PER_CLOCK = 16
_SOFTPLUS, _SILU = 2, 2
#: Share of the nominal memory bandwidth that plain copies reach on these GPUs.
_REACHABLE_BANDWIDTH = 0.9


@dataclass(frozen=True)
class Gpu:
    """Multiprocessors, boost clock in GHz, nominal bandwidth in GB/s, from vendor data sheets."""

    name: str
    multiprocessors: int
    clock_ghz: float
    bandwidth_gb_s: float

    @property
    def special_per_second(self) -> float:
        """Special-function results a second."""
        return self.multiprocessors * _SPECIAL_PER_CLOCK * self.clock_ghz * 1e9

    @property
    def bytes_per_second(self) -> float:
        """Reachable memory bandwidth."""
        return self.bandwidth_gb_s * 1e9 * _REACHABLE_BANDWIDTH


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("h200", 132, 1.98, 4800),
        Gpu("a100", 108, 1.41, 1935),
        Gpu("rtx-5090", 170, 2.41, 1792),
        Gpu("rtx-4090", 128, 2.52, 1008),
        Gpu("l4", 58, 2.04, 300),
        Gpu("orin", 16, 1.3, 204.8),
    )
}


@dataclass(frozen=True)
class Prediction:
    """Ideal times in microseconds for one run of the graph, and what binds the scans."""

    gpu: str
    scan_us: float
    rest_us: float
    scan_share: float
    scan_bound_by: str


def find_gpu(name: str) -> Gpu:
    """The GPU called ``name``; VIM-202 when it is none of ``GPUS``."""
    if name not in GPUS:
        raise VimDeployError(
            "VIM-202", f"no figures for GPU {name!r}", fix="one of " + ", ".join(GPUS)
        )
    return GPUS[name]


def predict(blocks: Iterable[BlockInventory], gpu: Gpu, batch: int) -> Prediction:
    """The ideal times of a graph taken for ``batch`` pictures.

    Raises:
        ValueError: what the blocks move is not known, as in a standalone graph.
    """
    blocks = tuple(blocks)
    scans = [scan for block in blocks for scan in block.scans]
    special = sum(_special(scan, batch) for scan in scans) / gpu.special_per_second
    memory = _known(scan.activation_bytes for scan in scans) / gpu.bytes_per_second
    moved = _known(block.moved_bytes for block in blocks) / gpu.bytes_per_second
    scan_time, rest = max(special, memory), moved - memory
    total = scan_time + rest
    return Prediction(
        gpu=gpu.name,
        scan_us=scan_time * 1e6,
        rest_us=rest * 1e6,
        scan_share=scan_time / total if total else 0.0,
        scan_bound_by="special functions" if special >= memory else "memory",
    )


def _special(scan: Scan, batch: int) -> int:
    each = scan.directions * (_known([scan.states]) + _SOFTPLUS) + _SILU
    return batch * scan.tokens * scan.channels * each


def _known(amounts: Iterable[int | None]) -> int:
    """Their sum; ValueError where one is not known."""
    total = 0
    for amount in amounts:
        if amount is None:
            raise ValueError("the graph does not tell what its launches move")
        total += amount
    return total
