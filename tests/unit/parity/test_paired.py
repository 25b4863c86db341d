"""The test and the interval of paired accuracies, against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vim_deploy.parity.paired import (
    exact_mcnemar,
    paired_difference,
    score_interval,
    score_statistic,
)

Z = 1.959963984540054


@pytest.mark.parametrize(
    ("losses", "gains", "expected"),
    # 2 * P(X <= smaller), X binomial(flips, 1/2), worked out by hand.
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (6, 0, 2 / 64), (7, 1, 18 / 256), (3, 3, 1.0)],
)
def test_exact_mcnemar_by_hand(losses: int, gains: int, expected: float) -> None:
    assert exact_mcnemar(losses, gains) == pytest.approx(expected)
    assert exact_mcnemar(gains, losses) == pytest.approx(expected)


def test_exact_mcnemar_of_many_flips_is_near_the_normal_one() -> None:
    # Chi-squared with continuity correction.
    expected = math.erfc((abs(2600 - 2400) - 1) / math.sqrt(5000) / math.sqrt(2))
    assert exact_mcnemar(2600, 2400) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("images", [1, 10, 360, 50_000])
def test_interval_without_flips(images: int) -> None:
    low, high = score_interval(0, 0, images)
    assert high == pytest.approx(Z**2 / (images + Z**2), rel=1e-6)
    assert low == pytest.approx(-high)


def restricted_gain_probability(losses: int, gains: int, images: int, difference: float) -> float:
    """Maximum of the multinomial likelihood on a fine grid: no formula of the paper."""
    low = max(0.0, -difference)
    high = (1 - difference) / 2
    grid = np.linspace(low, high, 400_001)[1:-1]
    neither = 1 - 2 * grid - difference
    likelihood = (
        losses * np.log(grid + difference)
        + gains * np.log(grid)
        + (images - losses - gains) * np.log(neither)
    )
    return float(grid[likelihood.argmax()])


@pytest.mark.parametrize(
    ("losses", "gains", "images", "difference"),
    [(7, 3, 100, 0.1), (3, 7, 100, 0.05), (12, 12, 360, -0.04), (1, 20, 60, 0.02)],
)
def test_statistic_uses_the_restricted_maximum_likelihood(
    losses: int, gains: int, images: int, difference: float
) -> None:
    gain = restricted_gain_probability(losses, gains, images, difference)
    variance = images * (2 * gain + difference - difference**2)
    expected = (losses - gains - images * difference) / math.sqrt(variance)
    assert score_statistic(losses, gains, images, difference) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("losses", "gains", "images"), [(7, 3, 100), (0, 5, 360), (40, 1, 60)])
def test_interval_ends_where_the_statistic_says(losses: int, gains: int, images: int) -> None:
    low, high = score_interval(losses, gains, images)
    assert score_statistic(losses, gains, images, low) == pytest.approx(Z, rel=1e-6)
    assert score_statistic(losses, gains, images, high) == pytest.approx(-Z, rel=1e-6)
    assert low < (losses - gains) / images < high
    mirrored = score_interval(gains, losses, images)
    assert mirrored == pytest.approx((-high, -low))


def test_interval_covers_the_truth() -> None:
    generator = np.random.default_rng(0)
    truth = 0.03
    counts = generator.multinomial(300, [0.05, 0.02, 0.93], size=400)
    covered = sum(
        low <= truth <= high
        for low, high in (score_interval(int(b), int(c), 300) for b, c, _ in counts)
    )
    assert 0.92 <= covered / 400 <= 0.985


def test_everything_lost_and_everything_won() -> None:
    assert score_interval(10, 0, 10)[1] == pytest.approx(1)
    assert score_interval(0, 10, 10)[0] == pytest.approx(-1)


def test_sentences_say_what_was_found() -> None:
    same = paired_difference(0, 0, 360)
    assert same.sentence("top-1").startswith("no detectable loss of top-1, upper bound 1.06 %")
    assert paired_difference(30, 2, 360).sentence("top-1").startswith("loss of top-1: 7.78 %")
    assert paired_difference(2, 30, 360).sentence("top-1").startswith("gain of top-1: 7.78 %")
    assert paired_difference(30, 2, 360).detectable
    assert not same.detectable


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_counts(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="losses"):
        paired_difference(*counts)
