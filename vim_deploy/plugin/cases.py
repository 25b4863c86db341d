"""What ``vim-deploy plugin test`` runs: inputs of every op, and their outputs in float64.

Inputs are rounded to the element type first, so that the truth belongs to what the kernels read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vim_deploy.ops import BI_CAUSAL_CONV, BI_SELECTIVE_SCAN, OPS, SELECTIVE_SCAN, Op
from vim_deploy.plugin.kernels import (
    PARAMS,
    DataType,
    Params,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Inputs in float64 as the kernels will read them, parameters without pointers, the truth.

    ``memory`` is the largest number of tokens that a state remembers, 1 / (step |A|), where every
    sum of the case is one of positive terms, so that errors of one sign add up; 0 elsewhere.
    """

    op: str
    name: str
    dtype: DataType
    inputs: dict[str, Array]
    activations: frozenset[str]
    params: Callable[[], Params]
    output: str
    expected: Array
    memory: int

    def data(self, name: str) -> bytes:
        """An input as the kernels read it; nothing for one that is left out."""
        if name not in self.inputs:
            return b""
        if name in OPS[self.op].int64:
            return self.inputs[name].astype(np.int64).tobytes()
        return encode(self.inputs[name], self.dtype if name in self.activations else DataType.FP32)

    def compare(self, given: Array) -> tuple[float | None, str]:
        """Relative L2 distance of an output to the truth, in fp64; and what else is wrong with it.

        The distance is None where there is none: another shape, or values that are not finite.
        """
        if given.shape != self.expected.shape:
            return None, f"gave {list(given.shape)} where {list(self.expected.shape)} was expected"
        if not np.isfinite(given).all():
            return None, f"{np.count_nonzero(~np.isfinite(given))} values are not finite"
        norm = float(np.linalg.norm(self.expected))
        return float(np.linalg.norm(given - self.expected)) / (norm or 1.0), ""


def encode(values: Array, dtype: DataType) -> bytes:
    """Values in an element type, rounded to nearest even; bf16 by hand, NumPy has none."""
    if dtype is DataType.FP16:
        return values.astype(np.float16).tobytes()
    single = values.astype(np.float32)
    if dtype is DataType.FP32:
        return single.tobytes()
    bits = single.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16).tobytes()


def decode(data: bytes, dtype: DataType, shape: tuple[int, ...]) -> Array:
    """The inverse of ``encode``."""
    if dtype is DataType.BF16:
        bits = np.frombuffer(data, np.uint16).astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).astype(np.float64).reshape(shape)
    kind = np.float16 if dtype is DataType.FP16 else np.float32
    return np.frombuffer(data, kind).astype(np.float64).reshape(shape)


def rounded(values: Array, dtype: DataType) -> Array:
    """The values as an element type holds them."""
    return decode(encode(values, dtype), dtype, values.shape)


#: 1 and primes, both sides of a multiple of 32 and of a chunked block, Vim's own 196, 197 and 730.
LENGTHS = (1, 2, 7, 31, 33, 196, 197, 257, 730)
#: Ranks of low-rank dt: of one column, of the published models and half of them, and a prime.
RANKS = (1, 4, 12, 13, 24, 48)
#: Scans of one direction without a gate: states, tokens, and the columns of a projection's rank
#: before B. MambaVision's windows, with an even and with an odd rank, and VMamba's one state.
PLAIN = ((8, 196, 20), (8, 49, 49), (1, 203, 6))
#: Tokens that states remember where no sum cancels, and the length of these cases. Below 500, what
#: roundings of both signs leave of an error is within what is allowed (``check.TOLERANCES``).
MEMORIES = (30, 300)
LONG = 1025


