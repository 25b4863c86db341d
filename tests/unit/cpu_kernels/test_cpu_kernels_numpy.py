"""The CPU kernels against float64 NumPy: special values, powers, and what ties runs together.

The sweep in C++ covers shapes, types and threads (``test_cpu_kernels_sweep.py``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

PLUGINS = Path(__file__).parents[3] / "plugins"
sys.path.insert(0, str(PLUGINS / "cpu" / "tests"))

import cpu_kernels  # noqa: E402 - lives beside the sources it compiles

sys.path.insert(0, str(PLUGINS / "tests" / "host"))

import reference  # noqa: E402
from kernel_calls import Scan, aligned  # noqa: E402
from kernel_library import BiSelectiveScanParams  # noqa: E402
from reference import relative_l2  # noqa: E402

Array = reference.Array

#: As for the CUDA kernels: the arithmetic is fp32, and the sums are short.
TOLERANCE = 1e-6

#: Relative errors of the polynomials of vector_math.h before any rounding; baseline otherwise.
POLYNOMIALS = {"avx512": 9.2e-9, "avx2": 2.52e-8}
BASELINE_POLYNOMIAL = 9.16e-8

ISAS = ("avx512", "avx2", "baseline")


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    """An instruction set that runs here."""
    if reason := cpu_kernels.missing_tools():
        pytest.skip(reason)
    library = cpu_kernels.library()
    name = library.compiled()[-1] if request.param == "baseline" else request.param
    if name not in library.runnable():
        pytest.skip(f"this CPU does not run {name}")
    return str(name)


def run(scan: Scan, isa: str, threads: int = 1) -> Array:
    """y [B, L, D] of one direction."""
    params = scan.params()
    cpu_kernels.library().run(params, isa, threads)
    return scan.y.astype(np.float64)


def run_both(forward: Scan, backward: Scan, isa: str, threads: int = 2) -> Array:
    """y [B, L, D] of two directions with the forward one's gate, unscaled."""
    assert forward.z is not None
    rows = [np.concatenate([scan.b, scan.c], axis=-1) for scan in (forward, backward)]
    tensors = {
        "u2": [forward.u, backward.u],
        "dt": [forward.dt, backward.dt],
        "xdbl": rows,
        "A": [forward.a, backward.a],
        "d_skip": [forward.skip, backward.skip],
        "dt_bias": [forward.bias, backward.bias],
    }
    kept = {name: aligned(np.stack(pair).astype(np.float32)) for name, pair in tensors.items()}
    kept["xz"] = aligned(forward.z)
    kept["y"] = aligned(np.full_like(forward.u, np.nan))
    batch, length, channels = forward.u.shape
    states = forward.a.shape[0]
    params = BiSelectiveScanParams(
        **{name: array.ctypes.data for name, array in kept.items()},
        scale=1.0,
        batch=batch,
        length=length,
        channels=channels,
        states=states,
        xdbl_columns=2 * states,
        xz_columns=forward.z.shape[-1],
        c_off=states,
        delta_softplus=1,
    )
    cpu_kernels.library().run(params, isa, threads)
    return kept["y"].astype(np.float64)


@pytest.mark.parametrize("length", [1, 2, 17, 40])
def test_both_directions_are_the_sum_of_each(isa: str, length: int) -> None:
    forward, backward = (Scan.random(2, length, 33, seed=seed) for seed in (1, 2))
    z = np.random.default_rng(3).standard_normal(forward.u.shape).astype(np.float32)
    backward.reverse = True
    want = (forward.expected() + backward.expected()) * reference.silu(z.astype(np.float64))
    assert relative_l2(run_both(forward.with_(z=z), backward, isa), want) <= TOLERANCE


@pytest.mark.parametrize("states", [1, 8])
def test_scans_of_other_families_run_ungated_from_any_column(isa: str, states: int) -> None:
    """MambaVision's 8 states and VMamba's one; nothing of the columns before B, which are NaN."""
    for length, before in ((49, 49), (196, 20)):
        scan = Scan.random(2, length, 40, states, seed=length).with_(before=before)
        assert relative_l2(run(scan, isa, 3), scan.expected()) <= TOLERANCE


