"""The python backend's model.py, with a stand-in for Triton's module."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.support.packages import SIZES, classifier, own_op_classifier
from vim_deploy.packaging.native_ops import OPS_LIBRARY
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.runtimes.onnxruntime import capability
from vim_deploy.stages import package
from vim_deploy.stages.packaging import PackageOptions

onnxruntime = pytest.importorskip("onnxruntime")


class Tensor:
    """Of the stand-in: a name and an array."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> np.ndarray:
        return self.array


class Logger:
    """Of the stand-in: what was logged."""

    lines: ClassVar[list[str]] = []

    @classmethod
    def log_info(cls, line: str) -> None:
        cls.lines.append(f"I {line}")

    @classmethod
    def log_warn(cls, line: str) -> None:
        cls.lines.append(f"W {line}")


def fake_utils() -> ModuleType:
    """What model.py uses of ``triton_python_backend_utils``."""
    module = ModuleType("triton_python_backend_utils")
    types = {"TYPE_FP32": np.float32, "TYPE_UINT8": np.uint8}
    module.triton_string_to_numpy = types.__getitem__  # type: ignore[attr-defined]
    module.get_input_tensor_by_name = lambda request, name: request.inputs.get(name)  # type: ignore[attr-defined]
    module.Tensor = Tensor  # type: ignore[attr-defined]
    module.Logger = Logger  # type: ignore[attr-defined]
    module.TritonError = str  # type: ignore[attr-defined]
    module.InferenceResponse = lambda output_tensors=(), error=None: SimpleNamespace(  # type: ignore[attr-defined]
        tensors={tensor.name: tensor.array for tensor in output_tensors}, error=error
    )
    return module


