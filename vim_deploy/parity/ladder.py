"""The ladder: every form of a model from PyTorch to the given file, each held to one below it.

The first rung that does not hold says which stage is at fault: typing the module, the trace, the
fusion passes, typing the graph, the file, or the engine.
"""

from __future__ import annotations

from dataclasses import dataclass

from vim_deploy.codec import stored
from vim_deploy.errors import VimDeployError
from vim_deploy.parity.blocks import BlockReport
from vim_deploy.parity.metrics import Tolerance
from vim_deploy.parity.report import CaseResult, results_passed, worst_of
from vim_deploy.specs import OpsWay


@stored(
    keys=(
        "name", "runner", "ops", "kernels", "against", "passed", "tolerance", "results", "seconds",
        "error",
    ),
    sparse=("ops", "kernels"),
)  # fmt: skip
@dataclass(frozen=True)
class Rung:
    """One form of the model and how far it is from the rung that it must equal.

    Attributes:
        name: of the form; ``runner`` the runtime it ran in.
        against: name of the rung it was compared with; empty for the first, which is the reference.
        tolerance: of the comparison.
        results: per case and batch size; none for the first.
        seconds: wall time of making, running and comparing it.
        error: why it could not be made; there are no results then.
        ops, kernels: of the runner, where it has our ops (``runtimes.base.Runner``).
    """

    name: str
    runner: str
    against: str
    tolerance: Tolerance
    results: tuple[CaseResult, ...]
    seconds: float
    error: str = ""
    ops: OpsWay | None = None
    kernels: str = ""

    @property
    def passed(self) -> bool:
        """Whether it equals the rung it was compared with; the first one does by definition."""
        return not self.against or results_passed(self.results)


@stored(keys=("passed", "verdict", "broken=broken_name", "rungs", "left_out", "blocks", "note"))
@dataclass(frozen=True)
class Ladder:
    """The rungs in order, up to the first that is broken.

    Attributes:
        rungs: what was tried.
        left_out: names of the rungs above a broken one.
        blocks: the broken rung part by part; None where none is broken or it has no inner tensors.
        note: why there are no ``blocks`` for a broken rung.
    """

    rungs: tuple[Rung, ...]
    left_out: tuple[str, ...] = ()
    blocks: BlockReport | None = None
    note: str = ""

    @property
    def broken(self) -> Rung | None:
        """The rung that does not hold."""
        return next((rung for rung in self.rungs if not rung.passed), None)

    @property
    def broken_name(self) -> str | None:
        """Of the rung that does not hold."""
        return None if self.broken is None else self.broken.name

    @property
    def passed(self) -> bool:
        """Whether there are rungs and all hold."""
        return len(self.rungs) > 1 and self.broken is None

    @property
    def verdict(self) -> str:
        """How far the model came, in a sentence."""
        broken = self.broken
        if broken is None:
            return f"all {len(self.rungs)} rungs hold, the last is {self.rungs[-1].name}"
        if broken.error:
            return f"the first broken rung is {broken.name}: it could not be made"
        return f"the first broken rung is {broken.name}: it does not equal {broken.against}"

    def require_passed(self) -> None:
        """VIM-703 naming the broken rung and, where it is known, block and role."""
        broken = self.broken
        if broken is None:
            return
        fix = "docs/verify.md says for each rung what made it"
        if broken.error:
            raise VimDeployError("VIM-703", self.verdict, why=broken.error, fix=fix)
        worst = worst_of(broken.results)[1]
        where = f"; {self.blocks.verdict}" if self.blocks else f"; {self.note}" if self.note else ""
        raise VimDeployError(
            "VIM-703",
            self.verdict,
            why=f"{worst.output!r}: {worst.explained(broken.tolerance.limits())}{where}",
            fix=fix,
        )
