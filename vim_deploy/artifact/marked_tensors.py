"""Inner tensors that an engine gives out for diagnosis, as its record stores them.

``mark_inner`` chooses them when the engine is built with ``--inner-tensors``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vim_deploy.errors import VimDeployError
from vim_deploy.places import Place, place

#: How a tensor is given out: to a listener, as an output made for that, or as an output of the
#: model that it is anyway.
DEBUG, OUTPUT, OWN_OUTPUT = "debug tensor", "output", "own output"


@dataclass(frozen=True)
class InnerTensor:
    """A tensor of the graph and how to read a place's value off it.

    Attributes:
        name: of the tensor.
        index: in its leading axis, for one direction of a fused pair; None for all of it.
        columns: of its last axis, in the order of PyTorch's; None for all of them.
        factor: that the graph has applied already and PyTorch has not.
    """

    name: str
    index: int | None = None
    columns: tuple[int, ...] | None = None
    factor: float = 1.0

    def read(self, value: NDArray[Any]) -> NDArray[Any]:
        """The place's value out of the tensor's."""
        picked = value if self.index is None else value[self.index]
        picked = picked if self.columns is None else picked[..., list(self.columns)]
        return picked if self.factor == 1 else picked / self.factor


@dataclass(frozen=True, kw_only=True)
class MarkedTensor(InnerTensor):
    """An inner tensor of an engine; plain values, as the record stores them.

    Attributes:
        block, part, direction: its place, see ``places.Place``; several may share one tensor.
        how: ``DEBUG``, ``OUTPUT`` or ``OWN_OUTPUT``.
    """

    block: int
    part: str
    direction: str
    how: str

    @property
    def place(self) -> Place:
        """Where it is in the model."""
        return place(self.block, self.part, self.direction)

    def check(self) -> None:
        """What the types of a stored one cannot say.

        Raises:
            ValueError: there is no such place, or the value cannot be read off the tensor.
        """
        if self.how not in (DEBUG, OUTPUT, OWN_OUTPUT):
            raise ValueError(f"inner tensor {self.name!r} is a {self.how!r}")
        numbers = (*(self.columns or ()), *(() if self.index is None else (self.index,)))
        if self.columns == () or self.factor == 0 or any(number < 0 for number in numbers):
            raise ValueError(f"the value of inner tensor {self.name!r} cannot be read off it")
        _ = self.place


def refuse_diagnosis(marked: tuple[MarkedTensor, ...], path: Path, what: str) -> None:
    """VIM-435 when an engine that was built for diagnosis is to be used for anything else.

    Args:
        marked: inner tensors of its record.
        path: of the engine.
        what: is not done with it, such as ``measured``.
    """
    if marked:
        raise VimDeployError(
            "VIM-435",
            f"{path.name} is built for diagnosis and is not {what}",
            why=f"it gives out {len({item.name for item in marked})} inner tensors, which TensorRT "
            "therefore does not fuse: neither its time nor its rounding are those of the engine "
            "without them",
            fix="build it without --inner-tensors",
        )
