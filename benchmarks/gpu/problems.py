"""The kernels' ops at the shapes of models: inputs on a device, and the truth in float64.

What ``vim-deploy plugin test`` does in NumPy for small shapes, ``kernels.py`` does for those of
models: inputs are made and the truth is computed on the device of the tensors, token by token, as
``vim_deploy.ops`` defines it. The device may be the CPU, for kernels that were compiled for it.

Values are those of a network before training (arXiv 2312.00752, section 3.6): steps between 1e-3
and 1e-1, decay rates around 1 to N.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from launches import Problem
from torch import Tensor
from torch.nn import functional

from vim_deploy.ops import BI_CAUSAL_CONV, BI_SELECTIVE_SCAN, SELECTIVE_SCAN


class _Draw:
    """Random tensors of one seed on one device, rounded to a type where they are activations."""

    def __init__(self, seed: int, dtype: torch.dtype, device: torch.device) -> None:
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._dtype, self.device = dtype, device

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, device=self.device)

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        unit = torch.rand(*shape, generator=self._generator, device=self.device)
        return low + (high - low) * unit

    def rows(self, values: Tensor) -> Tensor:
        return values.to(self._dtype).contiguous()


def _scan_inputs(
    draw: _Draw, lead: tuple[int, ...], states: int, channels: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A [lead,N,D], Dskip [lead,D] and dt_bias [lead,D], in float32."""
    rates = torch.arange(1.0, states + 1, device=draw.device)[:, None]
    a = -rates * draw.between(0.5, 1.5, *lead, states, channels)
    smallest = 10.0 ** draw.between(-3.0, -1.0, *lead, channels)
    bias = torch.log(torch.expm1(smallest))
    return a.contiguous(), draw.normal(*lead, channels), bias.contiguous()


def bi_scan(
    dtype: torch.dtype,
    batch: int,
    length: int,
    channels: int,
    rank: int,
    *,
    low_rank: bool,
    device: torch.device,
    seed: int = 0,
) -> Problem:
    """``VimBiSelectiveScan`` of 16 states as a block of Vim has it.

    Args:
        dtype: of the activations.
        batch, length, channels: B, L and D.
        rank: columns before B and C in a row of the projection.
        low_rank: whether dt is its weight [2,D,rank] or given per token [2,B,L,D].
        device: where the tensors are.
        seed: of the values.
    """
    states, draw = 16, _Draw(seed, dtype, device)
    columns = rank + 2 * states
    columns += columns % 2
    a, d_skip, dt_bias = _scan_inputs(draw, (2,), states, channels)
    wide = (2, batch, length)
    step = draw.normal(2, channels, rank) / rank**0.5 if low_rank else draw.normal(*wide, channels)
    inputs = {
        "u2": draw.rows(draw.normal(*wide, channels)),
        "dt": draw.rows(0.5 * step),
        "xdbl": draw.rows(draw.normal(*wide, columns)),
        "A": a,
        "Dskip": d_skip,
        "dt_bias": dt_bias,
        "xz": draw.rows(draw.normal(batch, length, 2 * channels)),
    }
    attributes = {
        "delta_softplus": 1,
        "b_off": rank,
        "c_off": rank + states,
        "dt_off": 0,
        "z_off": channels,
        "low_rank": int(low_rank),
        "scale": 0.5,
    }
    sizes = {
        "batch": batch,
        "length": length,
        "channels": channels,
        "states": states,
        "xdbl_columns": columns,
        "xz_columns": 2 * channels,
        "rank": rank if low_rank else 0,
    }

    def truth() -> Tensor:
        x, raw = inputs["xdbl"].double(), inputs["dt"].double()
        if low_rank:
            raw = torch.einsum("sblr,sdr->sbld", x[..., :rank], raw)
        total = _recurrence(
            _forward(inputs["u2"].double()),
            _forward(_softplus(raw + dt_bias.double()[:, None, None])),
            a.double()[:, None],
            _forward(x[..., rank : rank + states]),
            _forward(x[..., rank + states : rank + 2 * states]),
        )
        total = _forward(total) + inputs["u2"].double() * d_skip.double()[:, None, None]
        return 0.5 * total.sum(0) * functional.silu(inputs["xz"][..., channels:].double())

    element = batch * length * channels
    name = f"B={batch} L={length} D={channels}" + (f" low rank {rank}" if low_rank else "")
    traffic = _bytes(inputs, "u2", "dt", "A") + dtype.itemsize * (
        2 * element + 2 * batch * length * (2 * states + low_rank * rank)
    )
    return Problem(
        BI_SELECTIVE_SCAN,
        name,
        inputs,
        sizes,
        attributes,
        (batch, length, channels),
        truth,
        element * (2 * (states + 1) + 2),
        traffic,
    )


