"""One parity run as a record, ``parity.json`` and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

import vim_deploy
from vim_deploy.codec import encode, stored
from vim_deploy.errors import NoInnerTensorsError, VimDeployError
from vim_deploy.files import write_json
from vim_deploy.parity.average_precision import ParityAp
from vim_deploy.parity.blocks import BlockReport, compare_parts, part_limit
from vim_deploy.parity.cases import Case
from vim_deploy.parity.comparison import Comparison, are_detections
from vim_deploy.parity.detections import compare_detections
from vim_deploy.parity.metrics import Tolerance, compare
from vim_deploy.parity.region_parts import matched_parts
from vim_deploy.paths import StrPath, as_path
from vim_deploy.places import Place
from vim_deploy.runtimes.base import Array, Runner, answers_both, run_in_batches

if TYPE_CHECKING:
    from vim_deploy.parity.ladder import Ladder

#: Images the reference runs at once; only memory depends on it.
_REFERENCE_BATCH = 8
#: Told of a case what the reference and the candidate give for it.
Seen = Callable[[Case, Mapping[str, Array], Mapping[str, Array]], None]


@stored(keys=("case", "batch", "outputs=comparisons"))
@dataclass(frozen=True)
class CaseResult:
    """Comparisons of one case at one batch size, one per output."""

    case: str
    batch: int
    comparisons: tuple[Comparison, ...]


def results_passed(results: Sequence[CaseResult]) -> bool:
    """Whether there is a comparison and every one is within tolerance."""
    comparisons = [item for result in results for item in result.comparisons]
    return bool(comparisons) and all(item.passed for item in comparisons)


def found_nothing(results: Sequence[CaseResult]) -> bool:
    """Whether these are detections and neither side has any: then nothing was compared."""
    found = [item.found for result in results for item in result.comparisons if item.found]
    return bool(found) and all(item.nothing for item in found)


def worst_of(results: Sequence[CaseResult]) -> tuple[CaseResult, Comparison]:
    """The comparison nearest to, or furthest beyond, its limit, and the result it is in."""
    found = [(result, item) for result in results for item in result.comparisons]
    return max(found, key=lambda pair: (not pair[1].passed, pair[1].worst))


@stored(also=("passed",))
@dataclass(frozen=True)
class FunctionRun:
    """The same file, computed by the functions in it where the report's candidate has native ops.

    Attributes:
        candidate: the runner's name.
        results: against the same reference, at the same batch sizes.
        native: the candidate with native ops against this one, at the first batch size. Both have
            limits against the reference; their distance is stated, and has none.
    """

    candidate: str
    results: tuple[CaseResult, ...]
    native: tuple[CaseResult, ...]

    @property
    def passed(self) -> bool:
        """Whether everything that was compared with the reference is within tolerance."""
        return results_passed(self.results)

    @property
    def statement(self) -> str:
        """How far native ops and functions are from each other."""
        found = worst_of(self.native)[1]
        return f"native ops against the functions in the file: {found.in_words}"


@stored(
    head={"tool": f"vim-deploy {vim_deploy.__version__}"},
    sparse=("functions", "average_precision"),
    keys=(
        "passed", "artifact", "artifact_sha256", "reference", "candidate", "tolerance", "results",
        "notes", "command", "blocks", "ladder", "functions",
        "average_precision",
    ),
)  # fmt: skip
@dataclass(frozen=True)
class ParityReport:
    """What was compared with what, and how it came out.

    ``blocks`` is the comparison part by part, when it was asked for, of the functions where they
    alone differ; ``ladder`` the rungs below the artifact, a broken one part by part, and the
    results are then those of the last rung. ``functions`` is the file without native ops, where the
    candidate has them. ``average_precision`` is of detections on pictures.
    """

    artifact: str
    artifact_sha256: str
    reference: str
    candidate: str
    tolerance: Tolerance
    results: tuple[CaseResult, ...]
    command: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    blocks: BlockReport | None = None
    ladder: Ladder | None = None
    functions: FunctionRun | None = None
    average_precision: ParityAp | None = None

    @property
    def passed(self) -> bool:
        """Whether there is a result and everything that was compared is within tolerance."""
        parts = (self.blocks, self.ladder, self.functions)
        compared = self.blocks is not None or not found_nothing(self.results)
        return (
            compared
            and results_passed(self.results)
            and all(part is None or part.passed for part in parts)
        )

    @property
    def worst(self) -> Comparison:
        """The comparison nearest to, or furthest beyond, its limit; of native ops and functions."""
        functions = () if self.functions is None else self.functions.results
        return worst_of((*self.results, *functions))[1]

    def write(self, path: StrPath) -> None:
        """Write it to ``path``, atomically."""
        write_json(as_path(path, "path"), encode(self))

    def require_passed(self, advice: str = "") -> None:
        """Raise what is not met; ``advice`` says how more is learnt about an output that differs.

        Raises:
            VimDeployError: VIM-703 naming the broken rung, VIM-702 naming the first part beyond its
                limit, VIM-701 naming the worst output.
        """
        if self.passed:
            return
        if self.ladder is not None:
            self.ladder.require_passed()
        if not self.results:
            raise VimDeployError("VIM-701", "nothing was compared")
        if self.blocks is None and found_nothing(self.results):
            raise nothing_to_compare(self.candidate, self.reference)
        if self.blocks is not None and self.blocks.first is not None:
            raise VimDeployError(
                "VIM-702",
                f"{self.blocks.candidate or self.candidate} and {self.reference} differ in "
                f"{self.blocks.first.name}",
                why=f"{self.blocks.verdict}; what comes before it agrees",
                fix="check that part's weights and nodes; the report lists every part",
            )
        candidate, worst = self.candidate, worst_of(self.results)[1]
        if results_passed(self.results) and self.functions is not None:
            candidate, worst = self.functions.candidate, worst_of(self.functions.results)[1]
        raise VimDeployError(
            "VIM-701",
            f"{candidate} and {self.reference} differ in {worst.output!r}",
            why=worst.explained(self.tolerance.limits()),
            fix="check that the reference belongs to this file; the report lists every output"
            + (f"; {advice}" if advice else ""),
        )


def nothing_to_compare(candidate: str, reference: str) -> VimDeployError:
    """VIM-701 for images in which neither side found anything."""
    return VimDeployError(
        "VIM-701",
        f"nothing was compared: neither {candidate} nor {reference} found anything",
        why="there is no detection above the score threshold in any image, and of none it cannot "
        "be said that both sides agree",
        fix="--images PICTURES with objects in them; or --per-block, which compares what is inside",
    )


def compare_outputs(
    names: Sequence[str],
    expected: Mapping[str, Array],
    found: Mapping[str, Array],
    tolerance: Tolerance,
) -> tuple[Comparison, ...]:
    """Each output by itself; those of a detector as detections, whose rows mean nothing.

    Args:
        names: of outputs that both sides have.
        expected, found: of the reference and the candidate.
    """
    if are_detections(expected) and are_detections(found):
        return compare_detections(expected, found, tolerance.detections)
    return tuple(compare(name, expected[name], found[name], tolerance) for name in names)


def compare_runners(
    reference: Runner | None,
    candidate: Runner,
    cases: Sequence[Case],
    batches: Sequence[int],
    tolerance: Tolerance,
    seen: Seen | None = None,
) -> tuple[CaseResult, ...]:
    """Run every case at every batch size and compare with stored outputs or the reference.

    The reference runs once per case, and not for stored outputs. VIM-415: no output of one name.
    ``seen`` is shown every case with both sides' outputs, once, at the first batch size.
    """
    results = []
    for case in cases:
        expected = _expected(reference, case)
        names = answers_both(candidate, expected)
        for batch in batches:
            found = run_in_batches(candidate, case.images, batch, case.sizes)
            if seen is not None and batch == batches[0]:
                seen(case, expected, found)
            comparisons = compare_outputs(names, expected, found, tolerance)
            results.append(CaseResult(case.name, batch, comparisons))
    return tuple(results)


def _expected(reference: Runner | None, case: Case) -> Mapping[str, Array]:
    if case.stored:
        return case.stored
    if reference is None:
        raise VimDeployError(
            "VIM-203",
            "nothing to compare with",
            why=f"case {case.name} has no stored outputs and no reference was given",
            fix="--against CHECKPOINT, ANOTHER.onnx or STORED.npz",
        )
    # What a detector holds of each image is many times a classifier's.
    batch = reference.batch_within(_REFERENCE_BATCH if case.sizes is None else 1)
    return run_in_batches(reference, case.images, batch, case.sizes)


def referred(reference: Runner | None, cases: Sequence[Case]) -> list[Case]:
    """``cases`` with what they are compared with: stored outputs, or the reference's, run once."""
    return [replace(case, stored=_expected(reference, case)) for case in cases]


