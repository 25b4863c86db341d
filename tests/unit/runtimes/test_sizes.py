"""Models that are told the sizes of pictures: the second input, in every runtime that is here."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.support import detectors
from vim_deploy.artifact import Artifact
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import Array, Runner, run_in_batches, run_padded
from vim_deploy.runtimes.onnxruntime.explicit_rounding import round_explicitly
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.runtimes.openvino.runner import OpenVinoRunner
from vim_deploy.runtimes.torch.runner import ModuleRunner
from vim_deploy.specs import TensorSpec

SIDE, ROWS = 16, 5
NAMES = ("boxes", "scores", "classes", "masks", "count")
SIZES = np.array([[16, 16], [9, 16], [0, 0], [1, 1], [16, 3]])


def saved(path: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, path)
    return path


class Found(torch.nn.Module):
    """Counts the pixels inside, and sums them."""

    def forward(self, image: torch.Tensor, size: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inside = [one[:, :height, :width] for one, (height, width) in zip(image, size, strict=True)]
        return torch.stack([part.sum() for part in inside]), size.prod(dim=1)


def torch_runner() -> ModuleRunner:
    spec = TensorSpec("image", "float32", ("batch", 3, SIDE, SIDE))
    runner = ModuleRunner(Found(), spec, ("sums", "count"), threads=1)
    runner.size = TensorSpec("size", "int64", ("batch", 2))
    return runner


def ort_runner(path: Path) -> Runner:
    return OrtRunner(path, threads=1)


def openvino_runner(path: Path) -> Runner:
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    return OpenVinoRunner(path, threads=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detectors")
    return saved(folder / "d.onnx", detectors.graph(SIDE, rows=ROWS))


def images(batch: int = len(SIZES)) -> Array:
    return np.random.default_rng(3).standard_normal((batch, 3, SIDE, SIDE)).astype(np.float32)


def refused(call: Callable[[], Any]) -> str:
    """What VIM-415 says."""
    with pytest.raises(VimDeployError) as caught:
        call()
    assert caught.value.code == "VIM-415"
    assert caught.value.fix
    return f"{caught.value.message}: {caught.value.why}"


@pytest.mark.parametrize("opened", [ort_runner, openvino_runner])
def test_the_picture_alone_counts_and_every_output_has_its_rows(
    path: Path, opened: Callable[[Path], Runner]
) -> None:
    batch = images()
    with opened(path) as runner:
        assert runner.size == TensorSpec("size", "int64", ("batch", 2))
        assert runner.outputs == NAMES
        found = runner.run(batch, SIZES)
        assert {name: value.shape for name, value in found.items()} == {
            "boxes": (5, ROWS, 4),
            "scores": (5, ROWS),
            "classes": (5, ROWS),
            "masks": (5, ROWS, 28, 28),
            "count": (5,),
        }
        assert found["classes"].dtype == found["count"].dtype == np.int64
        filled = detectors.detections_of(ROWS)
        assert found["count"].tolist() == [filled, filled, 0, filled, filled]
        assert not any(found[name][2].any() for name in NAMES)
        # What lies outside does not matter; what lies inside does.
        outside = batch.copy()
        outside[1, :, 9:] = 7
        again = runner.run(outside, SIZES)
        assert all(np.array_equal(found[name], again[name]) for name in NAMES)
        whole = runner.run(outside)
        assert not np.array_equal(found["scores"][1], whole["scores"][1])
        full = np.full((5, 2), SIDE)
        assert all(np.array_equal(whole[name], runner.run(outside, full)[name]) for name in NAMES)
        # The first batches have networks of their own in OpenVINO, and later ones share one.
        for count in (1, 2, 3, 4):
            part = runner.run(batch[:count], SIZES[:count])
            for name in NAMES:
                np.testing.assert_allclose(part[name], found[name][:count], rtol=1e-6, atol=1e-6)


def test_the_module_is_given_both() -> None:
    batch, runner = images(), torch_runner()
    found = runner.run(batch, SIZES)
    assert found["count"].tolist() == [256, 144, 0, 1, 48]
    assert found["sums"][3] == batch[3, :, 0, 0].sum()
    assert runner.run(batch)["count"].tolist() == [256] * 5


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (SIZES[:4], r"found int64 [4, 2], expected int64 [5, 2]"),
        (SIZES.ravel(), r"found int64 [10], expected int64 [5, 2]"),
        (SIZES.astype(np.float32), r"found float32 [5, 2], expected int64 [5, 2]"),
        (SIZES.astype(bool), r"found bool [5, 2], expected int64 [5, 2]"),
        (SIZES.tolist(), r"found list, expected int64 [5, 2]"),
        (SIZES - 1, r"not within the input: found [-1, -1], the input has [16, 16]"),
        (
            SIZES + np.array([[0, 0], [8, 0], [0, 0], [0, 0], [0, 0]]),
            "found [17, 16], the input has [16, 16]",
        ),
        (SIZES.astype(np.uint64) - np.uint64(1), "not within the input"),
    ],
)
def test_other_sizes_are_refused(size: Any, says: str) -> None:
    runner = torch_runner()
    assert says in refused(lambda: runner.run(images(), size))


def test_sizes_for_a_model_that_takes_none() -> None:
    runner = torch_runner()
    runner.size = None
    assert "takes no sizes" in refused(lambda: runner.run(images(), SIZES))


def test_other_whole_numbers_are_taken(path: Path) -> None:
    with ort_runner(path) as runner:
        found = runner.run(images(), SIZES)
        for kind in (np.int32, np.uint8, ">i8"):
            again = runner.run(images(), SIZES.astype(kind))
            assert all(np.array_equal(found[name], again[name]) for name in NAMES)


def test_padded_rows_have_the_last_size(tmp_path: Path) -> None:
    model = detectors.graph(SIDE, rows=ROWS, batch=4)
    with ort_runner(saved(tmp_path / "d.onnx", model)) as runner:
        given: list[list[list[int]]] = []
        original = runner.run

        def noted(image: Array, size: Array | None = None) -> Any:
            given.append([] if size is None else size.tolist())
            return original(image, size)

        runner.run = noted  # type: ignore[method-assign]
        found = run_in_batches(runner, images(), 4, SIZES)
        assert given == [SIZES[:4].tolist(), [SIZES[4].tolist()] * 4]
        assert {name: len(value) for name, value in found.items()} == dict.fromkeys(NAMES, 5)
        assert found["count"].tolist() == [4, 4, 0, 4, 4]
        # Cut into batches, sizes too many or too few would be taken for others.
        for wrong in (SIZES[:4], np.repeat(SIZES, 2, axis=0), 3):
            assert "not those" in refused(lambda size=wrong: run_padded(runner, images(), size))
            assert "not those" in refused(
                lambda size=wrong: run_in_batches(runner, images(), 4, size)
            )


def halves(model: onnx.ModelProto) -> onnx.ModelProto:
    """The picture, and what is computed of it before the mean, in float16; the rest as it was."""
    graph = model.graph
    graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    for node in graph.node:
        if node.output[0] == "zero":
            node.attribute[0].t.CopyFrom(helper.make_tensor("", TensorProto.FLOAT16, [], [0.0]))
        if node.output[0] == "mean":
            node.output[0] = "mean_half"
            at = list(graph.node).index(node) + 1
    graph.node.insert(at, helper.make_node("Cast", ["mean_half"], ["mean"], to=TensorProto.FLOAT))
    first = helper.make_node("Constant", [], ["zero_float"], value_float=0.0)
    graph.node.insert(0, first)
    for node in graph.node:
        if node.op_type == "Where" and node.output[0] != "picture" and node.input[2] == "zero":
            node.input[2] = "zero_float"
    onnx.checker.check_model(model, full_check=True)
    return model


def test_a_half_picture_leaves_integers_and_floats_what_they_are(
    path: Path, tmp_path: Path
) -> None:
    model = halves(detectors.graph(SIDE, rows=ROWS))
    rounded = round_explicitly(model)
    kinds = [value.type.tensor_type.elem_type for value in rounded.graph.input]
    assert kinds == [TensorProto.FLOAT, TensorProto.INT64]
    # Only what touches 16 bits has casts around it.
    wide = {node.name for node in rounded.graph.node if node.op_type == "Cast"}
    assert not any("masks" in name or "size" in name for name in wide)
    half = saved(tmp_path / "h.onnx", model)
    with ort_runner(path) as plain:
        wanted = plain.run(images(), SIZES)
    for stored in (False, True):
        with OrtRunner(half, threads=1, as_stored=stored) as runner:
            assert (runner.input.dtype, runner.size.dtype) == ("float32", "int64")
            found = runner.run(images(), SIZES)
        assert {name: value.dtype for name, value in found.items()} == {
            name: value.dtype for name, value in wanted.items()
        }
        # Eleven bits of mantissa, on numbers of the size of one.
        np.testing.assert_allclose(found["scores"], wanted["scores"], atol=2**-11)
        np.testing.assert_array_equal(found["classes"], wanted["classes"])
        np.testing.assert_array_equal(found["boxes"], wanted["boxes"])


@pytest.mark.parametrize(
    ("name", "element", "shape"),
    [
        ("sizes", TensorProto.INT64, ("batch", 2)),
        ("size", TensorProto.FLOAT, ("batch", 2)),
        ("size", TensorProto.INT64, ("batch", 4)),
        ("size", TensorProto.INT64, (2,)),
        ("size", TensorProto.INT64, (3, 2)),
    ],
)
def test_other_second_inputs_are_refused(
    tmp_path: Path, name: str, element: int, shape: tuple[int | str, ...]
) -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (2, 3, SIDE, SIDE))
    other = helper.make_tensor_value_info(name, element, shape)
    ends = [helper.make_tensor_value_info(f"{item.name}_out", kind, None)
            for item, kind in ((image, TensorProto.FLOAT), (other, element))]  # fmt: skip
    nodes = [helper.make_node("Identity", [end.name[:-4]], [end.name]) for end in ends]
    graph = helper.make_graph(nodes, "two", [image, other], ends)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = saved(tmp_path / "two.onnx", model)
    said = refused(lambda: OrtRunner(path))
    assert "has 2 inputs; image, or image and size, are expected" in said
    assert name in said


def test_the_image_is_found_whichever_comes_first(tmp_path: Path) -> None:
    model = detectors.graph(SIDE, rows=ROWS)
    first, second = (onnx.ValueInfoProto(), onnx.ValueInfoProto())
    first.CopyFrom(model.graph.input[0])
    second.CopyFrom(model.graph.input[1])
    del model.graph.input[:]
    model.graph.input.extend([second, first])
    path = saved(tmp_path / "turned.onnx", model)
    assert Artifact.open(path).image_size == (SIDE, SIDE)
    with ort_runner(path) as runner:
        assert runner.input.name == "image"
        assert runner.run(images(), SIZES)["count"].tolist() == [4, 4, 0, 4, 4]
