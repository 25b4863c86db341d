"""What the cases of ``plugin test`` can see, and what a run of one may be off by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from vim_deploy.ops import OPS
from vim_deploy.ops.op import Kind
from vim_deploy.plugin.cases import LONG, MEMORIES, RANKS, Array, Case, cases
from vim_deploy.plugin.check import (
    GPU_POWER_ERROR,
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


def off_in_the_rates(case: Case, share: float) -> Array:
    """The case's output where every rate is too large by ``share``."""
    op, params = OPS[case.op], case.params()
    attributes = {
        name: getattr(params, name)
        for name, kind in op.attributes.items()
        if kind is not Kind.DIRECTIONS
    }
    inputs = case.inputs | {"A": case.inputs["A"] * (1.0 + share)}
    return op.reference(*inputs.values(), **attributes)


def test_powers_that_are_all_off_the_same_way_are_seen(every_case: list[Case]) -> None:
    for case in slow(every_case):
        error, fault = case.compare(off_in_the_rates(case, DEGREE_2))
        assert not fault
        assert error is not None
        if case.dtype is DataType.FP32:
            assert error > 3 * tolerance(case, 0.0), case.name


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


def test_more_is_allowed_where_a_power_may_be_off_one_way() -> None:
    def lines() -> Iterator[tuple[Case, float]]:
        for case in cases((2,)):
            yield case, tolerance(case, GPU_POWER_ERROR) - TOLERANCES[case.dtype]

    for case, more in lines():
        # Two units in the last place at each of the tokens.
        assert more == pytest.approx(case.memory * 2.0**-23, abs=1e-18)


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
