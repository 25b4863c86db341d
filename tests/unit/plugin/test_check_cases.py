"""What the cases of ``plugin test`` can see, and what a run of one may be off by."""

from __future__ import annotations

import os
import re
from itertools import islice
from typing import Any

import numpy as np
import pytest

from tests.support.source import REPOSITORY
from vim_deploy.ops import OPS
from vim_deploy.ops.op import Kind
from vim_deploy.plugin.cases import LONG, MEMORIES, RANKS, Array, Case, cases
from vim_deploy.plugin.check import (
    ARITHMETIC,
    GPU_ARITHMETIC,
    GPU_POWER_ERROR,
    ROUNDING,
    TOLERANCES,
    CheckReport,
    CheckResult,
    tolerance,
)
from vim_deploy.plugin.kernels import DataType

#: 2^x by 32 entries and a polynomial of degree 2 on [-1/64, 1/64]: no power is off by more than
#: 5.4e-8, but at 0 its slope is, by 3/4 (ln 2)^2 / 6 / 64^2 of ln 2. That is as if the rates were.
DEGREE_2 = 0.75 * np.log(2.0) ** 2 / 6 / 64**2


@pytest.fixture(scope="module")
def every_case() -> list[Case]:
    return list(cases((2, 33)))


def slow(every_case: list[Case]) -> list[Case]:
    found = [case for case in every_case if case.memory]
    assert found
    return found


def reference(case: Case, **changed: Array) -> Array:
    """The case's output in float64, with some of its inputs changed."""
    op, params = OPS[case.op], case.params()
    attributes = {
        name: getattr(params, name)
        for name, kind in op.attributes.items()
        if kind is not Kind.DIRECTIONS
    }
    return op.reference(*(case.inputs | changed).values(), **attributes)


def off_in_the_rates(case: Case, share: float) -> Array:
    """The case's output where every rate is too large by ``share``."""
    return reference(case, A=case.inputs["A"] * (1.0 + share))


def test_powers_that_are_all_off_the_same_way_are_seen(every_case: list[Case]) -> None:
    for case in slow(every_case):
        error, fault = case.compare(off_in_the_rates(case, DEGREE_2))
        assert not fault
        assert error is not None
        if case.dtype is DataType.FP32:
            assert error > 3 * tolerance(case, on_gpu=False), case.name


def test_what_slow_states_remember(every_case: list[Case]) -> None:
    for case in slow(every_case):
        assert case.params().length == LONG
        rates = -case.inputs["A"]
        steps = np.logaddexp(0.0, case.inputs["dt_bias"])[..., None, :]
        longest = (1.0 / (steps * rates)).max()
        assert 0.9 * case.memory <= longest <= case.memory * (1 + 1e-6)
        first = case.params().b_off
        rows = case.inputs["xdbl" if "xdbl" in case.inputs else "bc"]
        for values in (rows[..., first : first + 32], case.inputs["Dskip"]):
            assert values.min() > 0.0
    assert {case.memory for case in slow(every_case)} == set(MEMORIES)


def test_low_rank_of_every_kind(every_case: list[Case]) -> None:
    found = {
        (case.dtype, case.params().rank)
        for case in every_case
        if case.op == "VimBiSelectiveScan" and case.params().low_rank
    }
    assert found == {(dtype, rank) for dtype in DataType for rank in RANKS}
    for case in every_case:
        if case.op == "VimBiSelectiveScan":
            params = case.params()
            # Columns that nobody uses, or the row is packed.
            assert params.xdbl_columns > 2 * params.states + params.rank


def test_more_is_allowed_where_a_power_may_be_off_one_way(every_case: list[Case]) -> None:
    for case in every_case:
        # Two units in the last place at each of the tokens.
        slow = ARITHMETIC + case.memory * GPU_POWER_ERROR
        allowed = tolerance(case, on_gpu=True) - ROUNDING[case.dtype]
        assert allowed == pytest.approx(max(GPU_ARITHMETIC, slow), rel=1e-9)
        assert (allowed > 1.01 * GPU_ARITHMETIC) == (case.memory == max(MEMORIES))
        assert tolerance(case, on_gpu=False) == TOLERANCES[case.dtype]


