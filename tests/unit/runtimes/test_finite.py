"""Outputs that can be judged, and what is said of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import (
    Array,
    Runner,
    finite_rows,
    is_finite,
    require_fit,
    run_padded,
    strays,
    unfit,
)
from vim_deploy.specs import TensorSpec

FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("stray", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_of_every_float_are_found(dtype: Any, stray: float) -> None:
    values = np.zeros((3, 2, 2)).astype(dtype)
    assert is_finite(values)
    assert finite_rows(values).tolist() == [True] * 3
    values[1, 0, 1] = stray
    assert not is_finite(values)
    assert strays(values) == 1
    assert finite_rows(values).tolist() == [True, False, True]
    assert unfit({"y": values}) == "1 of 12 values of output 'y' are NaN or Inf"
    with pytest.raises(VimDeployError, match="VIM-430"):
        require_fit({"n": np.zeros((3, 1), np.int64), "y": values}, "a picture")


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, *FLOATS])
def test_numbers_are_fit(dtype: Any) -> None:
    require_fit({"y": np.ones((2, 3)).astype(dtype)}, "a picture")


def test_nothing_is_not_fit() -> None:
    assert "no outputs" in unfit({})
    assert "holds no values" in unfit({"y": np.zeros((2, 0), np.int64)})
    assert finite_rows(np.zeros((2, 0), np.float32)).tolist() == [True, True]
    assert finite_rows(np.array([1.0, np.nan])).tolist() == [True, False]


@pytest.mark.parametrize(
    "outputs",
    [{}, {"y": np.zeros((1, 4))}, {"y": np.zeros(())}, {"y": np.zeros((3, 0))},
     {"y": np.zeros((3, 4)), "z": np.zeros((5, 4))}],
)  # fmt: skip
def test_an_answer_that_is_not_one_for_each_image_is_refused(
    outputs: Mapping[str, np.ndarray],
) -> None:
    class Answering(Runner):
        input = TensorSpec("image", "float32", ("batch", 1))

        def run(self, image: Array, size: Any = None) -> Mapping[str, Array]:
            return outputs

    with pytest.raises(VimDeployError) as caught:
        run_padded(Answering(), np.zeros((3, 1), np.float32))
    assert caught.value.code == "VIM-415"
