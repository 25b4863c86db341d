"""What every head says about itself; one file beside this one for each of them.

A head stands behind the network in an exported graph. It describes itself without PyTorch, so that
whoever reads a file knows its outputs; only ``forward`` is given PyTorch's tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from vim_deploy.errors import VimDeployError
from vim_deploy.ranges import shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vim_deploy.families.base import ModelConfig
    from vim_deploy.recipe.dense_config import DenseConfig

    Array = NDArray[Any]

#: How a result is read: one row of class scores for a picture; scores of classes for each pixel;
#: the class of each pixel; numbers without classes; boxes with a class, a score and a mask.
Kind = Literal["classes", "pixel scores", "label map", "features", "detections"]
#: What an output holds: logits (of which a softmax makes probabilities), other scores, the numbers
#: of classes, values without classes, or how many rows of the others count.
Holds = Literal["logits", "scores", "classes", "values", "counts"]
#: A network of ``vim_deploy.model`` and PyTorch's tensor, which heads call and do not import.
Network = Any
Tensor = Any
OwnHead = TypeVar("OwnHead", bound="Head")

_CLASS_AXES = ("batch", "classes")


@dataclass(frozen=True)
class Output:
    """One output of a graph.

    Attributes:
        name: its name; a regular expression where the model decides on number and names.
        holds: what its numbers are.
        axes: what its axes are, for a model with one result for each picture.
        dtype: NumPy name; floats take the graph's I/O precision,
        wide: but those that 16 bits do not hold.
        stored_as: names under which files of stored outputs may hold it, the first first; groups
            of ``name`` are filled in.
    """

    name: str
    holds: Holds
    axes: tuple[str, ...] = _CLASS_AXES
    dtype: str = "float32"
    wide: bool = False
    stored_as: tuple[str, ...] = ()


@dataclass(frozen=True)
class Head:
    """A head, and how it was asked for.

    Attributes:
        text: as ``--head`` and stored files have it.
    """

    text: str

    #: First part of ``text``, and what help texts list.
    name: ClassVar[str]
    usage: ClassVar[str]
    #: Whether it belongs to networks around a Vim rather than to classifiers.
    dense: ClassVar[bool] = False
    kind: ClassVar[Kind]
    #: Outputs, the first first; those behind it that only some graphs have included.
    gives: ClassVar[tuple[Output, ...]]
    #: Whether it resizes logits of pixels to the input's size.
    full_size: ClassVar[bool] = False
    #: Whether it needs a score of each class for each picture.
    needs_scores: ClassVar[bool] = False
    #: Whether it is told the size of the picture within the input: pictures are fitted into it,
    #: with zeros around, rather than cropped or stretched. The graph has the input ``size`` then.
    takes_size: ClassVar[bool] = False

    @classmethod
    def parse(cls: type[OwnHead], text: str) -> OwnHead:
        """The head that ``text``, whose first part is ``name``, asks for.

        Raises:
            VimDeployError: VIM-202 for what cannot follow the name.
        """
        if text != cls.name:
            raise VimDeployError(
                "VIM-202", f"--head {shown(text)} is not valid", fix=f"did you mean {cls.name!r}?"
            )
        return cls(text)

    def fitted(self: OwnHead, config: ModelConfig, dense: DenseConfig | None) -> OwnHead:
        """This head for one model.

        Raises:
            VimDeployError: VIM-202, VIM-203 when the model does not have what it gives.
        """
        if self.needs_scores and not config.has_class_scores:
            raise VimDeployError(
                "VIM-203",
                f"--head {self.text} needs class scores, and this model's output has none",
                why="it has no head (num_classes 0), one logit for two classes, or takes a maximum "
                "over the classes",
                fix="--head logits or --head features",
            )
        return self

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph outputs."""
        return tuple(output.name for output in self.gives)

    def forward(
        self, network: Network, image: Tensor, size: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """What the graph computes of a normalised ``image`` T[B, C, H, W]: one tensor or several.

        Args:
            network: ``vim_deploy.model.network.Network``.
            image: of its size.
            size: float [B, 2], height and width of the pictures in it; given where ``takes_size``.
        """
        raise NotImplementedError(f"the head {self.name} has no forward")

    def has_classes(self, shapes: Mapping[str, Sequence[int | str]]) -> bool:
        """Whether outputs of these shapes hold one row of class scores for each picture."""
        return self.kind == "classes" and all(
            len(shapes.get(output.name, ())) == len(output.axes) for output in self.gives
        )

    def probabilities(self, outputs: Mapping[str, Array]) -> tuple[Array, NDArray[np.integer[Any]]]:
        """Probabilities [B, columns] and the class of each; for heads with ``has_classes``."""
        import numpy as np

        found = outputs[self.gives[0].name]
        return found, np.broadcast_to(np.arange(found.shape[-1]), found.shape)


@dataclass(frozen=True)
class DenseHead(Head):
    """A head of a network around a Vim; ``+aux`` behind its name asks for the auxiliary head's."""

    dense: ClassVar[bool] = True
    #: Whether ``+aux`` may stand behind it.
    takes_auxiliary: ClassVar[bool] = False
    #: Whether the network has to be a segmentor.
    needs_decoder: ClassVar[bool] = True

    @property
    def auxiliary(self) -> bool:
        """Whether the auxiliary head's logits are given, too."""
        return self.text.endswith(AUXILIARY)

    @classmethod
    def parse(cls: type[OwnHead], text: str) -> OwnHead:
        """As ``Head.parse``; ``+aux`` is taken here and judged where the model is known."""
        return replace(super().parse(text.removesuffix(AUXILIARY)), text=text)

    def fitted(self: OwnHead, config: ModelConfig, dense: DenseConfig | None) -> OwnHead:
        """As ``Head.fitted``."""
        assert isinstance(self, DenseHead)
        assert dense is not None
        if self.needs_decoder and dense.decode_head is None:
            what, head = "backbone", "features"
            if dense.detector is not None:
                what, head = "detector", "detections or features"
            raise VimDeployError(
                "VIM-203",
                f"--head {self.text} needs a segmentation head, and this model is a {what}",
                fix=f"--head {head}",
            )
        if self.auxiliary and not (self.takes_auxiliary and dense.auxiliary_head):
            own = "it goes with logits and upsampled"
            why = own if dense.auxiliary_head else "the model has none"
            raise VimDeployError(
                "VIM-203",
                f"--head {self.text}: no auxiliary head here",
                why=why,
                fix=f"--head {self.name}",
            )
        return self

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph outputs."""
        return super().output_names[: 2 if self.auxiliary else 1]


#: Behind a head of a segmentation network: the auxiliary head's logits are wanted as well.
AUXILIARY = "+aux"
