"""The hand-made models compute what they say they compute."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support import tiny_onnx


def test_models_are_valid():
    for model in (
        tiny_onnx.perceptron(),
        tiny_onnx.perceptron(batch=3),
        tiny_onnx.elementwise({"a": ("batch", 2), "b": (None, 3)}),
        tiny_onnx.scan_blocks(layers=2),
    ):
        onnx.checker.check_model(model, full_check=True)


def test_scan_function_is_the_recurrence():
    """Against a loop over the definition in ``vim_deploy/ops/selective_scan.py``."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = tiny_onnx.scan_blocks(layers=1, length=5, width=3, state=2)
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    x = np.random.default_rng(5).standard_normal((2, 5, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"tokens": x})

    p = "layers.0."
    delta = np.log1p(np.exp(x @ weights[p + "dt_w"] + weights[p + "dt_bias"]))
    b, c = np.split(x @ weights[p + "bc_w"], 2, axis=2)
    state = np.zeros((2, 2, 3))
    expected = np.zeros_like(x)
    for step in range(5):
        rate = delta[:, step, None, :]
        added = rate * b[:, step, :, None] * x[:, step, None, :]
        state = np.exp(rate * weights[p + "A"]) * state + added
        expected[:, step] = (c[:, step, :, None] * state).sum(1) + weights[p + "D"] * x[:, step]
    # Values are of order one and 5 steps deep: a few float32 roundings.
    np.testing.assert_allclose(found, x + expected, rtol=0, atol=2e-5)
