"""Every precision of an export in one row: its types, how far it may be off, what may carry it.

A row and its name in ``Precision`` are all that makes a precision known: choices on the command
line, typing, its PyTorch twin, tolerances and the reading of foreign files ask here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vim_deploy.errors import VimDeployError

Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class Row:
    """One precision.

    Attributes:
        name: as options and files have it.
        dtype: name of the element type in NumPy and PyTorch.
        onnx: its name in ONNX (``TensorProto.DataType``).
        tensorrt: its name in TensorRT (``DataType``).
        relative_l2: largest relative L2 of outputs against float32; of float32 itself of inner
            tensors, whose outputs are compared element by element.
        smallest_normal: smaller magnitudes lose bits.
        typed: whether a pass has to type the float32 graph.
        convolutions: whether ONNX has convolutions and poolings in it, in the opsets we write (17
            to 21); without them they stay float32.
        on_cpu: whether ONNX Runtime's CPU provider has its operators.
    """

    name: Precision
    dtype: str
    onnx: str
    tensorrt: str
    relative_l2: float
    smallest_normal: float
    typed: bool = True
    convolutions: bool = True
    on_cpu: bool = True

    @property
    def io(self) -> tuple[str, ...]:
        """Precisions that inputs and outputs may have."""
        return tuple(dict.fromkeys(("fp32", self.name)))


# Relative L2 in 16 bits: every block rounds about seven times; 24 blocks with independent errors
# of one unit roundoff u give sqrt(168) u = 13 u: 6e-3 for float16 (u = 2^-11), 5e-2 for bfloat16
# (u = 2^-8). Measured on Vim-Ti: 2e-3 and 1.6e-2. Of inner float32 tensors, measured on the
# reference models: at most 1.3e-6 at any place; the rest is room for other summation orders.
# Smallest normal numbers: IEEE 754-2019, table 3.5; bfloat16 has float32's exponent.
_ROWS = (
    Row("fp32", "float32", "FLOAT", "FLOAT", 1e-4, 2.0**-126, typed=False),
    Row("fp16", "float16", "FLOAT16", "HALF", 1e-2, 2.0**-14),
    Row("bf16", "bfloat16", "BFLOAT16", "BF16", 8e-2, 2.0**-126, convolutions=False, on_cpu=False),
)
TABLE: dict[str, Row] = {row.name: row for row in _ROWS}
NAMES: tuple[Precision, ...] = tuple(row.name for row in _ROWS)
#: Those that a pass types.
TYPED: tuple[Precision, ...] = tuple(row.name for row in _ROWS if row.typed)
#: For sentences: ``fp16 or bf16``.
TYPED_IN_WORDS = " or ".join(TYPED)
RELATIVE_L2_IN_WORDS = ", ".join(
    f"{TABLE[name].relative_l2:.0e} for {name}".replace("e-0", "e-") for name in TYPED
)


def of_types(types: Iterable[str]) -> Precision:
    """The precision of a graph with tensors of these types, by ONNX's names; fp32 for others.

    Of several the last in the table, which the fewest runtimes have.
    """
    found = set(types)
    return next((row.name for row in reversed(_ROWS) if row.typed and row.onnx in found), "fp32")


def require_io_precision(precision: Precision, io_precision: Precision) -> None:
    """VIM-203 unless inputs and outputs are float32 or have the graph's own precision."""
    if io_precision not in TABLE[precision].io:
        raise VimDeployError(
            "VIM-203",
            f"--io-precision {io_precision} contradicts --precision {precision}",
            why="inputs and outputs are float32 or have the graph's own precision",
            fix=" or ".join(f"--io-precision {p}" for p in TABLE[precision].io),
        )
