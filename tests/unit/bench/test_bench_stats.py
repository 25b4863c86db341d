"""Percentiles, intervals and exponents against known answers."""

from __future__ import annotations

import numpy as np
import pytest

from vim_deploy.bench.stats import (
    Estimate,
    bootstrap,
    fit_power_law,
    latency_summary,
    percentile,
    ratio_of_medians,
    throughput,
)
from vim_deploy.codec import encode


def turns(*values: list[float]) -> list[np.ndarray]:
    return [np.asarray(turn, np.float64) for turn in values]


@pytest.mark.parametrize(
    ("count", "q", "known"),
    [
        (99, 99, False),
        (100, 99, True),
        (20, 95, True),
        (19, 95, False),
        (1, 50, False),
        (2, 50, True),
    ],
)
def test_a_percentile_needs_samples_beyond_it(count: int, q: float, known: bool) -> None:
    assert (percentile(np.arange(count, dtype=np.float64), q) is not None) == known


def test_percentiles_of_known_samples() -> None:
    summary = encode(latency_summary(turns(list(np.arange(101) / 1e3))))
    assert summary["p50_ms"]["value"] == pytest.approx(50)
    assert summary["p99_ms"]["value"] == pytest.approx(99)
    assert summary["min_ms"] == 0
    assert summary["mean_ms"]["value"] == pytest.approx(50)


def test_missing_percentiles_are_none_and_not_the_largest_value() -> None:
    summary = encode(latency_summary(turns([1.0, 2.0, 3.0])))
    assert summary["p90_ms"] is None
    assert summary["p99_ms"] is None
    assert summary["p50_ms"]["value"] == pytest.approx(2000)


def test_intervals_are_repeatable_and_hold_the_value() -> None:
    generator = np.random.default_rng(1)
    data = [generator.lognormal(0, 0.2, 30) for _ in range(10)]
    first = bootstrap(data, lambda x: float(np.median(x)))
    assert first == bootstrap(data, lambda x: float(np.median(x)))
    assert first.low < first.value < first.high


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    # Turns share a shift, as they do on a real machine; a bootstrap over single calls would
    # cover far too rarely. The nominal 95 % are not quite reached with ten turns.
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(100):
        shifts = generator.normal(0, 1, 10)
        data = [shift + generator.normal(0, 0.1, 20) for shift in shifts]
        found = bootstrap(data, lambda x: float(x.mean()))
        covered += found.low <= 0 <= found.high
    assert 84 <= covered <= 99


def test_ratio_of_rounds_that_drift_together_is_narrow() -> None:
    drift = np.linspace(1, 3, 10)
    under = [np.full(5, value) for value in drift]
    over = [2 * turn for turn in under]
    found = ratio_of_medians(over, under)
    assert found == Estimate(pytest.approx(2.0), pytest.approx(2.0), pytest.approx(2.0))


def test_ratio_needs_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="same rounds"):
        ratio_of_medians(turns([1.0]), turns([1.0], [2.0]))


def test_throughput_counts_images_over_time() -> None:
    assert throughput(turns([0.5, 0.5], [0.25, 0.75]), batch=8).value == pytest.approx(16)


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0])
def test_exponent_of_an_exact_power(exponent: float) -> None:
    tokens = [197, 1025, 6085]
    fit = fit_power_law(tokens, [3e-4 * count**exponent for count in tokens])
    assert fit.exponent == pytest.approx(exponent)
    assert fit.factor == pytest.approx(3e-4)
    assert fit.r_squared == pytest.approx(1)
    assert fit.standard_error == pytest.approx(0, abs=1e-9)


def test_exponent_agrees_with_numpy_and_says_how_sure_it_is() -> None:
    generator = np.random.default_rng(3)
    tokens = np.array([100.0, 200, 400, 800, 1600])
    seconds = tokens**1.2 * np.exp(generator.normal(0, 0.1, 5))
    fit = fit_power_law(tokens.tolist(), seconds.tolist())
    slope, covariance = np.polyfit(np.log(tokens), np.log(seconds), 1, cov=True)
    assert fit.exponent == pytest.approx(slope[0])
    assert fit.standard_error == pytest.approx(np.sqrt(covariance[0, 0]))


def test_two_points_have_no_error_and_one_has_no_line() -> None:
    assert fit_power_law([1, 10], [1, 10]).standard_error is None
    with pytest.raises(ValueError, match="two different"):
        fit_power_law([5, 5], [1, 2])
