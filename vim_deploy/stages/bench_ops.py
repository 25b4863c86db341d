"""Which ways ONNX Runtime has to run a file's own ops here, each a measurement of its own."""

from __future__ import annotations

from dataclasses import dataclass

from vim_deploy.ops.functions import AskedOps
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.onnxruntime.native_ops import choose_ops
from vim_deploy.runtimes.onnxruntime.runner import CPU
from vim_deploy.specs import OpsWay

BOTH: tuple[OpsWay, ...] = ("native", "function")


@dataclass(frozen=True)
class OpsWays:
    """How a file is measured.

    Attributes:
        ways: in the order of the report. Native ops come first where both are measured: they are
            what ``run`` takes then, and so what ratios refer to.
        library: instruction set, sources and compiler of the kernels; empty without native ops.
        note: why ``auto`` takes no native ops for a file with our ops; else empty.
    """

    ways: tuple[OpsWay, ...]
    library: str = ""
    note: str = ""


def ops_ways(runner: RunnerOptions, asked: AskedOps) -> OpsWays:
    """What ``runner.ops`` means on this machine.

    Args:
        runner: where the file runs.
        asked: what it asks of our ops.

    Raises:
        VimDeployError: as ``choose_ops``; for ``native`` it builds the library where there is none.
    """
    chosen = choose_ops(runner.ops, runner.provider or CPU, asked)
    if chosen.library is not None:
        ways: tuple[OpsWay, ...] = BOTH if runner.ops == "auto" else ("native",)
        return OpsWays(ways, chosen.library.sentence)
    wanted = asked.names and runner.ops == "auto"
    missing = "there is no library of native ops here" if wanted else ""
    return OpsWays(("function",), note=chosen.why or missing)
