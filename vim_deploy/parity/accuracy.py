"""Accuracy of two runners on the same labelled images, and whether one is worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import vim_deploy
from vim_deploy.codec import encode, stored
from vim_deploy.errors import VimDeployError
from vim_deploy.files import write_json
from vim_deploy.heads.logits import class_scores
from vim_deploy.interrupts import check
from vim_deploy.parity.dataset import Dataset, LabelledBatch, Unreadable
from vim_deploy.parity.distances import is_logits
from vim_deploy.parity.paired import PairedDifference, paired_difference
from vim_deploy.paths import StrPath, as_path
from vim_deploy.ranges import SHARE, require_all
from vim_deploy.runtimes.base import Array, Runner, finite_rows, run_in_batches, run_padded
from vim_deploy.specs import OpsWay

Progress = Callable[[int, int], None]

_TOP = 5
#: Names of unreadable images that an error message lists; the report has all.
_NAMED = 5
#: Stands for "no class": of an image for which a runner gave NaN or Inf.
_NO_CLASS = -1


@dataclass(frozen=True)
class Limits:
    """What is demanded; None leaves it unchecked. A detectable loss and NaN always fail.

    Attributes:
        max_loss: largest upper bound of the loss of top-1 accuracy, as a share.
        top1_agreement: smallest share of images with the same first class on both sides.
    """

    max_loss: float | None = None
    top1_agreement: float | None = None

    def __post_init__(self) -> None:
        """VIM-202 for a limit that limits nothing or is no number."""
        require_all(self, max_loss=SHARE, top1_agreement=SHARE)


@stored(
    without=("images",),
    also=("not_a_number", "top1_accuracy", "top5_accuracy"),
    sparse=("ops", "kernels"),
)
@dataclass(frozen=True)
class SideAccuracy:
    """One side: right answers as counts; ``top5`` None where five classes are not told apart.

    ``unanswered`` names images with NaN or Inf among the scores. They are wrong answers, and the
    comparison fails: two sides that give none lose nothing to each other. ``ops`` and ``kernels``
    are the runner's (``runtimes.base.Runner``).
    """

    name: str
    top1: int
    top5: int | None
    unanswered: tuple[str, ...]
    images: int
    ops: OpsWay | None = None
    kernels: str = ""

    @property
    def not_a_number(self) -> int:
        """How many images have NaN or Inf among the scores."""
        return len(self.unanswered)

    @property
    def top1_accuracy(self) -> float:
        """Share of right answers."""
        return self.top1 / self.images

    @property
    def top5_accuracy(self) -> float | None:
        """Share of images whose class is among the first five."""
        return None if self.top5 is None else self.top5 / self.images


@stored(
    head={"tool": f"vim-deploy {vim_deploy.__version__}"},
    keys=(
        "passed", "failures", "artifact", "artifact_sha256", "dataset=about_dataset", "reference",
        "candidate", "same_class", "top1", "top5", "method=METHOD", "limits",
        "statement=sentences", "notes", "command",
    ),
)  # fmt: skip
@dataclass(frozen=True)
class AccuracyReport:
    """What was compared on which images, and how it came out.

    Attributes:
        images: images both sides have seen.
        unreadable: name and reason of every image that could not be read.
        same_class: images with the same first class on both sides.
        top1, top5: paired differences.
        classes_by: how the data set's classes became the model's.
        left_out: what lies in the data set and is no image of it, in words.
        notes: what a reader has to know of the artifact's runner.
    """

    METHOD: ClassVar[str] = "exact McNemar test; 95 % score interval (Tango 1998)"

    artifact: str
    artifact_sha256: str
    dataset: str
    classes_by: str
    images: int
    unreadable: tuple[tuple[str, str], ...]
    reference: SideAccuracy
    candidate: SideAccuracy
    same_class: int
    top1: PairedDifference
    top5: PairedDifference | None
    limits: Limits = Limits()
    command: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """The findings in words."""
        found = [self.top1.sentence("top-1 accuracy")]
        if self.top5 is not None:
            found.append(self.top5.sentence("top-5 accuracy"))
        return tuple(found)

    @property
    def failures(self) -> tuple[str, ...]:
        """What is not met, as sentences."""
        failures = [
            f"{side.name} gives NaN or Inf for {side.not_a_number} of {self.images} images: "
            + ", ".join(side.unanswered[:_NAMED])
            + (", ..." if side.unanswered[_NAMED:] else "")
            for side in (self.reference, self.candidate)
            if side.not_a_number
        ]
        if self.top1.detectable and self.top1.loss > 0:
            failures.append(self.top1.sentence("top-1 accuracy"))
        limit = self.limits.max_loss
        if limit is not None and self.top1.high > limit:
            failures.append(
                f"upper bound of the loss {100 * self.top1.high:.2f} % is above {100 * limit:.2f} %"
            )
        wanted, agreement = self.limits.top1_agreement, self.same_class / self.images
        if wanted is not None and agreement < wanted:
            failures.append(f"top-1 agreement {agreement:.4f} is below {wanted}")
        return tuple(failures)

    @property
    def passed(self) -> bool:
        """Whether everything is met."""
        return not self.failures

    @property
    def about_dataset(self) -> dict[str, Any]:
        """The images, as stored."""
        return {
            "name": self.dataset,
            "classes_by": self.classes_by,
            "images": self.images,
            "left_out": list(self.left_out),
            "unreadable": len(self.unreadable),
            "unreadable_images": [{"name": name, "why": why} for name, why in self.unreadable],
        }

    def write(self, path: StrPath) -> None:
        """Write it to ``path``, atomically."""
        write_json(as_path(path, "path"), encode(self))

    def require_passed(self) -> None:
        """VIM-701 when accuracy was lost or a limit is not met, else VIM-411 for missing images."""
        if self.failures:
            raise VimDeployError(
                "VIM-701",
                f"{self.candidate.name} does not do on {self.dataset} what "
                f"{self.reference.name} does",
                why="\n".join(self.failures),
                fix="check that both sides have the same weights and preparation; more images "
                "make the bound narrower",
            )
        if self.unreadable:
            raise VimDeployError(
                "VIM-411",
                f"{len(self.unreadable)} images of {self.dataset} could not be read; the accuracy "
                f"is that of the other {self.images}",
                why="\n".join(_first(self.unreadable)),
                fix="give complete image files of 8 bits a channel, or take them out",
            )


def compare_accuracy(
    reference: Runner,
    candidate: Runner,
    dataset: Dataset,
    batch: int,
    progress: Progress = lambda done, of: None,
) -> dict[str, Any]:
    """Run both sides over the data set; the counts for an ``AccuracyReport``.

    One batch of images is in memory at a time, and of the outputs only which classes came first.

    Args:
        batch: images in memory at once; a graph with a fixed batch is given its own.
        progress: told how many of how many images are done.

    Raises:
        VimDeployError: VIM-415 (an input does not fit, or an output has no classes), VIM-419 when
            no image could be read.
    """
    unreadable = Unreadable()
    tallies = (_Tally(), _Tally())
    same, done = 0, 0
    for part in dataset.batches(batch, unreadable):
        firsts = []
        for runner, tally in zip((reference, candidate), tallies, strict=True):
            ranking = rank_classes(outputs_for(runner, part.images), runner)
            tally.add(ranking, part)
            firsts.append(ranking[:, 0])
        same += int(((firsts[0] == firsts[1]) & (firsts[0] != _NO_CLASS)).sum())
        done += len(part.labels)
        progress(done + len(unreadable.entries), len(dataset))
        # A library may have lost the Ctrl-C of a long run.
        check()
    if done == 0:
        raise VimDeployError(
            "VIM-419",
            f"no image of {dataset.name} could be read",
            why="\n".join(_first(unreadable.entries)),
            fix="give complete image files of 8 bits a channel",
        )
    (ref1, ref5), (cand1, cand5) = ((tally.right(1), tally.right(_TOP)) for tally in tallies)
    assert ref1 is not None
    assert cand1 is not None
    return {
        "dataset": dataset.name,
        "classes_by": dataset.classes_by,
        "left_out": dataset.left_out,
        "notes": candidate.told,
        "images": done,
        "unreadable": tuple(unreadable.entries),
        "reference": tallies[0].side(reference),
        "candidate": tallies[1].side(candidate),
        "same_class": same,
        "top1": paired_answers(ref1, cand1),
        "top5": None if ref5 is None or cand5 is None else paired_answers(ref5, cand5),
    }


class _Tally:
    """Where the true class of each image stands in one side's ranking."""

    def __init__(self) -> None:
        self._places: list[Array] = []
        self._ranked = _TOP
        self._unanswered: list[str] = []

    def add(self, ranking: Array, batch: LabelledBatch) -> None:
        hits = ranking == batch.labels[:, None]
        self._places.append(np.where(hits.any(axis=1), hits.argmax(axis=1), _TOP))
        self._ranked = min(self._ranked, ranking.shape[1])
        unanswered = np.flatnonzero(ranking[:, 0] == _NO_CLASS)
        self._unanswered += [batch.names[row] for row in unanswered]

    def right(self, count: int) -> Array | None:
        """Whether the true class is among the first ``count``; None when fewer are ranked."""
        return None if count > self._ranked else np.concatenate(self._places) < count

    def side(self, runner: Runner) -> SideAccuracy:
        top1, top5 = self.right(1), self.right(_TOP)
        assert top1 is not None
        right5 = None if top5 is None else int(top5.sum())
        return SideAccuracy(
            runner.name,
            int(top1.sum()),
            right5,
            tuple(self._unanswered),
            len(top1),
            runner.ops,
            runner.kernels,
        )