def cases(lengths: tuple[int, ...] = LENGTHS) -> Iterator[Case]:
    """Lengths at the fast kernels' sizes, then one factor at a time at a length of 33; at last slow
    states over long sequences."""
    for dtype in DataType:
        for length in lengths:
            yield _scan_case(dtype, 2, length, 64, 16, reverse=length % 2 == 0)
            yield _bi_scan_case(dtype, 2, length, 64, 16, rank=12 * (length % 2))
            yield _conv_case(dtype, 2, length, 64, 4)
        for reverse in (False, True):
            yield _scan_case(dtype, 3, 33, 384, 16, reverse=reverse, gated=False)
            yield _scan_case(dtype, 1, 33, 64, 16, reverse=reverse, extreme=True)
            yield _scan_case(dtype, 1, 33, 100, 8, reverse=reverse)
            yield _scan_case(dtype, 1, 33, 7, 64, reverse=reverse, delta_softplus=False)
        for states, length, before in PLAIN:
            for reverse in (False, True):
                yield _scan_case(
                    dtype, 2, length, 80, states, reverse=reverse, gated=False, before=before
                )
        yield _bi_scan_case(dtype, 3, 33, 384, 16, rank=12, scale=1.0)
        yield _bi_scan_case(dtype, 1, 33, 100, 1, rank=0)
        yield _bi_scan_case(dtype, 1, 33, 64, 16, rank=0, extreme=True)
        for rank in RANKS:
            yield _bi_scan_case(dtype, 2, 33, 64, 16, rank=rank)
        yield _conv_case(dtype, 3, 33, 100, 3)
        for memory in MEMORIES:
            for reverse in (False, True):
                yield _scan_case(dtype, 1, LONG, 16, 16, reverse=reverse, memory=memory)
            for rank in (0, 12):
                yield _bi_scan_case(dtype, 1, LONG, 16, 16, rank=rank, memory=memory)


def random(seed: int) -> Callable[..., Array]:
    """What draws normal numbers [sizes], the same for the same seed."""
    generator = np.random.default_rng(seed)
    return lambda *shape: generator.standard_normal(shape)


def make_case(
    op: Op,
    dtype: DataType,
    label: str,
    inputs: Mapping[str, Array],
    sizes: Mapping[str, int],
    memory: int = 0,
    **attributes: float,
) -> Case:
    """A case of ``op``: ``inputs`` in the contract's order, from the start, in any precision."""
    fixed = {name for name in inputs if name in op.fixed}
    held = {
        name: rounded(values, DataType.FP32 if name in fixed else dtype)
        for name, values in inputs.items()
    }
    return Case(
        op.name,
        label,
        dtype,
        held,
        frozenset(held.keys() - fixed),
        lambda: PARAMS[op.name](**sizes, **attributes, type=int(dtype)),
        op.outputs[0],
        op.reference(*held.values(), **attributes),
        memory,
    )


def _decay_rates(draw: Callable[..., Array], *shape: int) -> Array:
    """A: negative, between about -0.1 and -30, as trained checkpoints have it."""
    return -np.exp(draw(*shape))


def _steps(values: Array, extreme: bool) -> Array:
    """dt before softplus; with extremes, whole tokens at +40 and -40 (step 40 and about 0)."""
    if extreme:
        values = values.copy()
        values[..., ::3, :] = 40.0
        values[..., 1::3, :] = -40.0
    return values


def _remember(
    inputs: dict[str, Array], draw: Callable[..., Array], first: int, states: int, memory: int
) -> dict[str, Array]:
    """A scan's inputs with slow states, and with u, B, C and the skip positive, so that no sum
    cancels. B and C are ``states`` columns each from ``first``.

    The steps, and with them the powers, differ from token to token: only an error that the powers
    have in common adds up.
    """
    u, rows = ("u2", "xdbl") if "u2" in inputs else ("u", "bc")
    columns = inputs[rows].copy()
    columns[..., first : first + 2 * states] = np.exp(0.3 * draw(*columns.shape[:-1], 2 * states))
    smallest = 10.0 ** (0.5 * draw(*inputs["dt_bias"].shape) - 2.0)
    slowest = 1.0 + 0.3 * abs(draw(*inputs["A"].shape))
    return inputs | {
        u: np.exp(0.3 * inputs[u]),
        rows: columns,
        "dt": 0.5 * inputs["dt"],
        "A": -slowest / (smallest[..., None, :] * memory),
        "Dskip": abs(inputs["Dskip"]),
        "dt_bias": np.log(np.expm1(smallest)),
    }


