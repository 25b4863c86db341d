"""Every precision of an export in one row: its types, how far it may be off, what may carry it.

A row and its name in ``Precision`` are all that makes a precision known: choices on the command
line, typing, its PyTorch twin, tolerances and the reading of foreign files ask here.

Some precisions type a graph (fp16, bf16). Others quantize it (int8, fp8): products take weights and
activations of that type, with scales; what stands between them has one of the former.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vim_deploy.errors import VimDeployError

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]


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
        largest: of a type that values are quantized to, the largest magnitude used; 0 of others.
        opset: first ONNX opset with its QuantizeLinear, of the opsets we write; 0 without one.
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
    largest: float = 0.0
    opset: int = 0

    @property
    def quantized(self) -> bool:
        """Whether it is one of products alone, with scales."""
        return self.largest > 0

    @property
    def product_l2(self) -> float:
        """Largest relative L2 that one quantized product is to have: a fifth of the whole's."""
        return self.relative_l2 / 5

    @property
    def lossy(self) -> bool:
        """Whether it rounds more than float32 does."""
        return self.typed or self.quantized

    @property
    def io(self) -> tuple[str, ...]:
        """Precisions that inputs and outputs of a graph computed in it may have."""
        return ("fp32",) if self.quantized else tuple(dict.fromkeys(("fp32", self.name)))


# Relative L2 in 16 bits: every block rounds about seven times; 24 blocks with independent errors
# of one unit roundoff u give sqrt(168) u = 13 u: 6e-3 for float16 (u = 2^-11), 5e-2 for bfloat16
# (u = 2^-8). Measured on Vim-Ti: 2e-3 and 1.6e-2. Of inner float32 tensors, measured on the
# reference models: at most 1.3e-6 at any place; the rest is room for other summation orders.
# Smallest normal numbers: IEEE 754-2019, table 3.5; bfloat16 has float32's exponent. E4M3: OCP
# 8-bit Floating Point Specification 1.0, table 1, its largest number, too. int8 is used
# symmetrically, from -127 to 127, as TensorRT does.
_ROWS = (
    Row("fp32", "float32", "FLOAT", "FLOAT", 1e-4, 2.0**-126, typed=False),
    Row("fp16", "float16", "FLOAT16", "HALF", 1e-2, 2.0**-14),
    Row("bf16", "bfloat16", "BFLOAT16", "BF16", 8e-2, 2.0**-126, convolutions=False, on_cpu=False),
    Row("int8", "int8", "INT8", "INT8", 1e-1, 1.0, typed=False, largest=127.0, opset=17),
    Row(
        "fp8", "float8_e4m3fn", "FLOAT8E4M3FN", "FP8", 2e-1, 2.0**-6, typed=False, largest=448.0,
        opset=19,
    ),
)  # fmt: skip
TABLE: dict[str, Row] = {row.name: row for row in _ROWS}
NAMES: tuple[Precision, ...] = tuple(row.name for row in _ROWS)
#: Those that tensors between operators may have.
FLOATS: tuple[Precision, ...] = tuple(row.name for row in _ROWS if not row.quantized)
#: Those of products alone.
QUANTIZED: tuple[Precision, ...] = tuple(row.name for row in _ROWS if row.quantized)
#: For sentences: ``int8 or fp8``.
QUANTIZED_IN_WORDS = " or ".join(QUANTIZED)
#: Those that a pass types.
TYPED: tuple[Precision, ...] = tuple(row.name for row in _ROWS if row.typed)
#: For sentences: ``fp16 or bf16``.
TYPED_IN_WORDS = " or ".join(TYPED)
RELATIVE_L2_IN_WORDS = ", ".join(
    f"{TABLE[name].relative_l2:g} for {name}" for name in (*TYPED, *QUANTIZED)
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
            f"--io-precision {io_precision} contradicts a graph that computes in {precision}",
            why="inputs and outputs are float32 or have the graph's own precision",
            fix=" or ".join(f"--io-precision {p}" for p in TABLE[precision].io),
        )


def require_opset(precision: Precision, opset: int) -> None:
    """VIM-203 where ONNX opset ``opset`` cannot hold ``precision``."""
    if opset < TABLE[precision].opset:
        raise VimDeployError(
            "VIM-203",
            f"opset {opset} has no {precision}",
            fix=f"--opset {TABLE[precision].opset}",
        )
