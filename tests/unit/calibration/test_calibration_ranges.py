"""Ranges of watched tensors: by each method, in any order, with little memory."""

from __future__ import annotations

import sys
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from vim_deploy.calibration.ranges import RangeCollector
from vim_deploy.errors import VimDeployError
from vim_deploy.recipe.quantization import PERCENTILE
from vim_deploy.specs import CalibrationMethod

METHODS = get_args(CalibrationMethod)
Values = NDArray[np.float32]


def heavy(seed: int, count: int = 20_000) -> Values:
    """Values with tails as activations have them."""
    generator = np.random.default_rng(seed)
    scales = np.exp(0.8 * generator.standard_normal(count))
    return (generator.standard_normal(count) * scales).astype(np.float32)


def ranges_of(method: CalibrationMethod, *batches: Values) -> float:
    collector = RangeCollector(method)
    for batch in batches:
        collector.collect({"x": batch})
    return collector.ranges()["x"]


@pytest.mark.parametrize("method", METHODS)
def test_neither_order_nor_batches_change_a_range(method: CalibrationMethod) -> None:
    batches = [0.001 * heavy(0), heavy(1), 0 * heavy(2), 300 * heavy(3)]
    found = ranges_of(method, *batches)
    assert found == ranges_of(method, *np.array_split(np.concatenate(batches[::-1]), 3))
    assert found == float(np.float32(found))
    assert 0 < found <= max(float(np.abs(batch).max()) for batch in batches)


def test_minmax_is_the_largest_magnitude() -> None:
    assert ranges_of("minmax", np.float32([1, -3]), np.float32([2, 2.5])) == 3
    assert ranges_of("minmax", np.asarray([[-7.5]], np.float16)) == 7.5  # type: ignore[arg-type]


def test_percentile_leaves_out_the_rest() -> None:
    values = np.linspace(0, 8, 1_000_000, dtype=np.float32)
    values[:5] = (-60, 60, 61, 62, 63)
    found = ranges_of("percentile", values)
    # 10 of a million are left out, 5 of them far out; a bin is 64 / 2048 wide.
    wanted = float(np.percentile(np.abs(values), PERCENTILE))
    assert found == pytest.approx(wanted, abs=64 / 2048)
    assert found == ranges_of("percentile", *np.array_split(values, 7))


def test_entropy_cuts_the_tails_that_onnx_runtime_cuts() -> None:
    tools: Any = pytest.importorskip("onnxruntime.quantization.calibrate")
    values = heavy(5)
    values[0] = 64  # a bound of ours, so that both have the same bins
    values = np.clip(values, -64, 64)
    theirs = tools.HistogramCollector("entropy", True, 2048, 128, None, None)
    theirs.collect_value({"x": values})
    low, high = theirs.get_entropy_threshold(theirs.histogram_dict["x"], 128)
    found = ranges_of("entropy", values)
    assert found == max(-low, high)
    assert found < 32


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_a_range_that_grows_takes_no_more_memory(method: CalibrationMethod) -> None:
    collector = RangeCollector(method)
    for power in range(-90, 90, 20):
        collector.collect({"x": np.float32(2.0**power) * heavy(power + 90, 100)})
    (counts, edges, *_) = collector._collector.histogram_dict["x"]
    assert counts.size == edges.size - 1 == 2048
    assert counts.sum() == 9 * 100


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_bounds_that_are_or_nearly_are_powers_of_two(method: CalibrationMethod) -> None:
    for largest in (np.float32(1), np.float32(0.125), np.nextafter(np.float32(1), np.float32(2))):
        collector = RangeCollector(method)
        for values in np.linspace(-largest, largest, 99, dtype=np.float32) * [[1], [2], [1]]:
            collector.collect({"x": values})
        counts = collector._collector.histogram_dict["x"][0]
        assert (counts.size, counts.sum()) == (2048, 3 * 99)


@pytest.mark.parametrize("method", METHODS)
def test_sparse_tensors_have_a_range(method: CalibrationMethod) -> None:
    values = np.zeros(1_000_000, np.float32)
    values[7] = 3
    assert 0 < ranges_of(method, values) <= 3


@pytest.mark.parametrize("method", METHODS)
def test_what_has_no_range(method: CalibrationMethod) -> None:
    for value, code in ((np.nan, "VIM-430"), (np.inf, "VIM-430"), (2.0**101, "VIM-441")):
        with pytest.raises(VimDeployError) as caught:
            RangeCollector(method).collect({"head": np.float32([1, value])})
        assert caught.value.code == code
        assert "head" in str(caught.value)
    collector = RangeCollector(method)
    collector.collect({"dead": np.zeros((2, 3), np.float32), "none": np.zeros((0, 3), np.float32)})
    with pytest.raises(VimDeployError, match="dead") as caught:
        collector.ranges()
    assert caught.value.code == "VIM-441"


def test_a_method_that_is_none() -> None:
    with pytest.raises(VimDeployError, match="VIM-202"):
        RangeCollector("median")  # type: ignore[arg-type]


def test_standard_output_and_the_search_path_stay_as_they_are(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = list(sys.path)
    ranges_of("percentile", heavy(0))
    assert sys.path == before
    assert capfd.readouterr() == ("", "")