def _scan_case(
    dtype: DataType,
    batch: int,
    length: int,
    channels: int,
    states: int,
    *,
    reverse: bool,
    gated: bool = True,
    extreme: bool = False,
    delta_softplus: bool = True,
    memory: int = 0,
    before: int = 4,
) -> Case:
    draw = random(length * 1000 + channels)
    columns = before + 2 * states
    step = draw(batch, length, channels) - (0.0 if memory else 2.0)
    inputs = {
        "u": draw(batch, length, channels),
        "dt": _steps(step, extreme) if delta_softplus else abs(step) * 0.1,
        "A": _decay_rates(draw, states, channels),
        "bc": draw(batch, length, columns),
        "Dskip": draw(channels),
        "dt_bias": abs(draw(channels)) * 0.1,
    }
    if gated:
        inputs["z"] = draw(batch, length, 2 * channels)
    if memory:
        inputs = _remember(inputs, draw, before, states, memory)
    return make_case(
        SELECTIVE_SCAN,
        dtype,
        f"B={batch} L={length} D={channels} N={states} reverse={int(reverse)} gate={int(gated)}"
        + (f" before={before}" if before != 4 else "")
        + (" extreme" if extreme else "")
        + ("" if delta_softplus else " no softplus")
        + (f" memory={memory}" if memory else ""),
        inputs,
        {
            "batch": batch,
            "length": length,
            "channels": channels,
            "states": states,
            "bc_columns": columns,
            "z_columns": 2 * channels if gated else 0,
        },
        memory,
        reverse=int(reverse),
        delta_softplus=int(delta_softplus),
        b_off=before,
        c_off=before + states,
        z_off=channels if gated else 0,
        has_z=int(gated),
    )


def _conv_case(dtype: DataType, batch: int, length: int, channels: int, width: int) -> Case:
    draw = random(length * 1000 + channels + 1)
    return make_case(
        BI_CAUSAL_CONV,
        dtype,
        f"B={batch} L={length} D={channels} W={width}",
        {
            "xz": draw(batch, length, 2 * channels),
            "w": draw(2, width, channels),
            "b": draw(2, channels),
        },
        {
            "batch": batch,
            "length": length,
            "channels": channels,
            "width": width,
            "xz_columns": 2 * channels,
        },
        x_off=0,
    )


def _bi_scan_case(
    dtype: DataType,
    batch: int,
    length: int,
    channels: int,
    states: int,
    *,
    rank: int,
    scale: float = 0.5,
    extreme: bool = False,
    memory: int = 0,
) -> Case:
    """``rank`` 0: dt is given per token."""
    draw = random(length * 1000 + channels + 2)
    # Columns that nobody uses, in a row of even length, as the fast kernels want it.
    columns = 2 * states + rank + 2 + rank % 2
    shape = (2, channels, rank) if rank else (2, batch, length, channels)
    step = draw(*shape) / max(rank, 1) ** 0.5
    inputs = {
        "u2": draw(2, batch, length, channels),
        "dt": step if rank else _steps(step - (0.0 if memory else 2.0), extreme),
        "xdbl": draw(2, batch, length, columns),
        "A": _decay_rates(draw, 2, states, channels),
        "Dskip": draw(2, channels),
        "dt_bias": draw(2, channels) - 2.0,
        "xz": draw(batch, length, 2 * channels),
    }
    if memory:
        inputs = _remember(inputs, draw, 0, states, memory)
    return make_case(
        BI_SELECTIVE_SCAN,
        dtype,
        f"B={batch} L={length} D={channels} N={states} rank={rank} scale={scale:g}"
        + (" extreme" if extreme else "")
        + (f" memory={memory}" if memory else ""),
        inputs,
        {
            "batch": batch,
            "length": length,
            "channels": channels,
            "states": states,
            "xdbl_columns": columns,
            "xz_columns": 2 * channels,
            "rank": rank,
        },
        memory,
        scale=scale,
        b_off=0,
        c_off=states,
        dt_off=2 * states,
        z_off=channels,
        delta_softplus=1,
        low_rank=int(rank > 0),
    )
