"""The python backend's model.py with a detector: two inputs, joined, split and checked together."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.detectors import stand_in
from tests.unit.packaging.test_package_python_model import Tensor, fake_utils
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages import package
from vim_deploy.stages.packaging import PackageOptions

pytest.importorskip("onnxruntime")

SIDE = 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package for the python backend."""
    folder = tmp_path_factory.mktemp("detector")
    path = stand_in(folder / "finder.onnx", SIDE)
    serving = ServingOptions(runtime="python", max_batch=8)
    return package(path, folder / "made", PackageOptions(serving)).folder


@pytest.fixture
def model(made: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package's model.py with a stand-in for Triton's module, as the backend starts it."""
    utils = fake_utils()
    types = {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64}
    utils.triton_string_to_numpy = types.__getitem__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    monkeypatch.setattr(np, "__version__", "1.26.4")
    folder = made / "models/finder"
    found = runpy.run_path(str(folder / "1/model.py"))["TritonPythonModel"]()
    config = {
        "max_batch_size": 32,
        "input": [
            {"name": "image", "data_type": "TYPE_FP32", "dims": [3, SIDE, SIDE]},
            {"name": "size", "data_type": "TYPE_INT64", "dims": [2]},
        ],
        "output": [{"name": name} for name in ("boxes", "scores", "classes", "masks", "count")],
    }
    found.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(folder),
            "model_version": "1",
        }
    )
    return found


def request(images: np.ndarray, sizes: np.ndarray) -> SimpleNamespace:
    inputs = {"image": Tensor("image", images), "size": Tensor("size", sizes)}
    return SimpleNamespace(inputs=inputs, requested_output_names=list)


def images_of(rows: int) -> np.ndarray:
    random = np.random.default_rng(rows)
    return random.standard_normal((rows, 3, SIDE, SIDE)).astype(np.float32)


def test_the_backend_joins_and_splits_both_inputs(model: Any, made: Path) -> None:
    runner = OrtRunner(made / "models/finder/1/model.onnx")
    given = [
        (images_of(1), np.array([[SIDE, 20]])),
        (images_of(3), np.array([[9, SIDE], [0, 0], [1, 1]])),
    ]
    found = model.execute([request(*arrays) for arrays in given])
    for arrays, answer in zip(given, found, strict=True):
        assert answer.error is None
        for name, wanted in runner.run(*arrays).items():
            # Sums in another order.
            np.testing.assert_allclose(answer.tensors[name], wanted, rtol=1e-5, atol=1e-6)


def test_a_bad_size_spoils_no_other_request(model: Any) -> None:
    good, nan = np.array([[SIDE, SIDE]]), images_of(1)
    nan[0, 0, 0, 0] = np.nan
    bad = [
        (request(images_of(1), np.array([[SIDE + 1, 3]])), "65 x 3 pixels in an input of 64 x 64"),
        (request(images_of(1), np.array([[3, -1]])), "3 x -1 pixels"),
        (request(images_of(1), np.array([[3.0, 1.0]])), "input 'size' is float64"),
        (request(images_of(1), np.array([[3, 1, 2]])), "expected int64 [2]"),
        (request(images_of(2), good), "different numbers of rows: {'image': 2, 'size': 1}"),
        (request(nan, good), "1 of 12288 values of the input 'image' are NaN or infinite"),
    ]
    alone = request(images_of(1), good)
    del alone.inputs["size"]
    bad.append((alone, "no input 'size'"))
    answers = model.execute([request(images_of(1), good), *(item for item, _ in bad)])
    assert answers[0].error is None
    for answer, (_, why) in zip(answers[1:], bad, strict=True):
        assert why in answer.error
