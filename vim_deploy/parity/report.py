"""What is compared, one parity run as a record, ``parity.json`` and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import vim_deploy
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.codec import encode, stored
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file, write_json
from vim_deploy.heads import outputs_called
from vim_deploy.heads.base import Head
from vim_deploy.images import load_batch
from vim_deploy.npz import opened_npz
from vim_deploy.parity.blocks import BlockReport, compare_parts
from vim_deploy.parity.metrics import Comparison, Tolerance, compare
from vim_deploy.paths import StrPath, as_path
from vim_deploy.runtimes.base import Array, Runner, answers_both, run_in_batches
from vim_deploy.runtimes.inputs import check_input
from vim_deploy.scene.pictures import find_images
from vim_deploy.specs import TensorSpec

#: Rows of a stored file are one input each; more than this is a data set, not a parity case.
_MAX_ROWS = 100_000
#: A batch and something in it.
_LEAST_AXES = 2
#: Of random images: outputs and the runtime need as much again on a machine with 16 GB.
_MOST_BYTES = 4 << 30


@dataclass(frozen=True)
class Case:
    """Images in the graph's own input format, with stored outputs when there are any."""

    name: str
    images: Array
    stored: Mapping[str, Array] = field(default_factory=dict)


def random_case(spec: TensorSpec, preprocess: str, count: int, seed: int = 0) -> Case:
    """``count`` repeatable random images: normal for normalised input, else uniform.

    Raises:
        VimDeployError: VIM-202 for more than fit into memory; VIM-415 for an input whose size is
            not fixed.
    """
    if len(spec.shape) < _LEAST_AXES or not all(
        isinstance(size, int) and size > 0 for size in spec.shape[1:]
    ):
        raise VimDeployError(
            "VIM-415",
            f"no random images can be made for the input {spec.name!r}",
            why=f"its shape is {list(spec.shape)}, and only the first size may be free",
            fix="give a model made by vim-deploy export",
        )
    shape = (count, *(int(size) for size in spec.shape[1:]))
    needed = math.prod(shape) * np.dtype(np.float32).itemsize
    if needed > _MOST_BYTES:
        raise VimDeployError(
            "VIM-202",
            f"{count} random images of this model are too many",
            why=f"they take {needed / 1e9:.1f} GB, and all are in memory at once",
            fix="give fewer; pictures of a folder are not made up: --dataset, or --images with "
            "--image-limit",
        )
    generator = np.random.default_rng(seed)
    if preprocess == "uint8":
        images: Array = generator.integers(0, 256, shape, dtype=np.uint8)
    elif preprocess == "normalize":
        images = generator.random(shape, dtype=np.float32)
    else:
        images = generator.standard_normal(shape, dtype=np.float32)
    return Case(f"random (seed {seed})", images)


def image_case(path: Path, info: ExportInfo, limit: int) -> Case:
    """Pictures from a file or folder, prepared as the model's metadata says."""
    files = find_images(path)[:limit]
    return Case(f"images ({path.name})", load_batch(files, info.image, info.preprocess))


def stored_case(
    path: Path, spec: TensorSpec, outputs: tuple[str, ...], head: Head | None = None
) -> Case:
    """An .npz with the input under the graph's input name and outputs under theirs.

    Logits may also be stored as ``output``, those of the picture's size as ``whole_output``, those
    of the auxiliary head as ``aux_output``, and feature maps as ``output_0`` or ``output_p2``; for
    a graph that takes uint8, ``image_uint8`` is preferred to ``image``.

    Args:
        path: of the file.
        spec: the graph's input.
        outputs: names of the graph's outputs.
        head: of the graph, where it is known.

    Raises:
        VimDeployError: VIM-401, VIM-414 (not an .npz, no matching input or output), VIM-415.
    """
    require_file(path, "stored outputs")
    names = [spec.name] if spec.dtype != "uint8" else [f"{spec.name}_uint8", spec.name]

    def unreadable(why: str) -> VimDeployError:
        return VimDeployError(
            "VIM-414",
            f"{path} is not a readable .npz file",
            why=why,
            fix="store arrays with numpy.savez(path, image=..., logits=...)",
        )

    with opened_npz(path, unreadable) as archive:
        found_keys = sorted(archive.names)
        key = next((name for name in names if name in archive), None)
        keys = {name: _stored_name(name, head, archive.names) for name in outputs}
        images = None if key is None else archive.read(key)
        stored = {name: archive.read(found) for name, found in keys.items() if found is not None}
    if images is None or not stored:
        raise VimDeployError(
            "VIM-414",
            f"{path} holds no input or no output of this model",
            why=f"found {found_keys}; wanted input {names} and outputs {list(outputs)}",
            fix="store arrays with numpy.savez(path, image=..., logits=...)",
        )
    check_input(spec, images[:1])
    if len(images) > _MAX_ROWS or any(len(value) != len(images) for value in stored.values()):
        raise VimDeployError(
            "VIM-414",
            f"{path} does not hold one output row for each input row",
            why=f"{len(images)} inputs; outputs "
            + ", ".join(f"{name} {list(value.shape)}" for name, value in stored.items()),
            fix="store inputs and outputs of the same run",
        )
    return Case(f"stored ({path.name})", images, stored)


