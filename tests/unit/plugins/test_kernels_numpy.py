"""The kernels on the CPU against a float64 reference in NumPy, and against themselves.

The metamorphic tests need no reference: they compare runs whose answers the mathematics of the
recurrence ties together.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

HOST = Path(__file__).parents[3] / "plugins" / "tests" / "host"
sys.path.insert(0, str(HOST))

import kernel_library  # noqa: E402 - lives beside the shim it compiles
import reference  # noqa: E402
from kernel_calls import SCAN_TACTICS, Scan, aligned  # noqa: E402
from reference import relative_l2  # noqa: E402

Array = reference.Array

#: The issue's bound for fp32 activations.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def library() -> kernel_library.KernelLibrary:
    if reason := kernel_library.missing_host_tools():
        pytest.skip(reason)
    return kernel_library.host_library()


@pytest.mark.parametrize("tactic", SCAN_TACTICS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 4, 5, 37, 200, 201])
def test_scan_agrees_with_numpy(
    library: kernel_library.KernelLibrary, tactic: str, length: int, reverse: bool
) -> None:
    scan = Scan.random(2, length, 80, seed=length).with_(reverse=reverse)
    scan.z = np.random.default_rng(1).standard_normal(scan.u.shape).astype(np.float32)
    assert relative_l2(scan.run(library, tactic), scan.expected()) <= TOLERANCE


@pytest.mark.parametrize(
    ("states", "tactic"),
    [
        *((8, name) for name in ("serial", "chunked4", "chunked8", "generic")),
        *((1, name) for name in ("serial", "chunked4", "generic")),
    ],
)
@pytest.mark.parametrize(("length", "before"), [(3, 1), (49, 49), (203, 20)])
def test_other_families_run_ungated_from_any_column(
    library: kernel_library.KernelLibrary, states: int, tactic: str, length: int, before: int
) -> None:
    """MambaVision's 8 states and VMamba's one; nothing of the columns before B, which are NaN."""
    scan = Scan.random(1, length, 80, states, seed=length).with_(before=before)
    assert relative_l2(scan.run(library, tactic), scan.expected()) <= TOLERANCE
    backward = scan.with_(reverse=True)
    assert relative_l2(backward.run(library, tactic), backward.expected()) <= TOLERANCE


@pytest.mark.parametrize("states", [1, 3, 16, 17, 64])
@pytest.mark.parametrize("softplus", [False, True])
def test_generic_state_sizes(
    library: kernel_library.KernelLibrary, states: int, softplus: bool
) -> None:
    scan = Scan.random(1, 23, 7, states, seed=states).with_(delta_softplus=softplus)
    if not softplus:
        scan.dt = 0.1 * np.abs(scan.dt)
        scan.bias = np.abs(0.01 * scan.bias)
    assert relative_l2(scan.run(library, "generic"), scan.expected()) <= TOLERANCE


@pytest.mark.parametrize("tactic", ["vector", "generic"])
@pytest.mark.parametrize("length", [1, 2, 5, 8, 9, 40])
def test_conv_agrees_with_numpy(
    library: kernel_library.KernelLibrary, tactic: str, length: int
) -> None:
    rng = np.random.default_rng(length)
    batch, channels, width = 2, 24, 4
    xz = aligned(rng.standard_normal((batch, length, 2 * channels)).astype(np.float32))
    w = aligned(rng.standard_normal((2, width, channels)).astype(np.float32))
    bias = aligned(rng.standard_normal((2, channels)).astype(np.float32))
    u2 = aligned(np.full((2, batch, length, channels), np.nan, np.float32))
    params = kernel_library.BiCausalConvParams(
        xz=xz.ctypes.data,
        w=w.ctypes.data,
        bias=bias.ctypes.data,
        u2=u2.ctypes.data,
        batch=batch,
        length=length,
        channels=channels,
        width=width,
        xz_columns=2 * channels,
    )
    assert library.launch(params, kernel_library.TACTICS[tactic]) == 0
    wide = [x.astype(np.float64) for x in (xz[..., :channels], w, bias)]
    assert relative_l2(u2, reference.bi_causal_conv(*wide)) <= TOLERANCE
    # The second direction is the first one on the flipped sequence with the same taps.
    flipped = reference.bi_causal_conv(wide[0][:, ::-1], wide[1][::-1], wide[2][::-1])
    assert relative_l2(u2[1], flipped[0][:, ::-1]) <= TOLERANCE


@pytest.mark.parametrize("tactic", SCAN_TACTICS)
@pytest.mark.parametrize("length", [17, 203])
class TestMetamorphic:
    def test_reverse_is_forward_on_flipped_tokens(
        self, library: kernel_library.KernelLibrary, tactic: str, length: int
    ) -> None:
        scan = Scan.random(1, length, 16)
        flipped = scan.tokens(slice(None, None, -1)).run(library, tactic)[:, ::-1]
        reverse = scan.with_(reverse=True).run(library, tactic)
        assert relative_l2(reverse, flipped) <= TOLERANCE

    def test_prefix_does_not_see_what_follows(
        self, library: kernel_library.KernelLibrary, tactic: str, length: int
    ) -> None:
        scan = Scan.random(1, length, 16)
        whole = scan.run(library, tactic)
        for cut in (1, 4, length // 2, length - 1):
            prefix = scan.tokens(slice(0, cut)).run(library, tactic)
            assert relative_l2(whole[:, :cut], prefix) <= TOLERANCE

    def test_suffix_is_its_own_scan_plus_the_carried_state(
        self, library: kernel_library.KernelLibrary, tactic: str, length: int
    ) -> None:
        scan = Scan.random(1, length, 16)
        whole = scan.run(library, tactic)
        for cut in (1, 5, length - 3):
            rest = scan.tokens(slice(cut, None))
            silent = rest.with_(u=np.zeros_like(rest.u))
            head = scan.tokens(slice(0, cut))
            wide = [
                np.asarray(x, np.float64)
                for x in (head.u, head.dt, head.a, head.b, head.c, head.skip, head.bias)
            ]
            _, carried = reference.selective_scan(*wide)
            want = rest.run(library, tactic) + silent.expected(carried)
            assert relative_l2(whole[:, cut:], want) <= TOLERANCE

    def test_linear_in_u(
        self, library: kernel_library.KernelLibrary, tactic: str, length: int
    ) -> None:
        scan = Scan.random(1, length, 16)
        other = Scan.random(1, length, 16, seed=9).u
        mixed = scan.with_(u=np.float32(2.0) * scan.u - other).run(library, tactic)
        parts = 2.0 * scan.run(library, tactic) - scan.with_(u=other).run(library, tactic)
        # Rounding of the mixed input itself adds to the kernel's own error.
        assert relative_l2(mixed, parts) <= 2 * TOLERANCE

    def test_channels_do_not_mix(
        self, library: kernel_library.KernelLibrary, tactic: str, length: int
    ) -> None:
        scan = Scan.random(1, length, 16)
        order = np.random.default_rng(3).permutation(16)
        moved = scan.with_(
            u=scan.u[..., order],
            dt=scan.dt[..., order],
            a=scan.a[:, order],
            skip=scan.skip[order],
            bias=scan.bias[order],
        )
        np.testing.assert_array_equal(
            moved.run(library, tactic), scan.run(library, tactic)[..., order]
        )

    def test_infinite_decay_forgets_at_once(
        self, library: kernel_library.KernelLibrary, tactic: str, length: int
    ) -> None:
        scan = Scan.random(1, length, 16)
        scan.a = np.full_like(scan.a, -np.inf)
        delta = reference.softplus(scan.dt.astype(np.float64) + scan.bias)
        product = np.einsum("bln,bln->bl", scan.b.astype(np.float64), scan.c)[..., None]
        want = scan.skip * scan.u + product * delta * scan.u
        assert relative_l2(scan.run(library, tactic), want) <= TOLERANCE

    def test_infinitely_small_step_leaves_the_skip(
        self, library: kernel_library.KernelLibrary, tactic: str, length: int
    ) -> None:
        scan = Scan.random(1, length, 16)
        scan.dt = np.full_like(scan.dt, -np.inf)
        want = scan.skip * scan.u
        np.testing.assert_allclose(scan.run(library, tactic), want, rtol=TOLERANCE)

    def test_large_step_is_exact(
        self, library: kernel_library.KernelLibrary, tactic: str, length: int
    ) -> None:
        scan = Scan.random(1, length, 16)
        scan.dt = scan.dt + np.float32(60.0)
        assert relative_l2(scan.run(library, tactic), scan.expected()) <= TOLERANCE

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("tensor", ["u", "dt", "b"])
    def test_nan_and_inf_reach_later_tokens_of_their_channel_only(
        self,
        library: kernel_library.KernelLibrary,
        tactic: str,
        length: int,
        tensor: str,
        value: float,
    ) -> None:
        scan = Scan.random(1, length, 16)
        at = length // 2
        array = getattr(scan, tensor).copy()
        array[0, at, 3] = value
        hit = scan.with_(**{tensor: array})
        bad = ~np.isfinite(hit.expected())
        got = hit.run(library, tactic)
        np.testing.assert_array_equal(~np.isfinite(got), bad)
        assert bad[0, at].any()
        assert not bad[0, :at].any()
