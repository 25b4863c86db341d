"""What an op of the contract is: one record for the exporter, the checks, plugins and tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: What the nodes of an op say of themselves, by name.
Facts = Mapping[str, Any]


class Kind(Enum):
    """What an attribute of an op says."""

    FLAG = "INT, 0 or 1"
    COLUMN = "INT, a column of an input's rows"
    NUMBER = "FLOAT"
    COUNT = "INT, how many of something there are"
    #: For the function alone: ONNX cannot turn the INT ``reverse`` into the lists of directions
    #: that Scan wants, so the node carries those lists as well. Plugins ignore them.
    DIRECTIONS = "INTS, of a Scan"


@dataclass(frozen=True)
class Part:
    """A piece of a function's body, in ONNX's textual syntax.

    Attributes:
        text: nodes, with ``$name`` for a fact: an attribute, a size, the end of a block, ``tokens``
            (None, or how many a node sees at most), ``any_length``, ``varying``, a flag that each
            node has for itself, ``plain``. What nodes differ in is None. Or what writes them for
            the largest number of tokens.
        when: facts with the values that all must have for this piece to be there.
        unless: facts with values that none may have.
    """

    text: str | Callable[[int], str]
    when: Mapping[str, object] = field(default_factory=dict)
    unless: Mapping[str, object] = field(default_factory=dict)


#: For ``Part``: an ONNX Scan runs the tokens, however many there are.
LOOP: dict[str, object] = {"tokens": None}
#: For ``Part``: there is no loop, and the body holds for any number of tokens up to the largest.
ANY_LENGTH: dict[str, object] = {"any_length": 1}
#: For ``Part``: nodes of the file differ in sizes or columns; a body with such a part takes those
#: from each node.
VARYING: dict[str, object] = {"varying": 1}
#: For ``Part``: without operators that some runtime has not, where the usual body has them.
PLAIN = {"plain": 1}


@dataclass(frozen=True)
class Op:
    """One op.

    Attributes:
        name: op type in the domain ``vim_deploy``.
        inputs, outputs: their names, in order.
        attributes: each with its kind; all are present on every node.
        body: what the op means in ONNX's own operators: float32, elementwise and reduce operators
            alone inside a Scan. TensorRT-RTX's compiler fails on Unsqueeze, Squeeze or MatMul in
            there next to casts. No pads are negative: not every runtime cuts with a Pad.
        reference: the same in float64 NumPy, token by token: inputs in order, attributes by name.
            What kernels are compared with.
        fp32: inputs and outputs that are float32 whatever the element type T of the others.
        int64: inputs that are int64.
        optional: inputs that a node may leave out.
        per_node: attributes that the body refers to, so that the nodes of a file may differ in
            them; it is written for the values of the others, unless it says how it takes columns
            and sizes from each node (``VARYING``).
        sizes: names of the dimensions of inputs that are initialisers; "" for one not wanted.
        blocks: attributes ``x_off`` with the size of the block of columns that starts there; the
            fact ``x_end`` is where it ends.
        tokens_of: an input of a body with a loop, and its axis of tokens.
        derived: more facts, worked out from the others.
        kernel_sizes: the sizes in the parameter struct of the op's kernels, in order.
        plugin: whether there is a kernel for GPUs, and so a plugin for TensorRT; without one every
            runtime on GPUs takes the body.
        plain_loops: the plain form of the body has a loop, and is not taken where none may be.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Kind]
    body: tuple[Part, ...]
    reference: Callable[..., Array]
    fp32: tuple[str, ...] = ()
    int64: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    per_node: tuple[str, ...] = ()
    sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    blocks: Mapping[str, str] = field(default_factory=dict)
    tokens_of: tuple[str, int] | None = None
    derived: Callable[[Facts], dict[str, object]] | None = None
    kernel_sizes: tuple[str, ...] = ()
    plugin: bool = True
    plain_loops: bool = False

    @property
    def fixed(self) -> tuple[str, ...]:
        """Inputs and outputs whose element type does not follow the activations'."""
        return (*self.fp32, *self.int64)

    @property
    def has_activations(self) -> bool:
        """Whether any input or output has the element type T."""
        return not {*self.inputs, *self.outputs} <= {*self.fixed}

    def is_plain(self, plain: bool, unrolled: bool) -> bool:
        """Whether the body is in its plain form where that, or one without loops, is asked for."""
        return plain and not unrolled if self.plain_loops else plain or unrolled

    def element(self, name: str) -> str:
        """The type of the input or output ``name`` in a schema; ``T`` for activations."""
        if name in self.int64:
            return "tensor(int64)"
        return "tensor(float)" if name in self.fp32 else "T"


def columns(source: str, block: str, name: str, axis: int) -> str:
    """``name`` = ``source`` at [``block``_off, ``block``_end) of ``axis``."""
    return f"""
    {name}_start = Constant <value = int64[1] {{${block}_off}}> ()
    {name}_end = Constant <value = int64[1] {{${block}_end}}> ()
    {name}_axis = Constant <value = int64[1] {{{axis}}}> ()
    {name} = Slice ({source}, {name}_start, {name}_end, {name}_axis)"""


def own_columns(source: str, block: str, name: str, size: str, axis: int) -> str:
    """The same where nodes differ: columns by the attribute, and ``size`` [1] of them.

    Constants once the function is inlined: ONNX computes with an attribute as with a Constant.
    """
    return f"""
    {block}_off = Constant <value_int: int = @{block}_off> ()
    {name}_at = Constant <value = int64[1] {{0}}> ()
    {name}_start = Unsqueeze ({block}_off, {name}_at)
    {name}_end = Add ({name}_start, {size})
    {name}_axis = Constant <value = int64[1] {{{axis}}}> ()
    {name} = Slice ({source}, {name}_start, {name}_end, {name}_axis)"""


def each(text: str, values: tuple[str, ...], placeholder: str = "%") -> str:
    """``text`` once for each of ``values``, which take the place of ``placeholder``."""
    return "".join(text.replace(placeholder, value) for value in values)