def _stored_name(output: str, head: Head | None, keys: list[str]) -> str | None:
    known, match = next(outputs_called(output, head), (None, None))
    others = [match.expand(name) for name in known.stored_as] if known and match else []
    return next((name for name in (output, *others) if name in keys), None)


if TYPE_CHECKING:
    from vim_deploy.parity.ladder import Ladder

#: Images the reference runs at once; only memory depends on it.
_REFERENCE_BATCH = 8


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
    sparse=("functions",),
    keys=(
        "passed", "artifact", "artifact_sha256", "reference", "candidate", "tolerance", "results",
        "notes", "command", "blocks", "ladder", "functions",
    ),
)  # fmt: skip
@dataclass(frozen=True)
class ParityReport:
    """What was compared with what, and how it came out.

    ``blocks`` is the comparison part by part, when it was asked for, of the functions where they
    alone differ; ``ladder`` the rungs below the artifact, a broken one part by part, and the
    results are then those of the last rung. ``functions`` is the file without native ops, where the
    candidate has them.
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

    @property
    def passed(self) -> bool:
        """Whether there is a result and everything that was compared is within tolerance."""
        parts = (self.blocks, self.ladder, self.functions)
        return results_passed(self.results) and all(part is None or part.passed for part in parts)

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


def compare_runners(
    reference: Runner | None,
    candidate: Runner,
    cases: Sequence[Case],
    batches: Sequence[int],
    tolerance: Tolerance,
) -> tuple[CaseResult, ...]:
    """Run every case at every batch size and compare with stored outputs or the reference.

    The reference runs once per case, and not for stored outputs. VIM-415: no output of one name.
    """
    results = []
    for case in cases:
        expected = _expected(reference, case)
        names = answers_both(candidate, expected)
        for batch in batches:
            found = run_in_batches(candidate, case.images, batch)
            comparisons = tuple(
                compare(name, expected[name], found[name], tolerance) for name in names
            )
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
    return run_in_batches(reference, case.images, reference.batch_within(_REFERENCE_BATCH))


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
    return [replace(case, stored=run_in_batches(runner, case.images, batch)) for case in cases]


def worst_images(
    cases: Sequence[Case], results: Sequence[CaseResult], fixed_batch: int | None = None
) -> tuple[Array, str]:
    """The batch that the worst comparison is about, as it was run, and its name in words.

    Args:
        cases: that ``results`` come from.
        results: of ``compare_runners``.
        fixed_batch: of the graph; the last image fills it up.
    """
    result, comparison = worst_of(results)
    case = next(case for case in cases if case.name == result.case)
    start = comparison.worst_row // result.batch * result.batch
    images = case.images[start : start + result.batch]
    name = f"{case.name}, image {comparison.worst_row + 1} of {len(case.images)}"
    if len(images) > 1:
        name += f" in a batch of {len(images)}"
    if fixed_batch is not None and len(images) < fixed_batch:
        fill = np.repeat(images[-1:], fixed_batch - len(images), axis=0)
        images = np.concatenate([images, fill])
    return images, name


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
    assert reference.parts is not None
    assert candidate.parts is not None
    images, name = worst_images(cases, results, candidate.fixed_batch)
    # The candidate first: a graph that does not give its tensors out is found out sooner.
    found = candidate.parts(images)
    passed = worst_of(results)[1].passed
    return compare_parts(reference.parts(images), found, limit, passed, name, candidate.name)
