"""Time and memory of the two sides of a comparison, measured in turns as ``bench`` does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from vim_deploy.bench.side_by_side import TimeFound, Wanted, side_by_side
from vim_deploy.bench.subject import PYTORCH
from vim_deploy.parity.agreement import OpenSide
from vim_deploy.stages.benchmarking import BenchOptions, benchmark
from vim_deploy.stages.comparing_sides import ComparedSide, Source

Tell = Callable[[str], None]


def batches_of_both(sides: tuple[OpenSide, OpenSide], wanted: Sequence[int]) -> tuple[int, ...]:
    """The batch sizes that both take, as near to those wanted as they allow; none without any."""
    first, second = ({side.runner.batch_within(size) for size in wanted} for side in sides)
    return tuple(sorted(first & second))


def measure_both(
    sources: tuple[Source, Source],
    sides: tuple[ComparedSide, ComparedSide],
    options: BenchOptions,
    tell: Tell,
) -> TimeFound:
    """Time and memory of both; a checkpoint's module in PyTorch.

    Args:
        sources: what A and B name.
        sides: as they ran on the pictures.
        options: batches, seconds and threads, and where files run.
        tell: told what is measured, in words.

    Raises:
        VimDeployError: as ``benchmark``.
    """
    files = [source.text for source in sources if source.file is not None]
    ways = {side.ops for side in sides if side.kind == "ONNX file"}
    # What ran on the pictures, and no other way beside it.
    ops = ways.pop() if len(ways) == 1 else None
    chosen = dataclasses.replace(
        options,
        baselines=() if len(files) == len(sources) else (PYTORCH,),
        runner=dataclasses.replace(options.runner, ops=ops or options.runner.ops),
    )
    report = benchmark(files, chosen, progress=tell)
    a, b = (
        Wanted("" if side.kind == "checkpoint" else side.sha256, side.ops == "native")
        for side in sides
    )
    return side_by_side(report, a, b)