def scan(
    dtype: torch.dtype,
    batch: int,
    length: int,
    channels: int,
    states: int,
    *,
    before: int,
    gated: bool,
    reverse: bool,
    device: torch.device,
    seed: int = 0,
) -> Problem:
    """``VimSelectiveScan``: Vim's own in one direction, MambaVision's and VMamba's.

    Args:
        dtype: of the activations.
        batch, length, channels, states: B, L, D and N.
        before: columns before B and C in a row of the projection.
        gated: whether there is a gate.
        reverse: which way.
        device: where the tensors are.
        seed: of the values.
    """
    draw = _Draw(seed, dtype, device)
    columns = before + 2 * states
    a, d_skip, dt_bias = _scan_inputs(draw, (), states, channels)
    inputs = {
        "u": draw.rows(draw.normal(batch, length, channels)),
        "dt": draw.rows(0.5 * draw.normal(batch, length, channels)),
        "A": a,
        "bc": draw.rows(draw.normal(batch, length, columns)),
        "Dskip": d_skip,
        "dt_bias": dt_bias,
    }
    if gated:
        inputs["z"] = draw.rows(draw.normal(batch, length, 2 * channels))
    attributes = {
        "reverse": int(reverse),
        "delta_softplus": 1,
        "b_off": before,
        "c_off": before + states,
        "z_off": channels if gated else 0,
        "has_z": int(gated),
    }
    sizes = {
        "batch": batch,
        "length": length,
        "channels": channels,
        "states": states,
        "bc_columns": columns,
        "z_columns": 2 * channels if gated else 0,
    }

    def truth() -> Tensor:
        def turned(tensor: Tensor) -> Tensor:
            return tensor.flip(1) if reverse else tensor

        x, u = inputs["bc"].double(), inputs["u"].double()
        total = _recurrence(
            turned(u),
            turned(_softplus(inputs["dt"].double() + dt_bias.double())),
            a.double(),
            turned(x[..., before : before + states]),
            turned(x[..., before + states :]),
        )
        total = turned(total) + u * d_skip.double()
        return total * functional.silu(inputs["z"][..., channels:].double()) if gated else total

    element = batch * length * channels
    name = f"B={batch} L={length} D={channels} N={states}"
    name += (" gate" if gated else "") + (" reverse" if reverse else "")
    traffic = _bytes(inputs, "u", "dt", "A") + dtype.itemsize * (
        element * (1 + gated) + batch * length * 2 * states
    )
    return Problem(
        SELECTIVE_SCAN,
        name,
        inputs,
        sizes,
        attributes,
        (batch, length, channels),
        truth,
        element * (states + 1 + 2 * gated),
        traffic,
    )


def conv(
    dtype: torch.dtype,
    batch: int,
    length: int,
    channels: int,
    *,
    device: torch.device,
    seed: int = 0,
) -> Problem:
    """``VimBiCausalConv`` of width 4, as every Vim has it; x is the first half of a row of xz."""
    draw, width = _Draw(seed, dtype, device), 4
    inputs = {
        "xz": draw.rows(draw.normal(batch, length, 2 * channels)),
        "w": draw.normal(2, width, channels),
        "b": draw.normal(2, channels),
    }
    sizes = {
        "batch": batch,
        "length": length,
        "channels": channels,
        "width": width,
        "xz_columns": 2 * channels,
    }

    def truth() -> Tensor:
        x = inputs["xz"][..., :channels].double()
        sums = []
        for way, (taps, bias) in enumerate(zip(inputs["w"], inputs["b"], strict=True)):
            given = x.flip(1) if way else x
            padded = functional.pad(given, (0, 0, width - 1, 0))
            total = bias.double().expand_as(x).clone()
            for tap in range(width):
                total += taps[tap].double() * padded[:, tap : tap + length]
            sums.append(total.flip(1) if way else total)
        return functional.silu(torch.stack(sums))

    element = batch * length * channels
    return Problem(
        BI_CAUSAL_CONV,
        f"B={batch} L={length} D={channels}",
        inputs,
        sizes,
        {"x_off": 0},
        (2, batch, length, channels),
        truth,
        4 * element,
        3 * element * dtype.itemsize + _bytes(inputs, "w", "b"),
    )


def _softplus(values: Tensor) -> Tensor:
    return torch.logaddexp(values, torch.zeros_like(values))


def _forward(rows: Tensor) -> Tensor:
    """[2,B,L,...] with the second direction's tokens turned around; its own inverse."""
    return torch.stack([rows[0], rows[1].flip(1)])


def _recurrence(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The scan over tokens without its skip, in the precision of its operands.

    Args:
        u, delta: [...,L,D].
        a: [...,N,D].
        b, c: [...,L,N].
    """
    state = torch.zeros(*u.shape[:-2], *a.shape[-2:], dtype=u.dtype, device=u.device)
    rows = []
    for token in range(u.shape[-2]):
        step = delta[..., token, None, :]
        inflow = step * u[..., token, None, :] * b[..., token, :, None]
        state = torch.exp(step * a) * state + inflow
        rows.append((c[..., token, :, None] * state).sum(-2))
    return torch.stack(rows, -2)


def _bytes(inputs: Mapping[str, Tensor], *names: str) -> int:
    return sum(inputs[name].numel() * inputs[name].dtype.itemsize for name in names)
