"""The advice: every rule of docs/compare.md, and how many pictures are enough."""

from __future__ import annotations

import re
from itertools import product
from typing import Any, get_args

import pytest

from tests.support.source import REPOSITORY
from vim_deploy.parity.advice import BOUND, Cost, Quality, Ratio, Rule, Verdict, advise
from vim_deploy.parity.paired import images_needed, paired_difference, score_interval, wilson

SAID = "the same class on all 360 pictures"
#: A ratio of each kind.
FASTER, ALIKE, SLOWER = (Ratio(1, 0.5, 0.4, 0.6), Ratio(1, 0.99, 0.9, 1.1), Ratio(1, 2, 1.8, 2.2))


def rule(verdict: Verdict, size: float | None = None, *times: Ratio) -> Rule:
    return advise(Quality(verdict, SAID), Cost(size, times), "a.onnx", "b.onnx").rule


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("no numbers", "keep A"),
        ("worse", "keep A"),
        ("different", "look"),
        ("too few", "more pictures"),
    ],
)
def test_answers_come_before_size_and_time(verdict: Verdict, expected: Rule) -> None:
    assert rule(verdict, 0.5, FASTER) == expected
    found = advise(Quality(verdict, SAID), Cost(0.5), "a.onnx", "b.onnx").sentence
    assert SAID in found
    assert ("docs/precision.md" in found) == (expected == "keep A")


@pytest.mark.parametrize("verdict", ["same", "as good"])
@pytest.mark.parametrize(
    ("size", "times", "expected"),
    [
        (0.5, [ALIKE], "take B"),
        (0.5, [FASTER], "take B"),
        (0.5, [], "take B"),
        (1.0, [FASTER], "take B"),
        (None, [FASTER], "take B"),
        (0.5, [SLOWER], "trade"),
        (2.0, [FASTER], "trade"),
        (0.5, [FASTER, SLOWER], "trade"),
        (1.0, [FASTER, SLOWER], "trade"),
        (2.0, [ALIKE], "keep A"),
        (2.0, [SLOWER], "keep A"),
        (1.0, [SLOWER], "keep A"),
        (2.0, [], "keep A"),
        (1.0, [ALIKE], "either"),
        (1.03, [], "either"),
        (None, [], "either"),
    ],
)
def test_size_and_time(
    verdict: Verdict, size: float | None, times: list[Ratio], expected: Rule
) -> None:
    assert rule(verdict, size, *times) == expected


@pytest.mark.parametrize(
    ("size", "time", "expected"),
    [
        (1.0, ALIKE, "take B"),
        (2.0, ALIKE, "trade"),
        (1.0, SLOWER, "trade"),
        (0.5, FASTER, "take B"),
    ],
)
def test_better_answers_count_like_less_time(size: float, time: Ratio, expected: Rule) -> None:
    assert rule("better", size, time) == expected


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (Ratio(1, 1.5, 0.9, 2.0), "as fast"),
        (Ratio(1, 1.02, 1.01, 1.03), "as fast"),
        (Ratio(1, 0.97, 0.96, 0.98), "as fast"),
        (Ratio(1, 1.2, 1.1, 1.3), "slower"),
        (Ratio(1, 0.8, 0.7, 0.9), "faster"),
    ],
)
def test_a_time_is_another_one_where_its_interval_says_so(time: Ratio, expected: str) -> None:
    assert Cost(None, [time]).time_verdict == expected
    assert Cost(None, [ALIKE, time]).time_verdict == expected


def test_sentences_say_what_and_why() -> None:
    verdicts: tuple[Verdict, ...] = get_args(Verdict)
    rules = set()
    for verdict, size, times in product(
        verdicts, (None, 0.5, 1.0, 2.0), ((), (FASTER,), (ALIKE,), (SLOWER,), (FASTER, SLOWER))
    ):
        found = advise(Quality(verdict, SAID), Cost(size, times), "a.onnx", "b.onnx")
        assert SAID in found.sentence
        assert "unknown" not in found.sentence or size is None
        assert not re.search(r"\bNone\b|\{|  ", found.sentence)
        rules.add(found.rule)
    assert rules == {*get_args(Rule)}


def test_trades_name_what_speaks_for_each_side() -> None:
    def sentence(size: float, *times: Ratio, verdict: Verdict = "same") -> str:
        return advise(Quality(verdict, SAID), Cost(size, times), "a", "b").sentence

    assert sentence(0.5, SLOWER).startswith("take B (b) where size counts, and A (a) elsewhere")
    assert "where time counts" in sentence(2.0, FASTER)
    assert "where its better answers count" in sentence(2.0, ALIKE, verdict="better")
    assert "its batch size is the one that is faster" in sentence(1.0, FASTER, SLOWER)
    assert "0.50 times as large" in sentence(0.5, SLOWER)
    assert "2.00 at batch 1" in sentence(0.5, SLOWER)


def test_the_page_states_the_rules_numbers() -> None:
    page = (REPOSITORY / "docs" / "compare.md").read_text(encoding="utf-8")
    assert f"{100 * BOUND:g} %" in page
    few, more = (images_needed(0, 0, 1, bound) for bound in (BOUND, 0.01))
    assert f"Without a difference {few} pictures are\nenough for 2 %, {more} for 1 %" in page
    for name in get_args(Rule):
        assert f"`{name}`" in page


@pytest.mark.parametrize("counts", [(0, 0, 50), (1, 0, 300), (3, 2, 100), (0, 4, 200)])
@pytest.mark.parametrize("bound", [0.02, 0.05])
def test_images_needed(counts: tuple[int, int, int], bound: float) -> None:
    losses, gains, images = counts
    needed = images_needed(losses, gains, images, bound)
    assert needed is not None

    def high(count: int) -> float:
        return score_interval(losses * count / images, gains * count / images, count)[1]

    assert high(needed) <= bound < high(needed - 1)


def test_no_number_of_images_makes_a_loss_smaller() -> None:
    assert images_needed(5, 0, 100, 0.02) is None
    assert images_needed(2, 0, 100, 0.02) is None


def test_without_flips_both_bounds_are_one() -> None:
    found: Any = paired_difference(0, 0, 189)
    assert found.high == pytest.approx(wilson(0, 189)[1])
    assert found.high <= BOUND < wilson(0, 188)[1]