def compare_functions(
    native: Runner,
    functions: Runner,
    cases: Sequence[Case],
    batches: Sequence[int],
    tolerance: Tolerance,
) -> FunctionRun:
    """The functions in a file against the reference, and its native ops against them.

    Args:
        native, functions: the same file, opened in two ways.
        cases: with what they are compared with (``referred``).
        batches, tolerance: as for ``compare_runners``.
    """
    first = batches[0]
    return FunctionRun(
        functions.name,
        compare_runners(None, functions, cases, batches, tolerance),
        compare_runners(None, native, answered(functions, cases, first), [first], tolerance),
    )


def answered(runner: Runner, cases: Sequence[Case], batch: int) -> list[Case]:
    """``cases`` with what ``runner`` gives for them, run in batches of ``batch``."""
    return [
        replace(case, stored=run_in_batches(runner, case.images, batch, case.sizes))
        for case in cases
    ]


def worst_images(
    cases: Sequence[Case], results: Sequence[CaseResult], fixed_batch: int | None = None
) -> Case:
    """The batch that the worst comparison is about, as it was run; its name says which.

    Args:
        cases: that ``results`` come from.
        results: of ``compare_runners``.
        fixed_batch: of the graph; the last image fills it up.
    """
    result, comparison = worst_of(results)
    case = next(case for case in cases if case.name == result.case)
    start = comparison.worst_row // result.batch * result.batch
    rows = np.arange(len(case.images))[start : start + result.batch]
    name = f"{case.name}, image {comparison.worst_row + 1} of {len(case.images)}"
    if len(rows) > 1:
        name += f" in a batch of {len(rows)}"
    if fixed_batch is not None and len(rows) < fixed_batch:
        rows = np.append(rows, np.repeat(rows[-1:], fixed_batch - len(rows)))
    sizes = None if case.sizes is None else case.sizes[rows]
    return replace(case, name=name, images=case.images[rows], sizes=sizes, stored={})


