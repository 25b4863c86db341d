"""What every comparison of two files on pictures has: open sides, pictures, those not read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.heads import of_file
from vim_deploy.parity.advice import Quality
from vim_deploy.runtimes.base import Runner


@dataclass(frozen=True)
class OpenSide:
    """One side while it runs: its runner, and what its file says about it."""

    runner: Runner
    info: ExportInfo


@dataclass(frozen=True)
class Picture:
    """A picture to compare on: its name, its file, and its class where that is known."""

    name: str
    path: Path
    truth: int | None = None


@dataclass(frozen=True)
class Unread:
    """A picture that could not be read, and why."""

    file: str
    why: str


class Agreement(Protocol):
    """What came of all pictures, whatever is compared."""

    @property
    def images(self) -> int:
        """How many both sides have seen."""

    @property
    def disagreement(self) -> float:
        """Share of the answers that are not the same."""

    @property
    def loss_bound(self) -> float | None:
        """Upper bound of the loss of accuracy; None where no true classes are known."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """The findings in words."""

    def quality(self, bound: float) -> Quality:
        """What the answers say of B, for a share of ``bound`` that may be otherwise."""


def unanswered(a: int, b: int, what: str) -> Quality | None:
    """The verdict where a side gives no answer; None where both answer every picture.

    Args:
        a, b: pictures that A and B have no answer to.
        what: each of them does then.
    """
    if b:
        return Quality("no numbers", f"B {what} for {b} pictures")
    return Quality("different", f"A {what} for {a} pictures, and B does not") if a else None


def classes_of(info: ExportInfo) -> int:
    """How many classes a file tells apart: of pictures, of pixels or of objects."""
    if info.dense is None:
        return info.model_config.classes
    detector = info.dense.detector
    return info.dense.num_classes if detector is None else detector.num_classes


#: How answers of a kind of head are compared; kinds that are missing have no classes.
COMPARED = {
    "classes": "classes",
    "pixel scores": "segmentation",
    "label map": "segmentation",
    "detections": "detections",
}


def kind_compared(info: ExportInfo) -> str | None:
    """``classes``, ``segmentation`` or ``detections``; None for heads without classes."""
    found = COMPARED.get(of_file(info).kind)
    return None if found is None or not classes_of(info) else found


def differences_of(a: ExportInfo, b: ExportInfo) -> Iterator[str]:
    """What a reader has to know of two files that are not the same model in two forms."""
    fields = [field.name for field in dataclasses.fields(a.image)]
    prepared = [
        f"{name.replace('_', ' ')} {getattr(a.image, name)} in A and {getattr(b.image, name)} in B"
        for name in fields
        if getattr(a.image, name) != getattr(b.image, name)
    ]
    if prepared:
        yield (
            f"pictures are prepared differently: {', '.join(prepared)}; each side gets its own, "
            "and the differences are those of preparation and model together"
        )
    if a.model_config != b.model_config:
        yield "the architectures differ: these are two models, not two forms of one"
    first, second = a.checkpoint, b.checkpoint
    if (first.sha256 or first.name, first.part) != (second.sha256 or second.name, second.part):
        yield (
            f"the weights differ: those of {first.name} ({first.part}) in A, of {second.name} "
            f"({second.part}) in B"
        )
    if bool(a.labels) != bool(b.labels):
        named = "A" if a.labels else "B"
        yield f"only {named} has names for its classes: they are compared by their numbers"
