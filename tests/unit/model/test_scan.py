"""The scan's specification against an independent float64 loop, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vim_deploy.model.scan import selective_scan

#: Float32 arithmetic against float64: unit roundoff 6e-8 times the square root of the longest sum.
RELATIVE_L2 = 1e-6


def operands(length: int, batch: int = 2, channels: int = 6, state: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(length * 31 + state)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "u": normal(batch, length, channels),
        "dt": normal(batch, length, channels) - 1,
        "a": -torch.exp(normal(state, channels)),
        "bc": normal(batch, length, 3 + 2 * state),
        "d_skip": normal(channels),
        "dt_bias": normal(channels),
        "z": normal(batch, length, 2 * channels),
    }


def offsets(values: dict[str, Tensor]) -> dict[str, int]:
    state, channels = values["a"].shape
    return {"b_off": 3, "c_off": 3 + state, "z_off": channels}


def scan(values: dict[str, Tensor], *, reverse: bool = False, softplus: bool = True) -> Tensor:
    return selective_scan(**values, reverse=reverse, delta_softplus=softplus, **offsets(values))


def loop(values: dict[str, Tensor], *, reverse: bool, softplus: bool) -> np.ndarray:
    """Scalar loops over NumPy float64, written from the contract's text."""
    v = {key: value.numpy().astype(np.float64) for key, value in values.items()}
    batch, length, channels = v["u"].shape
    state = len(v["a"])
    at = offsets(values)
    y = np.zeros_like(v["u"])
    for b in range(batch):
        for d in range(channels):
            h = np.zeros(state)
            for t in range(length - 1, -1, -1) if reverse else range(length):
                delta = v["dt"][b, t, d] + v["dt_bias"][d]
                if softplus:
                    delta = np.logaddexp(0, delta)
                rows = v["bc"][b, t]
                b_t = rows[at["b_off"] : at["b_off"] + state]
                c_t = rows[at["c_off"] : at["c_off"] + state]
                h = np.exp(delta * v["a"][:, d]) * h + delta * b_t * v["u"][b, t, d]
                gate = v["z"][b, t, at["z_off"] + d]
                y[b, t, d] = (c_t @ h + v["d_skip"][d] * v["u"][b, t, d]) * (
                    gate / (1 + np.exp(-gate))
                )
    return y


@pytest.mark.parametrize("length", [1, 2, 7, 33])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("softplus", [False, True])
def test_agrees_with_scalar_loops(length: int, reverse: bool, softplus: bool) -> None:
    values = operands(length)
    if not softplus:
        # Negative steps would make the state grow without bound.
        values["dt"] = values["dt"].abs() + 3
    expected = loop(values, reverse=reverse, softplus=softplus)
    found = scan(values, reverse=reverse, softplus=softplus).numpy()
    assert np.linalg.norm(found - expected) <= RELATIVE_L2 * np.linalg.norm(expected)


def test_reverse_equals_flipping_in_and_out() -> None:
    values = operands(9)
    flipped = {
        key: value.flip(1) if key in ("u", "dt", "bc", "z") else value
        for key, value in values.items()
    }
    torch.testing.assert_close(scan(values, reverse=True), scan(flipped).flip(1))


def test_fast_decay_leaves_no_memory() -> None:
    values = operands(6)
    values["a"] = torch.full_like(values["a"], -1e30)
    shuffled = {key: value.clone() for key, value in values.items()}
    shuffled["u"][:, 0] = 100
    # Only token 0 may notice.
    torch.testing.assert_close(scan(values)[:, 1:], scan(shuffled)[:, 1:])


def test_no_step_leaves_only_the_skip() -> None:
    values = operands(6)
    values["dt"] = torch.full_like(values["dt"], -1e4)
    gate = torch.nn.functional.silu(values["z"][..., values["u"].shape[-1] :])
    torch.testing.assert_close(scan(values), values["u"] * values["d_skip"] * gate)


def test_large_steps_pass_softplus_unchanged() -> None:
    values = operands(3)
    values["dt"] = torch.full_like(values["dt"], 500.0)
    assert torch.isfinite(scan(values)).all()
    torch.testing.assert_close(scan(values), scan(values, softplus=False))


def test_nan_stays_in_its_image_and_goes_forward() -> None:
    values = operands(5)
    values["u"][0, 2, 0] = float("nan")
    y = scan(values)
    assert torch.isnan(y[0, 2:, 0]).all()
    assert torch.isfinite(y[0, :2]).all()
    assert torch.isfinite(y[1]).all()


def test_half_precision_keeps_a_float32_state() -> None:
    values = operands(64)
    half = {
        key: value.half() if key in ("u", "dt", "bc", "z") else value
        for key, value in values.items()
    }
    rounded = {key: value.float() for key, value in half.items()}
    found, expected = scan(half), scan(rounded)
    assert found.dtype == torch.float16
    # Only the result is rounded: half a unit in the last place of float16.
    torch.testing.assert_close(found.float(), expected, rtol=2**-11, atol=1e-6)
