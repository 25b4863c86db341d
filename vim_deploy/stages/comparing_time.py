"""Time and memory of the two sides of a comparison, measured in turns as ``bench`` does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from vim_deploy.bench.side_by_side import TimeFound, Wanted, side_by_side
from vim_deploy.bench.subject import PYTORCH
from vim_deploy.errors import VimDeployError
from vim_deploy.parity.agreement import OpenSide
from vim_deploy.stages.benchmarking import BenchOptions, benchmark
from vim_deploy.stages.comparing_sides import ComparedSide, Source

Tell = Callable[[str], None]


def batches_of_both(
    sides: tuple[OpenSide, OpenSide], asked: Sequence[int] | None, usual: Sequence[int]
) -> tuple[int, ...]:
    """The batch sizes to measure.

    Args:
        sides: A and B.
        asked: by the user; None for what both take, as near to ``usual`` as they allow.
        usual: sizes.

    Returns:
        Sizes in order; none where the sides have none in common.

    Raises:
        VimDeployError: VIM-415 for a size that was asked for and that a side does not take.
    """
    for name, side in zip("AB", sides, strict=True):
        other = [size for size in asked or () if _nearest(side, size) != size]
        if other:
            nearest = _nearest(side, other[0])
            raise VimDeployError(
                "VIM-415",
                f"--time-batches: {name} does not take a batch of {other[0]}",
                why=f"the nearest that it takes is {nearest}",
                fix=f"--time-batches {nearest}, or leave it out",
            )
    sizes = {_nearest(side, size) for side in sides for size in asked or usual}
    return tuple(sorted(s for s in sizes if all(_nearest(side, s) == s for side in sides)))


def _nearest(side: OpenSide, size: int) -> int:
    """``size``, or the batch that a side takes in its place."""
    return side.runner.batch_for(side.runner.batch_within(size))


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