@pytest.mark.parametrize("length", [17, 40])
class TestMetamorphic:
    def test_reverse_is_forward_on_flipped_tokens(self, isa: str, length: int) -> None:
        scan = Scan.random(1, length, 16)
        flipped = run(scan.tokens(slice(None, None, -1)), isa)[:, ::-1]
        np.testing.assert_array_equal(run(scan.with_(reverse=True), isa), flipped)

    def test_prefix_does_not_see_what_follows(self, isa: str, length: int) -> None:
        scan = Scan.random(1, length, 16)
        whole = run(scan, isa)
        for cut in (1, 4, length // 2, length - 1):
            prefix = run(scan.tokens(slice(0, cut)), isa)
            np.testing.assert_array_equal(whole[:, :cut], prefix)

    def test_channels_do_not_mix(self, isa: str, length: int) -> None:
        scan = Scan.random(1, length, 40)
        order = np.random.default_rng(3).permutation(40)
        moved = scan.with_(
            u=scan.u[..., order],
            dt=scan.dt[..., order],
            a=scan.a[:, order],
            skip=scan.skip[order],
            bias=scan.bias[order],
        )
        np.testing.assert_array_equal(run(moved, isa), run(scan, isa)[..., order])


@pytest.mark.parametrize("length", [17, 40])
class TestSpecialValues:
    def test_infinite_decay_forgets_at_once(self, isa: str, length: int) -> None:
        scan = Scan.random(1, length, 16)
        scan.a = np.full_like(scan.a, -np.inf)
        delta = reference.softplus(scan.dt.astype(np.float64) + scan.bias)
        product = np.einsum("bln,bln->bl", scan.b.astype(np.float64), scan.c)[..., None]
        want = scan.skip * scan.u + product * delta * scan.u
        assert relative_l2(run(scan, isa), want) <= TOLERANCE

    def test_infinitely_small_step_keeps_the_state(self, isa: str, length: int) -> None:
        """Also with A = -inf, where 0 * -inf is not to become NaN."""
        scan = Scan.random(1, length, 16)
        scan.a[3:] = -np.inf
        whole = run(scan, isa)
        padded = scan.tokens(np.r_[0:5, 4, 4, 5:length])  # type: ignore[arg-type]
        padded.dt[:, 5:7] = -np.inf
        got = run(padded, isa)
        np.testing.assert_array_equal(np.delete(got, [5, 6], axis=1), whole)

    @pytest.mark.parametrize("step", [60.0, 1e4, 1e30])
    def test_large_step_is_exact(self, isa: str, length: int, step: float) -> None:
        scan = Scan.random(1, length, 16)
        scan.dt = scan.dt + np.float32(step)
        assert relative_l2(run(scan, isa) / step, scan.expected() / step) <= TOLERANCE

    def test_steps_of_any_sign_without_softplus(self, isa: str, length: int) -> None:
        """States grow as well as decay, and one step's power falls below the smallest float."""
        scan = Scan.random(1, length, 16, states=2).with_(delta_softplus=False)
        scan.bias = np.zeros_like(scan.bias)
        scan.dt = np.where(np.arange(length)[:, None] % 2, 2.5, -2.5) * np.abs(scan.dt)
        scan.dt = scan.dt.astype(np.float32)
        scan.dt[0, 3, 5] = 90.0
        scan.dt[0, 9, 6] = np.inf
        got, want = run(scan, isa), scan.expected()
        keep = np.isfinite(want)
        assert keep.sum() >= want.size - length
        np.testing.assert_array_equal(np.isfinite(got), keep)
        assert relative_l2(got[keep], want[keep]) <= TOLERANCE

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "payload"])
    @pytest.mark.parametrize("tensor", ["u", "dt", "b", "z"])
    def test_nan_and_inf_reach_later_tokens_of_their_channel_only(
        self, isa: str, length: int, tensor: str, value: float | str
    ) -> None:
        if value == "payload":  # every bit set, as in memory nobody wrote
            value = float(np.array([0xFFFFFFFF], np.uint32).view(np.float32)[0])
        forward, backward = Scan.random(1, length, 20), Scan.random(1, length, 20, seed=9)
        z = np.random.default_rng(1).standard_normal(forward.u.shape).astype(np.float32)
        forward.z = z
        at = length // 3
        array = getattr(forward, tensor).copy()
        array[0, at, 3] = value
        bad = forward.with_(**{tensor: array})
        want = ~np.isfinite(bad.expected())
        np.testing.assert_array_equal(~np.isfinite(run(bad, isa)), want)
        got = run_both(bad, backward, isa)
        np.testing.assert_array_equal(~np.isfinite(got), want)
        assert not want[0, :at].any()
        if tensor != "b":
            assert not np.delete(want, 3, axis=2).any()