def rank_classes(outputs: Mapping[str, Array], runner: Runner) -> Array:
    """The first classes of each image, best first: int64 [batch, at most 5]; of one logit both.

    Scores are ranked as they are (a softmax does not change the order), equal ones by class
    number; an image with NaN or Inf among them gets no class. The head ``topk`` ranks by itself.

    Raises:
        VimDeployError: VIM-415 when the first output has no class axis.
    """
    if "classes" in outputs:
        ranked: Array = outputs["classes"][:, :_TOP].astype(np.int64)
        for other in outputs.values():
            ranked[~finite_rows(other)] = _NO_CLASS
        return ranked
    scores = outputs[runner.outputs[0]]
    if is_logits(runner.outputs[0]) and scores.ndim == 2:
        scores = class_scores(scores)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise VimDeployError(
            "VIM-415",
            f"output {runner.outputs[0]!r} of {runner.name} has no class scores",
            why=f"its shape is {list(scores.shape)}, expected [batch, classes]",
            fix="export the model with --head logits",
        )
    ranking: Array = np.argsort(-scores, axis=1, kind="stable")[:, :_TOP].astype(np.int64)
    ranking[~finite_rows(scores)] = _NO_CLASS
    return ranking


def outputs_for(runner: Runner, images: Array) -> Mapping[str, Array]:
    """Outputs for ``images``; a graph with a fixed batch gets the last one filled up."""
    fixed = runner.input.shape[0]
    if not isinstance(fixed, int):
        return run_padded(runner, images)
    missing = -len(images) % fixed
    padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
    outputs = run_in_batches(runner, padded, fixed)
    return {name: value[: len(images)] for name, value in outputs.items()}


def paired_answers(reference: Array, candidate: Array) -> PairedDifference:
    """The difference between two sides that are right (True) or not on the same images."""
    losses = int((reference & ~candidate).sum())
    gains = int((candidate & ~reference).sum())
    return paired_difference(losses, gains, len(reference))


def unreadable_lines(unreadable: Sequence[tuple[str, str]]) -> list[str]:
    """How many images could not be read, and the first of them by name."""
    if not unreadable:
        return []
    return [
        f"{len(unreadable)} images could not be read and were left out:",
        *(f"  {line}" for line in _first(unreadable)),
    ]


def _first(unreadable: Sequence[tuple[str, str]]) -> list[str]:
    lines = [f"{name}: {why}" for name, why in unreadable[:_NAMED]]
    if len(unreadable) > _NAMED:
        lines.append(f"and {len(unreadable) - _NAMED} more, named in the report")
    return lines