def request(array: Any, name: str = "image", wanted: tuple[str, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(
        inputs={name: Tensor(name, array)}, requested_output_names=lambda: list(wanted)
    )


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return start(tmp_path, monkeypatch)


def start(folder: Path, monkeypatch: pytest.MonkeyPatch, batch: int | str = "batch") -> Any:
    """The model of a package, initialised as the backend does it."""
    path = classifier(folder / "toy.onnx", batch)
    options = PackageOptions(ServingOptions(runtime="python"))
    made = package(path, folder / "made", options).folder / "models" / "toy"
    return initialised(made, monkeypatch, (2,) if isinstance(batch, int) else ())


def initialised(
    made: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...] = (), ops: str = ""
) -> Any:
    """The model of the folder ``made``, with a batch in its sizes or a dynamic one."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake_utils())
    monkeypatch.setattr(np, "__version__", "1.26.4")
    monkeypatch.setattr(Logger, "lines", [])
    model = runpy.run_path(str(made / "1" / "model.py"))["TritonPythonModel"]()
    config: dict[str, Any] = {
        "max_batch_size": 0 if sizes else 32,
        "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": [*sizes, *map(str, SIZES)]}],
        "output": [{"name": "logits"}],
        "parameters": {"THREADS": {"string_value": "1"}},
    }
    if ops:
        config["parameters"]["OPS_LIBRARY"] = {"string_value": ops}
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(made),
            "model_version": "1",
        }
    )
    return model


def images(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, *SIZES)).astype(np.float32)


def expected(model: Any, array: np.ndarray) -> np.ndarray:
    return np.asarray(model.session.run(["logits"], {"image": array})[0])


def test_requests_are_joined_and_split(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = [images(rows, rows) for rows in (1, 3, 2)]
    calls = []
    session = started.session

    def counted(names: list[str], feeds: dict[str, np.ndarray]) -> Any:
        calls.append(len(feeds["image"]))
        return session.run(names, feeds)

    monkeypatch.setattr(started, "session", SimpleNamespace(run=counted))
    answers = started.execute([request(array) for array in arrays])
    assert calls == [6]
    monkeypatch.setattr(started, "session", session)
    for array, answer in zip(arrays, answers, strict=True):
        assert answer.error is None
        np.testing.assert_allclose(answer.tensors["logits"], expected(started, array), atol=1e-6)


def test_a_bad_request_spoils_no_other(started: Any) -> None:
    bad = [
        request(images(1).astype(np.float64)),
        request(np.zeros((1, 9), np.float32)),
        request(images(1), name="other"),
    ]
    answers = started.execute([bad[0], request(images(2)), bad[1], request(images(1, 5)), bad[2]])
    assert [answer.error is None for answer in answers] == [False, True, False, True, False]
    assert "float64" in answers[0].error
    assert "expected float32" in answers[2].error
    assert "no input 'image'" in answers[4].error
    np.testing.assert_allclose(
        answers[3].tensors["logits"], expected(started, images(1, 5)), atol=1e-6
    )


def test_only_the_request_that_fails_in_the_model_fails(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = started.session

    def run(names: list[str], feeds: dict[str, np.ndarray]) -> Any:
        if np.isnan(feeds["image"]).any():
            raise RuntimeError("no such number")
        return session.run(names, feeds)

    monkeypatch.setattr(started, "session", SimpleNamespace(run=run))
    poisoned = images(1)
    poisoned[0, 0, 0, 0] = np.nan
    answers = started.execute([request(images(1)), request(poisoned), request(images(2))])
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert "no such number" in answers[1].error


def test_only_wanted_outputs(started: Any) -> None:
    (answer,) = started.execute([request(images(1), wanted=("logits",))])
    assert list(answer.tensors) == ["logits"]
    assert answer.tensors["logits"].flags["C_CONTIGUOUS"]


def test_a_fixed_batch_runs_each_request_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = start(tmp_path, monkeypatch, 2)
    answers = model.execute([request(images(2, 1)), request(images(3)), request(images(2, 2))])
    assert [answer.error is None for answer in answers] == [True, False, True]
    np.testing.assert_allclose(
        answers[2].tensors["logits"], expected(model, images(2, 2)), atol=1e-6
    )


def test_numpy_2_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = start(tmp_path, monkeypatch)
    monkeypatch.setattr(np, "__version__", "2.4.6")
    with pytest.raises(RuntimeError, match="numpy<2"):
        model.initialize({})


def test_other_outputs_than_configured_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = start(tmp_path, monkeypatch)
    config = {
        "max_batch_size": 32,
        "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": ["1", "2", "3"]}],
        "output": [{"name": "scores"}],
    }
    arguments = {
        "model_config": json.dumps(config),
        "model_repository": str(tmp_path / "made" / "models" / "toy"),
        "model_version": "1",
    }
    with pytest.raises(RuntimeError, match="scores"):
        model.initialize(arguments)


def test_the_template_opens_no_network_and_no_pickle() -> None:
    from vim_deploy.packaging.scripts import unchanged

    text = unchanged("served/model.py")
    for word in ("pickle", "socket", "http", "urllib", "eval(", "exec(", "subprocess"):
        assert word not in text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_no_number_is_an_error_of_its_request(started: Any, bad: float) -> None:
    poisoned = images(2)
    poisoned[1, 0, 0, 0] = bad
    answers = started.execute([request(images(1)), request(poisoned), request(images(2))])
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert "1 of 12 values of the input 'image' are NaN or infinite" in answers[1].error
    np.testing.assert_allclose(
        answers[2].tensors["logits"], expected(started, images(2)), atol=1e-6
    )


def test_classes_that_came_of_no_number_are_an_error(started: Any) -> None:
    """A network that gives classes alone turns NaN into one of them."""
    poisoned = images(1)
    poisoned[0, 0, 0, 0] = np.nan
    classes = {"logits": np.zeros((1, 2, 2), np.int64)}
    assert started.response(request(images(1)), classes).error is None
    answer = started.response(request(poisoned), classes)
    assert "1 of 6 values of the input 'image' are NaN or infinite" in answer.error


@pytest.mark.parametrize("rows", [0, 33])
def test_a_batch_beyond_the_configured_one_is_refused(started: Any, rows: int) -> None:
    answers = started.execute([request(images(rows)), request(images(1))])
    assert f"{rows} rows, expected 1 to 32" in answers[0].error
    assert answers[1].error is None


@pytest.fixture
def with_ops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's folder in a package that carries native ops."""
    from tests.support.ort_ops import built_library

    monkeypatch.setenv("VIM_DEPLOY_ORT_OPS", str(built_library()))
    path = own_op_classifier(tmp_path / "toy.onnx")
    options = PackageOptions(ServingOptions(runtime="python"))
    return package(path, tmp_path / "made", options).folder / "models" / "toy"


def test_native_ops_run_where_they_load(with_ops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = initialised(with_ops, monkeypatch, ops=OPS_LIBRARY)
    (line,) = Logger.lines
    assert line.startswith("I model.onnx runs on native ops (vim_ort_cpu 0.1.0, ")
    entry = capability._OPS_THREADS
    assert model.session.get_session_options().get_session_config_entry(entry) == "1"
    (answer,) = model.execute([request(images(3))])
    bodies = initialised(with_ops, monkeypatch)
    assert Logger.lines == []
    wanted = expected(bodies, images(3))
    # float32 sums of eight terms in another order.
    np.testing.assert_allclose(answer.tensors["logits"], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("broken", ["library", "runtime", "missing"])
def test_without_them_the_file_runs_and_the_log_says_why(
    with_ops: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    wanted = expected(initialised(with_ops, monkeypatch), images(3))
    library = with_ops / "1" / OPS_LIBRARY
    if broken == "library":
        library.write_bytes(b"\x7fELF of another machine")
    elif broken == "missing":
        library.unlink()
    else:
        monkeypatch.setattr(onnxruntime, "__version__", "1.16.3")
    model = initialised(with_ops, monkeypatch, ops=OPS_LIBRARY)
    (line,) = Logger.lines
    assert line.startswith("W model.onnx runs without native ops: ")
    assert ("1.16.3 is too old" if broken == "runtime" else OPS_LIBRARY) in line
    (answer,) = model.execute([request(images(3))])
    np.testing.assert_array_equal(answer.tensors["logits"], wanted)
