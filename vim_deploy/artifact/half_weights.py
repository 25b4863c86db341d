"""Weights in 16 bits, and what the 16 bits lose of them.

float16 has a largest number, 65504, and loses bits below 2^-14 = 6.1e-5; bfloat16 has float32's
range (``precisions``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import inferred
from vim_deploy.precisions import NAMES, TABLE, TYPED, Precision, of_types

#: ONNX element type of each precision.
ELEMENT_TYPES: dict[str, int] = {
    name: TensorProto.DataType.Value(row.onnx) for name, row in TABLE.items()
}
#: Precision of each element type.
PRECISIONS: dict[int, Precision] = {ELEMENT_TYPES[name]: name for name in NAMES}
HALF_TYPES = frozenset(ELEMENT_TYPES[name] for name in TYPED)


@dataclass(frozen=True)
class WeightRange:
    """One initialiser in 16 bits.

    Attributes:
        name: of the float32 initialiser.
        elements: how many values it holds.
        overflowed: finite values that became infinite.
        subnormal: values that lost bits because they are below the smallest normal number.
        vanished: of those, values that became zero.
        largest: largest magnitude in float32.
    """

    name: str
    elements: int
    overflowed: int
    subnormal: int
    vanished: int
    largest: float

    @property
    def noteworthy(self) -> bool:
        """Whether a value left the type's normal range."""
        return bool(self.overflowed or self.subnormal)


def to_half(tensor: TensorProto, element: int, name: str) -> tuple[TensorProto, WeightRange]:
    """``tensor`` (float32) under ``name`` in the 16-bit type ``element``, rounded to nearest."""
    values: NDArray[Any] = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        half = values.astype(helper.tensor_dtype_to_np_dtype(element))
    widened = half.astype(np.float32)
    magnitude = np.abs(values)
    subnormal = (magnitude < TABLE[PRECISIONS[element]].smallest_normal) & (widened != values)
    found = WeightRange(
        name=tensor.name,
        elements=int(values.size),
        overflowed=int((np.isfinite(values) & ~np.isfinite(widened)).sum()),
        subnormal=int(subnormal.sum()),
        vanished=int(((widened == 0) & (values != 0)).sum()),
        largest=float(magnitude.max(initial=0.0)),
    )
    return numpy_helper.from_array(half, name), found


def element_types(model: ModelProto) -> dict[str, int]:
    """ONNX element type of every tensor of the main graph whose type can be inferred.

    Raises:
        VimDeployError: VIM-409 when types or shapes contradict each other.
    """
    graph = inferred(model)
    values = [*graph.input, *graph.value_info, *graph.output]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    found.update({tensor.name: tensor.data_type for tensor in model.graph.initializer})
    return found


def half_types(model: ModelProto) -> set[int]:
    """The 16-bit float types that the graph casts to or stores weights in."""
    found = {tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast":
            found |= {int(item.i) for item in node.attribute if item.name == "to"}
    return found & HALF_TYPES


def computed_precision(model: ModelProto) -> Precision:
    """What weights and casts say that the graph computes in, whatever it says of itself."""
    return of_types(TABLE[PRECISIONS[element]].onnx for element in half_types(model))


def half_tensors(model: ModelProto) -> set[str]:
    """Tensors of the main graph with a 16-bit float type."""
    if not half_types(model):
        return set()
    return {name for name, element in element_types(model).items() if element in HALF_TYPES}


def require_no_overflow(weights: Sequence[WeightRange], precision: str) -> None:
    """VIM-505 naming the weights that 16 bits cannot hold."""
    lost = [weight for weight in weights if weight.overflowed]
    if not lost:
        return
    shown = ", ".join(f"{w.name} ({w.overflowed} values, up to {w.largest:.3g})" for w in lost[:5])
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    raise VimDeployError(
        "VIM-505",
        f"{len(lost)} weights do not fit into {precision}",
        why=f"larger than its largest number: {shown}{more}",
        fix="--precision bf16, or keep their roles in float32 with --precision-policy FILE",
    )