def test_cpp_allows_the_same() -> None:
    header = (REPOSITORY / "plugins" / "tests" / "common" / "problem.h").read_text("utf-8")
    found = dict(re.findall(r"inline constexpr double (k\w+) = (\S+);", header))
    assert float(found.pop("kArithmetic")) == ARITHMETIC
    assert float(found.pop("kGpuArithmetic")) == GPU_ARITHMETIC
    assert float.fromhex(found.pop("kGpuPowerError")) == GPU_POWER_ERROR
    assert not found


class GpuFunctions:
    """NumPy whose powers are off as a GPU's may be, by two units in the last place, and reciprocals
    by one: at random, or all to one side."""

    def __init__(self, one_sign: bool) -> None:
        self._random = None if one_sign else np.random.default_rng(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def off(self, exact: Array, units: int) -> Array:
        unit = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
        share = self._random.uniform(-1.0, 1.0, exact.shape) if self._random else 1.0
        return exact + units * share * unit

    def exp(self, x: Array) -> Array:
        return self.off(np.exp(x), 2)

    def logaddexp(self, zero: float, x: Array) -> Array:
        """Softplus as the kernels have it, from one power."""
        assert zero == 0.0
        return np.maximum(x, 0.0) + np.log1p(self.exp(-np.abs(x)))

    def silu(self, x: Array) -> Array:
        return x * self.off(1.0 / (1.0 + self.exp(-x)), 1)


def gpu_error(case: Case, one_sign: bool) -> float:
    """Relative L2 distance that a GPU's powers and reciprocals alone may bring into a case."""
    gpu = GpuFunctions(one_sign)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vim_deploy.ops.selective_scan.np", gpu)
        for module in ("selective_scan", "bi_selective_scan", "bi_causal_conv"):
            patch.setattr(f"vim_deploy.ops.{module}.silu", gpu.silu)
        error, fault = case.compare(reference(case))
    assert not fault
    assert error is not None
    return error


def test_what_is_allowed_on_a_gpu_follows_from_its_instructions(every_case: list[Case]) -> None:
    """``check.GPU_ARITHMETIC``'s derivation: over all cases with VIM_TEST_ALL=1, else over those
    that come nearest, and short ones."""
    if os.environ.get("VIM_TEST_ALL"):
        chosen = [case for case in cases() if case.dtype is DataType.FP32]
    else:
        short = [case for case in every_case if case.dtype is DataType.FP32]
        chosen = [*short[:6], *short[-2:], *islice(cases((730,)), 1, 3)]
    random = {case.name: gpu_error(case, one_sign=False) for case in chosen}
    one_sign = {case.name: gpu_error(case, one_sign=True) for case in chosen}
    for case in chosen:
        # The arithmetic's own roundings come on top.
        allowed = tolerance(case, on_gpu=True) - ARITHMETIC
        assert random[case.name] < one_sign[case.name] * 1.2 < allowed, case.name
    within = [one_sign[case.name] for case in chosen if case.memory < max(MEMORIES)]
    # What the comment says.
    assert max(within) == pytest.approx(6.1e-6, rel=0.02)
    assert max(random.values()) == pytest.approx(3.0e-7, rel=0.02)
    assert max(one_sign.values()) > GPU_ARITHMETIC


def test_a_summary_shows_the_run_nearest_to_what_it_may_be() -> None:
    results = tuple(
        CheckResult("op", "fp32", "case", 1, error, allowed, "")
        for error, allowed in ((8e-7, 1e-6), (1.2e-6, 3e-5))
    )
    (line,) = CheckReport("library", "GPU", results).summary()
    assert (line.cases, line.worst, line.tolerance) == (2, 8e-7, 1e-6)
    lost = CheckResult("op", "fp32", "case", 1, None, 3e-5, "")
    (line,) = CheckReport("library", "GPU", (*results, lost)).summary()
    assert (line.worst, line.tolerance) == (np.inf, 3e-5)
