"""Models too large for one file, with the limit lowered: what is written, replaced and refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from vim_deploy.artifact import onnx_file
from vim_deploy.artifact.onnx_rules import names_of, tensors_of
from vim_deploy.errors import VimDeployError
from vim_deploy.files import remove_leftovers
from vim_deploy.onnx_graph import without_weights

WEIGHTS = np.arange(1024, dtype=np.float32).reshape(32, 32)


def model_of(scale: float = 1.0) -> onnx.ModelProto:
    """image @ weights, reshaped by a small constant."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("MatMul", ["image", "weights"], ["product"]),
        helper.make_node("Reshape", ["product", "shape"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(WEIGHTS * np.float32(scale), "weights"),
        numpy_helper.from_array(np.array([-1, 4, 8], np.int64), "shape"),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("image", 1, ["b", 32])], [value("logits", 1, ["b", 4, 8])], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "WEIGHTS_LIMIT", 4000)


def write(path: Path, scale: float = 1.0) -> None:
    with onnx_file.model_output(model_of(scale), path):
        pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": np.eye(32, dtype=np.float32)})[0].reshape(32, 32)


def test_the_limit_is_protobufs() -> None:
    # Nodes and names must fit beside the weights.
    assert 2**30 < onnx_file.WEIGHTS_LIMIT < 2**31 - 1 - 2**20
    assert not onnx_file.is_large(model_of())


def test_a_small_model_is_one_file(tmp_path: Path) -> None:
    write(tmp_path / "m.onnx")
    assert names(tmp_path) == ["m.onnx"]
    np.testing.assert_array_equal(run(tmp_path / "m.onnx"), WEIGHTS)


@pytest.mark.usefixtures("low_limit")
def test_a_large_model_is_two_files_and_runs_in_place_and_before(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with onnx_file.model_output(model_of(), path) as temporary:
        assert not path.exists()
        np.testing.assert_array_equal(run(temporary), WEIGHTS)
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
    assert (tmp_path / "m.onnx.data").stat().st_size == WEIGHTS.nbytes
    np.testing.assert_array_equal(run(path), WEIGHTS)
    raw = onnx.load(path, load_external_data=False)
    # Shapes stay in the model: runtimes read them while they load it.
    assert [uses_external_data(tensor) for tensor in raw.graph.initializer] == [True, False]
    assert names_of(tensors_of(raw)) == ["m.onnx.data"]
    loaded = onnx_file.read_onnx(path).model
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), WEIGHTS)
    onnx.checker.check_model(str(path), full_check=True)


@pytest.mark.usefixtures("low_limit")
def test_two_files_can_be_moved_together(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "m.onnx")
    (tmp_path / "a").rename(tmp_path / "b")
    np.testing.assert_array_equal(run(tmp_path / "b" / "m.onnx"), WEIGHTS)


@pytest.mark.usefixtures("low_limit")
def test_both_files_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write(path)
    write(path, scale=2)
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
    np.testing.assert_array_equal(run(path), 2 * WEIGHTS)


def test_a_smaller_model_takes_the_old_weights_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(onnx_file, "WEIGHTS_LIMIT", 4000)
        write(path)
    write(path, scale=3)
    assert names(tmp_path) == ["m.onnx"]
    np.testing.assert_array_equal(run(path), 3 * WEIGHTS)


def test_somebody_elses_data_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    (tmp_path / "m.onnx.data").write_text("not ours")
    for _ in range(2):
        write(path)
    assert onnx_file.owned_data(path) is None
    assert (tmp_path / "m.onnx.data").read_text() == "not ours"


def _write_and_fail(path: Path) -> None:
    with onnx_file.model_output(model_of(5), path) as temporary:
        assert run(temporary).max() == 5 * WEIGHTS.max()
        raise RuntimeError("differs")


@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_check_changes_nothing(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "m.onnx"
    if existing:
        write(path)
    before = names(tmp_path)
    with pytest.raises(RuntimeError, match="differs"):
        _write_and_fail(path)
    assert names(tmp_path) == before
    if existing:
        np.testing.assert_array_equal(run(path), WEIGHTS)


@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("failing", ["m.onnx", "m.onnx.data"])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interruption_between_the_renames_leaves_both_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, existing: bool
) -> None:
    path = tmp_path / "m.onnx"
    if existing:
        write(path)
    before = names(tmp_path)
    replace = Path.replace

    def stopped(self: Path, target: Path | str) -> Path:
        # Not when an old file is put back.
        if Path(target).name == failing and not stops:
            stops.append(self)
            raise KeyboardInterrupt
        return replace(self, target)

    stops: list[Path] = []
    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt), onnx_file.model_output(model_of(7), path):
        pass
    monkeypatch.undo()
    assert stops
    assert names(tmp_path) == before
    if existing:
        np.testing.assert_array_equal(run(path), WEIGHTS)


@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("spoil", ["missing", "short"])
def test_a_model_without_its_weights_is_not_readable(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "m.onnx"
    write(path)
    data = onnx_file.data_path(path)
    if spoil == "missing":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(VimDeployError) as caught:
        onnx_file.read_onnx(path)
    assert caught.value.code == "VIM-409"


@pytest.mark.usefixtures("low_limit")
def test_leftovers_of_a_killed_run_go(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for name in (".m.onnx.abcd1234.part", ".m.onnx.data.abcd1234.part"):
        (tmp_path / name).write_text("half")
    remove_leftovers(path)
    remove_leftovers(onnx_file.data_path(path))
    assert names(tmp_path) == []


def test_weights_as_inputs_give_the_same_shapes() -> None:
    bare = without_weights(model_of())
    assert [tensor.name for tensor in bare.graph.initializer] == ["shape"]
    assert [value.name for value in bare.graph.input] == ["image", "weights"]
    onnx.checker.check_model(bare, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    (product,) = (value for value in inferred.graph.value_info if value.name == "product")
    assert product.type.tensor_type.shape.dim[1].dim_value == 32


@pytest.mark.usefixtures("low_limit")
def test_a_name_that_no_model_can_hold(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xe9.onnx")
    with (
        pytest.raises(VimDeployError, match="UTF-8") as caught,
        onnx_file.model_output(model_of(), path),
    ):
        pass
    assert caught.value.code == "VIM-304"
    assert not list(tmp_path.iterdir())