def check_parts(
    reference: Runner,
    candidate: Runner,
    cases: Sequence[Case],
    results: Sequence[CaseResult],
    limit: float,
) -> BlockReport:
    """Both sides' inner tensors on the worst images.

    Args:
        reference, candidate: both give inner tensors out (``require_parts``).
        cases, results: what was compared before, as a whole.
        limit: largest relative L2 distance of a part.

    Raises:
        VimDeployError: VIM-422 when a graph does not show where its tensors are.
    """
    case = worst_images(cases, results, candidate.fixed_batch)
    # The candidate first: a graph that does not give its tensors out is found out sooner.
    found, wanted = (_parts(runner, case) for runner in (candidate, reference))
    passed = worst_of(results)[1].passed
    if case.sizes is not None:
        wanted, found = matched_parts(wanted, found, limit)
    return compare_parts(wanted, found, limit, passed, case.name, candidate.name)


def _parts(runner: Runner, case: Case) -> Mapping[Place, Array]:
    assert runner.parts is not None
    return runner.parts(case.images, case.sizes)


def parts_of_nothing(
    reference: Runner | None,
    candidate: Runner,
    cases: Sequence[Case],
    results: Sequence[CaseResult],
    precision: str,
) -> BlockReport | None:
    """The inner tensors where neither side found anything and both show them; None elsewhere.

    Args as for ``check_parts``, and the file's precision, whose limit the parts have. What is
    inside agrees or does not, however little comes out.
    """
    if reference is None or not found_nothing(results):
        return None
    if reference.parts is None or candidate.parts is None:
        return None
    try:
        return check_parts(reference, candidate, cases, results, part_limit(precision))
    except NoInnerTensorsError:
        # Nobody asked for them.
        return None
