"""The search for what must stay in float32, on made-up models that say what they need."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from vim_deploy.codec import encode
from vim_deploy.parity.bisect import Bisection, Evaluation, Unit, bisect
from vim_deploy.parity.metrics import Tolerance, compare
from vim_deploy.recipe.precision_policy import PrecisionPolicy

BLOCK_ROLES = ("residual", "in_proj", "conv", "x_proj", "dt_proj", "scan", "out_proj")
UNITS = (
    Unit("patch_embed"),
    *(Unit(role, block) for block in range(24) for role in BLOCK_ROLES),
    Unit("head"),
)


def search(needed: Iterable[Unit], most: int = 200) -> tuple[Bisection | None, list[int]]:
    """What a model needs that passes when ``needed`` is kept; how many units each trial kept."""
    wanted, trials = frozenset(needed), []

    def evaluate(kept: frozenset[Unit]) -> Evaluation:
        missing = len(wanted - kept)
        return Evaluation(missing == 0, 0.001 + missing, "far off" if missing else "")

    def note(number: int, kept: int, _found: Evaluation) -> None:
        assert number == len(trials) + 1
        trials.append(kept)

    return bisect(UNITS, evaluate, most, note), trials


def test_nothing_is_needed() -> None:
    found, trials = search([])
    assert found is not None
    assert (found.units, found.minimal, found.evaluations) == ((), True, 1)
    assert trials == [0]
    assert found.policy == PrecisionPolicy(())


@pytest.mark.parametrize("unit", [Unit("x_proj", 7), Unit("head"), Unit("residual", 0)], ids=str)
def test_one_unit_takes_few_trials(unit: Unit) -> None:
    found, trials = search([unit])
    assert found is not None
    assert found.units == (unit,)
    assert found.minimal
    # Two ends, three halvings of 9 roles, five of 24 blocks, each with a miss at most.
    assert len(trials) <= 20
    assert found.nothing.passed is False
    assert found.found.passed


def test_several_units_of_several_roles() -> None:
    needed = [Unit("patch_embed"), Unit("in_proj", 3), Unit("conv", 3), Unit("scan", 20),
              Unit("scan", 21), Unit("scan", 22)]  # fmt: skip
    found, trials = search(needed)
    assert found is not None
    assert set(found.units) == set(needed)
    assert found.minimal
    assert {unit for unit, item in found.without if not item.passed} == set(needed)
    assert len(trials) < 100
    rules = {rule.roles: rule.ranges for rule in found.policy.keep_fp32}
    assert rules == {
        ("patch_embed",): None, ("in_proj", "conv"): ((3, 3),), ("scan",): ((20, 22),)
    }  # fmt: skip
    assert all("relative L2 is up to 1" in rule.reason for rule in found.policy.keep_fp32)


def test_a_role_in_all_blocks_is_one_rule_without_blocks() -> None:
    found, _ = search([Unit("residual", block) for block in range(24)])
    assert found is not None
    assert [(rule.roles, rule.ranges) for rule in found.policy.keep_fp32] == [(("residual",), None)]


def test_policy_keeps_the_units_and_no_others() -> None:
    needed = {Unit("scan", 4), Unit("scan", 9), Unit("head")}
    found, _ = search(needed)
    assert found is not None
    policy = found.policy
    assert {unit for unit in UNITS if policy.keeps_fp32(unit.role, unit.block)} == needed


def test_a_search_cut_short_gives_a_set_that_passes() -> None:
    needed = [Unit("scan", block) for block in range(0, 24, 2)]
    found, trials = search(needed, most=12)
    assert found is not None
    assert not found.minimal
    assert len(trials) == 12
    assert set(needed) <= set(found.units)
    assert len(found.units) < len(UNITS)
    assert found.found.passed


def test_not_even_everything() -> None:
    found, trials = search([Unit("scan", 99)])
    assert found is None
    assert trials == [0, len(UNITS)]


def test_what_cannot_be_measured_is_infinitely_far() -> None:
    nan = np.array([[np.nan, 1.0]], dtype=np.float32)
    item = Evaluation.of(compare("logits", np.ones((1, 2), np.float32), nan, Tolerance()))
    assert not item.passed
    assert item.relative_l2 == float("inf")
    assert "NaN" in item.why


def test_json_form_has_no_infinite_number() -> None:
    def evaluate(kept: frozenset[Unit]) -> Evaluation:
        good = Unit("conv", 1) in kept
        return Evaluation(good, 0.0 if good else float("inf"), "" if good else "NaN")

    found = bisect(UNITS, evaluate)
    assert found is not None
    value = encode(found)
    assert value["units"] == [{"role": "conv", "block": 1}]
    assert value["without"][0]["relative_l2"] is None
    assert value["nothing_kept"]["passed"] is False
    assert "not finite" in found.policy.keep_fp32[0].reason
