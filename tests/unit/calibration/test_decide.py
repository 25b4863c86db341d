"""Which remedy a product gets: none, smoothing, a second digit."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vim_deploy.calibration.decide import (
    decide,
    error_of,
    reach_of,
    smoothing_of,
    weights_of,
)
from vim_deploy.calibration.observe import GROUPS, Observed, Watch
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.quantization.plan import LayerPlan
from vim_deploy.graph.quantization.products import Product
from vim_deploy.precisions import TABLE

GENERATOR = np.random.default_rng(7)


def product(k: int = 32, n: int = 16, half: int | None = None) -> Product:
    weight = np.random.default_rng(k * n).standard_normal((k, n)).astype(np.float32)
    return Product("p", "p", "out_proj", 0, "x", weight, half)


def observed(rows: NDArray[np.float32]) -> Observed:
    parts = np.array_split(np.abs(rows), GROUPS)
    return Observed(np.stack([part.max(axis=0) for part in parts]), rows)


def normal(k: int = 32, rows: int = 512) -> NDArray[np.float32]:
    return np.random.default_rng(k).standard_normal((rows, k)).astype(np.float32)


def test_even_activations_are_smoothed_for_nothing_and_no_more() -> None:
    wide = product(160, 640)
    layer = decide(wide, observed(normal(160)), "int8", "static", free=True)
    assert layer.digits == 1
    assert layer.error is not None
    assert layer.error < TABLE["int8"].product_l2
    plain = decide(wide, observed(normal(160)), "int8", "static", free=False)
    assert plain.smoothing is None
    assert plain.error is not None
    assert plain.error < TABLE["int8"].product_l2
    # With few inputs a second digit costs little: the target is a lower one.
    few = decide(product(32, 128), observed(normal()), "int8", "static", free=True)
    assert few.digits == 2


def test_channels_of_other_sizes_are_smoothed() -> None:
    rows = normal(160) * np.geomspace(0.1, 30, 160).astype(np.float32)
    layer = decide(product(160, 640), observed(rows), "int8", "static", free=True)
    assert layer.smoothing is not None
    factors = np.array(layer.smoothing)
    assert factors[-1] > 10 * factors[0]
    assert layer.digits == 1


def test_a_heavy_tail_gets_two_digits_and_room() -> None:
    rows = normal()
    rows[3, 5] = 200.0
    layer = decide(product(), observed(rows), "int8", "static", free=False)
    assert layer.digits == 2
    assert layer.scale is not None
    assert layer.scale * TABLE["int8"].largest >= 800
    assert layer.error is not None
    single = LayerPlan("p", 200 / 127)
    wanted = rows @ product().weight
    assert layer.error < 0.1 * error_of(product(), single, observed(rows), "int8", wanted)
    # Each row with a scale of its own has no use for one.
    assert decide(product(), observed(rows), "int8", "per-token", free=False).digits == 1


def test_reach_is_beyond_what_was_seen_the_more_the_parts_differ() -> None:
    even = np.full((8, 1), 2.0, np.float32)
    uneven = np.array([[1], [1.2], [0.9], [1.1], [2.0], [1.0], [1.3], [1.1]], np.float32)
    assert reach_of(even).tolist() == [2.0]
    (reach,) = reach_of(uneven)
    assert 2.0 < reach <= 4.0
    assert reach_of(even[:1]).tolist() == [2.0]
    # Gumbel's law: of ten times as many parts with beta 1 the largest is expected ln 10 further.
    draws = np.random.default_rng(0).gumbel(20, 1, (8, 4000)).astype(np.float32)
    expected = 20 + 0.5772 + np.log(80)
    assert abs(float(reach_of(draws).mean()) - expected) < 0.25


def test_smoothing_of_channels_that_are_silent_is_one() -> None:
    peak = np.array([0.0, 1.0, 4.0], np.float32)
    weight = np.array([[1, 2], [0, 0], [1, 1]], np.float32)
    found = smoothing_of(Product("p", "p", "in_proj", 0, "x", weight), peak, 0.5)
    assert np.isfinite(found).all()
    assert (found > 0).all()


def test_silent_activations_have_a_plan() -> None:
    silent = Observed(np.zeros((8, 32), np.float32), np.zeros((64, 32), np.float32))
    layer = decide(product(), silent, "int8", "static", free=False)
    assert layer.scale == 1.0
    assert layer.error == 0.0
    assert np.isfinite(weights_of(product(), layer, silent, "int8").astype(float)).all()


def test_a_watch_sees_halves_patches_and_parts() -> None:
    values = {"x": GENERATOR.standard_normal((2, 4, 5, 32)).astype(np.float32)}
    watch = Watch([product(half=1)], pictures=8, seed=0)
    watch.see(values, 4)
    watch.see(values, 4)
    found = watch.seen()["p"]
    assert found.peaks.shape == (8, 32)
    second = np.abs(values["x"][1]).max(axis=1)
    np.testing.assert_array_equal(found.peaks, np.concatenate([second, second]))
    assert len(found.rows) == 40
    patches = Product("p", "p", "patch_embed", None, "x", np.ones((12, 5), np.float32),
                      kernel=(2, 2, 2, 2))  # fmt: skip
    picture = np.arange(48, dtype=np.float32).reshape(1, 3, 4, 4)
    rows = patches.rows_of(picture)
    assert rows.shape == (4, 12)
    np.testing.assert_array_equal(rows[1], picture[0, :, :2, 2:].reshape(-1))


def test_activations_that_are_not_finite() -> None:
    watch = Watch([product()], pictures=1, seed=0)
    watch.see({"x": np.full((1, 3, 32), np.nan, np.float32)}, 1)
    with pytest.raises(VimDeployError, match="VIM-430"):
        watch.seen()