def powers(isa: str, exponents: Array) -> tuple[Array, Array]:
    """2^x as the recurrence computes it, and the x that it rounded to.

    The state is 1 after the first token; the second lets it decay by exp(dt * A) and adds nothing.
    """
    channels = exponents.size
    rate = np.float32(-np.log(2.0))
    scan = Scan.random(1, 2, channels, states=1).with_(delta_softplus=False)
    scan.a = np.full((1, channels), rate, np.float32)
    scan.u = np.stack([np.ones(channels), np.zeros(channels)])[None].astype(np.float32)
    scan.dt = np.stack([np.ones(channels), -exponents])[None].astype(np.float32)
    scan.b = scan.c = np.ones((1, 2, 1), np.float32)
    scan.bias = scan.skip = np.zeros(channels, np.float32)
    in_log2 = rate * np.float32(np.log2(np.e))
    return run(scan, isa)[0, 1], (scan.dt[0, 1] * in_log2).astype(np.float64)


def test_powers_of_two_are_good_to_two_roundings(isa: str) -> None:
    """The polynomial, then the roundings of the table (or of 1 + f * ...) and of the state."""
    got, x = powers(isa, np.linspace(-120.0, 0.0, 40001))
    error = np.abs(got / np.exp2(x) - 1.0)
    print(isa, f"{error.max():.2e} {np.sqrt((error**2).mean()):.2e}")
    assert error.max() <= POLYNOMIALS.get(isa, BASELINE_POLYNOMIAL) + 2 * 2.0**-24
    assert powers(isa, np.zeros(16))[0].tolist() == [1.0] * 16


def test_errors_of_slow_states_do_not_add_up(isa: str) -> None:
    """A state with a memory of a hundred tokens and more sums as many errors of its powers."""
    channels = 64
    scan = Scan.random(1, 1500, channels, states=1).with_(delta_softplus=False)
    scan.a = -np.linspace(1e-3, 2e-2, channels, dtype=np.float32)[None]
    # Not constant, so that the roundings of the states differ from token to token.
    rng = np.random.default_rng(0)
    scan.u = rng.uniform(0.5, 1.5, (1, 1500, channels)).astype(np.float32)
    scan.dt = np.ones((1, 1500, channels), np.float32)
    scan.b = scan.c = np.ones((1, 1500, 1), np.float32)
    scan.bias = scan.skip = np.zeros(channels, np.float32)
    error = np.abs(run(scan, isa) / scan.expected() - 1.0).max(axis=1)[0]
    # A power that is rounded to a float is off by up to half an ulp, at every token by the same;
    # where it is applied in two parts it is not rounded. The states' own roundings are left.
    memory = 1.0 / -np.expm1(scan.a[0].astype(np.float64))
    rounding = 0.0 if isa in POLYNOMIALS else 2.0**-25 * memory
    print(isa, error.max(), np.sqrt((error**2).mean()))
    assert np.all(error <= 3e-6 + rounding)


def test_softplus_of_every_size(isa: str) -> None:
    """y = softplus(dt) of one token: A is 0, so the state is the step itself."""
    steps = np.linspace(-20.0, 20.0, 40000, dtype=np.float32)
    scan = Scan.random(1, 1, steps.size, states=1).with_(delta_softplus=True)
    scan.dt = steps[None, None]
    scan.u, scan.a = np.ones((1, 1, steps.size), np.float32), np.zeros((1, steps.size), np.float32)
    scan.b = scan.c = np.ones((1, 1, 1), np.float32)
    scan.bias = scan.skip = np.zeros(steps.size, np.float32)
    error = np.abs(run(scan, isa)[0, 0] / np.logaddexp(0.0, steps.astype(np.float64)) - 1.0)
    # Four roundings of 2^-24 and the polynomials; and of a negative step, whose softplus is nearly
    # a power, the two of its exponent x log2(e), whose size is the size of the error.
    assert np.all(error <= 3e-7 + np.maximum(-steps, 0) * 2 * 2.0**-24)


def test_powers_beyond_the_exponents_of_floats(isa: str) -> None:
    got, x = powers(isa, np.array([-400.0, -160.0, -149.0, -140.0, -127.5, 127.9, 128.1, 1e30]))
    with np.errstate(over="ignore"):
        want = np.exp2(x).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=2.0**-22, atol=2.0**-149)


def test_unknown_instruction_set_is_refused() -> None:
    if reason := cpu_kernels.missing_tools():
        pytest.skip(reason)
    with pytest.raises(RuntimeError, match="sse9 does not run here"):
        run(Scan.random(1, 1, 1), "sse9")
