"""What every architecture answers, whatever its family, and how one is read.

Files, recipes and options hold an architecture as a table of its official constructor's keywords;
``family`` in it says whose they are, and is absent for the first family.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from vim_deploy.codec import chosen
from vim_deploy.errors import VimDeployError
from vim_deploy.families import Family, family_of, family_said

#: ``recipe.dense_config.DenseConfig``, what stands behind a backbone, which knows this module.
DenseConfig = Any
Own = TypeVar("Own", bound="ModelConfig")


@dataclass(frozen=True)
class ModelSize:
    """Numbers that a model holds: weights, and values that live at once for one picture."""

    weights: int
    values: int


@chosen(lambda value: family_said(value).config)
class ModelConfig:
    """One architecture: the base of every family's frozen record.

    Attributes:
        family: name of its row in ``families.FAMILIES``.
        attends: whether it holds attention, whose scores grow with the square of a window's tokens.
        operators: standard operators that its graphs may hold beyond those of every family's.
        has_tokens: whether one sequence of tokens stands behind the last norm.
        flips_sequence: whether a graph of it may hold a flip.
    """

    family: ClassVar[str]
    attends: ClassVar[bool] = False
    operators: ClassVar[frozenset[str]] = frozenset()
    has_tokens: ClassVar[bool] = False

    @property
    def num_classes(self) -> int:
        """Width of the classifier; 0 without one."""
        raise NotImplementedError

    @property
    def channels(self) -> int:
        """Channels of a picture."""
        raise NotImplementedError

    @property
    def image_hw(self) -> tuple[int, int]:
        """Input height and width in pixels."""
        raise NotImplementedError

    @property
    def num_tokens(self) -> int:
        """Tokens of one picture where there are most: what activations grow with."""
        raise NotImplementedError

    @property
    def token_counts(self) -> frozenset[int]:
        """Lengths of an axis that mean tokens, for the check that no tensor is tokens x tokens."""
        return frozenset({self.num_tokens})

    @property
    def attention_scores(self) -> int:
        """Values of the largest scores of attention of one picture; 0 without attention."""
        return 0

    @property
    def blocks(self) -> int:
        """Blocks that take part, which names number from 0."""
        raise NotImplementedError

    @property
    def scans(self) -> tuple[int, int]:
        """Scans of a base graph that run forward, and in reverse."""
        raise NotImplementedError

    @property
    def fused_mixers(self) -> int:
        """Mixers whose directions the fused forms hold in one op each."""
        return 0

    @property
    def dt_rank(self) -> int:
        """Largest rank of the step sizes."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Channels of what the classifier reads."""
        raise NotImplementedError

    @property
    def deit_width(self) -> int:
        """Channels of the DeiT that it is compared with."""
        return self.width

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Height and width of the smallest picture that is read at all, in pixels."""
        raise NotImplementedError

    @property
    def unread_hw(self) -> tuple[int, int]:
        """Rows of pixels at the bottom and columns at the right that are not read."""
        return 0, 0

    @property
    def flips_sequence(self) -> bool:
        """Whether tokens are reversed somewhere."""
        return False

    @property
    def has_class_scores(self) -> bool:
        """Whether the output is one row of scores of two or more classes for each picture."""
        return self.num_classes > 1

    @property
    def in_words(self) -> str:
        """Depth, widths and what a picture is cut into, in a few words."""
        raise NotImplementedError

    @property
    def classes(self) -> int:
        """Classes that the outputs tell apart: one logit is positive for the second of two."""
        return 2 if self.num_classes == 1 else self.num_classes

    def at_size(self: Own, size: int | tuple[int, int], *, covered: bool = False) -> Own:
        """This architecture for pictures of another size.

        Args:
            size: in pixels, square or (height, width).
            covered: refuse sizes with pixels that are not read.

        Raises:
            VimDeployError: VIM-406, VIM-408 for a size that it does not take.
        """
        raise NotImplementedError

    def size(self, *, native: bool) -> ModelSize:
        """How much a run holds at once, roughly; ``native`` is with kernels for our ops."""
        raise NotImplementedError

    def map_pixels(self, dense: DenseConfig) -> tuple[int, ...]:
        """Pixels of each feature map of a dense model, the finest first."""
        raise NotImplementedError

    def require_dense(self, dense: DenseConfig) -> None:
        """VIM-408 unless ``dense`` can stand on such a backbone, VIM-406 for too small an image."""
        raise refuse_dense(
            f"{family_of(self).title} has no {dense.task} models here", "export the classifier"
        )

    def scope(self, path: str) -> str:
        """How the names of the nodes begin that the module at ``path`` makes (``places``).

        ``path`` is that of PyTorch, such as ``layers.3.mixer``; empty for the network itself.
        """
        raise NotImplementedError

    def replace(self: Own, **changes: Any) -> Own:  # noqa: ANN401 - values of any field
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def read_config(values: Mapping[str, Any]) -> ModelConfig:
    """The architecture that official keywords name (JSON or TOML types), of any family.

    Raises:
        VimDeployError: VIM-201 for an unknown keyword or family, VIM-408 for values that cannot
            run.
    """
    config: ModelConfig = family_written(values).part("config").read_config(values)
    return config


def family_written(values: Mapping[str, Any]) -> Family:
    """``family_said`` of what a user wrote; VIM-201 for a family that is not known."""
    try:
        return family_said(values)
    except ValueError as error:
        raise VimDeployError("VIM-201", str(error)) from error


def unread_note(unread: tuple[int, int]) -> str:
    """A sentence on rows and columns of pixels that no patch reads; empty when there are none."""
    places = zip(unread, ("row", "column"), ("at the bottom", "at the right"), strict=True)
    parts = [f"{n} {what}{'s' * (n > 1)} of pixels {where}" for n, what, where in places if n]
    if not parts:
        return ""
    verb = "are" if sum(unread) > 1 else "is"
    return f"{' and '.join(parts)} {verb} not read: no patch reaches there"


def refuse_dense(message: str, fix: str = "", why: str = "") -> VimDeployError:
    """VIM-408 for what a dense model cannot have."""
    return VimDeployError(
        "VIM-408", f"dense model: {message}", why=why, fix=fix or "change the model config"
    )
