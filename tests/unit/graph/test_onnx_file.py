"""What comes in as an ONNX file, and what is refused at the door."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vim_deploy.errors import VimDeployError
from vim_deploy.graph.onnx_file import read_model

Change = Callable[[onnx.ModelProto], object]


def model() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
    body = helper.make_function(
        "own", "Body", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "w"], ["m"], name="mul"),
         helper.make_node("Body", ["m"], ["logits"], domain="own", name="call")],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [weight],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[body], ir_version=9)


def read(tmp_path: Path, change: Change | None = None) -> onnx.ModelProto:
    changed = model()
    if change is not None:
        change(changed)
    path = tmp_path / "m.onnx"
    path.write_bytes(changed.SerializeToString())
    return read_model(path)


def test_what_is_sound_comes_in(tmp_path: Path) -> None:
    assert read(tmp_path) == model()
    for array in (np.zeros((0, 3), np.int64), np.array(1.0), np.array([True]), np.float16([1, 2]),
                  np.uint64([1]), np.array([b"text"], object)):  # fmt: skip
        tensor = numpy_helper.from_array(array, "x")
        read(tmp_path, lambda m, tensor=tensor: m.graph.initializer.append(tensor))
    for kind, count in ((TensorProto.BFLOAT16, 3), (TensorProto.INT4, 3), (TensorProto.UINT32, 2),
                        (TensorProto.COMPLEX64, 2), (TensorProto.DOUBLE, 2)):  # fmt: skip
        typed = helper.make_tensor("x", kind, [count], [1] * count)
        read(tmp_path, lambda m, typed=typed: m.graph.initializer.append(typed))


def calls_itself(changed: onnx.ModelProto) -> None:
    changed.functions[0].node[0].op_type, changed.functions[0].node[0].domain = "Body", "own"


def calls_itself_in_a_branch(changed: onnx.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("Body", ["a"], ["c"], domain="own")], "g", [], [])
    changed.functions[0].node.append(helper.make_node("If", ["a"], ["d"], then_branch=inner))


def doubling(changed: onnx.ModelProto) -> None:
    """Forty functions, each of which calls the one before twice."""
    for number in range(40):
        before = f"F{number - 1}" if number else "Body"
        nodes = [helper.make_node(before, ["a"], [name], domain="own") for name in ("b", "c")]
        opsets = [helper.make_opsetid("own", 1)]
        changed.functions.append(
            helper.make_function("own", f"F{number}", ["a"], ["b"], nodes, opsets)
        )


def nested(changed: onnx.ModelProto) -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["a"], ["b"], then_branch=graph)],
                                  "g", [], [])  # fmt: skip
    changed.graph.node.extend(graph.node)


def kind_of(changed: onnx.ModelProto) -> onnx.TypeProto.Tensor:
    return changed.graph.input[0].type.tensor_type


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.ClearField("graph"), "no nodes"),
        (lambda m: m.ClearField("opset_import"), "which version"),
        (lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx", 17)), "which version"),
        (lambda m: setattr(m.opset_import[0], "version", -1), "which version"),
        (lambda m: setattr(kind_of(m), "elem_type", 99), "known type"),
        (lambda m: m.graph.input[0].ClearField("type"), "known type"),
        (lambda m: m.graph.output[0].ClearField("type"), "known type"),
        (lambda m: setattr(m.graph.input[0], "name", ""), "names of their own"),
        (lambda m: m.graph.output.append(m.graph.output[0]), "names of their own"),
        (lambda m: setattr(kind_of(m).shape.dim[1], "dim_value", -3), "sizes"),
        (lambda m: setattr(kind_of(m).shape.dim[1], "dim_value", 1 << 40), "sizes"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 0), "known type"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 77), "known type"),
        (lambda m: setattr(m.graph.initializer[0], "raw_data", b"123"), "its shape needs 24"),
        (lambda m: m.graph.initializer[0].ClearField("raw_data"), "its shape needs 6"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 1 << 30), "its shape needs"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, -1), "sizes"),
        (lambda m: m.graph.initializer[0].dims.extend([1 << 30, 1 << 30]), "sizes"),
        (lambda m: m.graph.node[0].ClearField("op_type"), "no operator"),
        (
            lambda m: m.graph.node[0].attribute.extend(
                [helper.make_attribute("a", 1), helper.make_attribute("a", 2)]
            ),
            "attribute twice",
        ),
        (lambda m: m.graph.node[0].attribute.add(name="a"), "no such value"),
        (lambda m: m.graph.node[0].attribute.add(name="a", type=4), "no such value"),
        (calls_itself, "calls itself"),
        (calls_itself_in_a_branch, "calls itself"),
        (doubling, "more than 1000000 nodes"),
        (lambda m: m.functions.append(m.functions[0]), "one name"),
        (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "names of their own"),
        (lambda m: m.graph.initializer[0].ClearField("name"), "names of their own"),
        (lambda m: m.graph.initializer[0].segment.SetInParent(), "part of another"),
        (nested, "deep within each other"),
    ],
)
def test_what_later_code_cannot_walk_is_refused_in_words(
    tmp_path: Path, change: Change, why: str
) -> None:
    with pytest.raises(VimDeployError, match=why) as caught:
        read(tmp_path, change)
    assert caught.value.code == "VIM-409"


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../beside", "a/../../b", "..\\b", "", "absent.data", "short.data"]
)
def test_weights_from_elsewhere(tmp_path: Path, location: str) -> None:
    (tmp_path.parent / "beside").write_bytes(bytes(24))
    (tmp_path / "short.data").write_bytes(bytes(4))

    def change(changed: onnx.ModelProto) -> None:
        tensor = changed.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    with pytest.raises(VimDeployError) as caught:
        read(tmp_path, change)
    assert caught.value.code == "VIM-409"


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x07\x12", bytes(100), b"\x0a" * 5000])
def test_what_is_no_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(VimDeployError) as caught:
        read_model(tmp_path / "m.onnx")
    assert caught.value.code == "VIM-409"
