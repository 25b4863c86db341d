"""What comes in as an ONNX file, and what is refused at the door."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.support.onnx_door import Change, model, read
from tests.support.tiny_onnx import scan_blocks
from vim_deploy.artifact import onnx_file, onnx_rules
from vim_deploy.artifact.metadata import inputs_of
from vim_deploy.artifact.onnx_file import read_onnx
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.activations import tensor_sizes
from vim_deploy.ops.functions import op_flaws


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


def retyped(changed: onnx.ModelProto) -> None:
    node = helper.make_node("Softmax", ["m"], ["s"], axis=1)
    node.attribute[0].type = AttributeProto.STRING
    changed.graph.node.append(node)


def many_calls(changed: onnx.ModelProto) -> None:
    """A function of a thousand nodes, called two thousand times."""
    changed.functions[0].node.extend(
        helper.make_node("Relu", ["a"], [f"r{number}"]) for number in range(1000)
    )
    changed.graph.node.extend(
        helper.make_node("Body", ["m"], [f"c{number}"], domain="own") for number in range(2000)
    )


def many_axes(changed: onnx.ModelProto) -> None:
    del kind_of(changed).shape.dim[:]
    for _ in range(100_000):
        kind_of(changed).shape.dim.add().dim_value = 2**31 - 1


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
        # Whose product has a million digits.
        (lambda m: m.graph.initializer[0].dims.extend([2**31 - 1] * 100_000), "100002 axes"),
        (many_axes, "100000 axes"),
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
        (many_calls, "with its functions it stands for more than 1000000 nodes"),
        (lambda m: m.functions.append(m.functions[0]), "one name"),
        (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "names of their own"),
        (lambda m: m.graph.initializer[0].ClearField("name"), "names of their own"),
        (lambda m: m.graph.initializer[0].segment.SetInParent(), "part of another"),
        (nested, "deep within each other"),
        (lambda m: setattr(kind_of(m).shape.dim[1], "dim_value", 0), "sizes"),
        (lambda m: m.graph.node[0].ClearField("output"), "writes nothing"),
        (lambda m: m.graph.node[0].input.__setitem__(0, "nowhere"), "nowhere"),
        (lambda m: m.graph.node[1].output.__setitem__(0, "m"), "SSA|single"),
        (lambda m: m.graph.node.add(op_type="Cast", output=["c"]), "input size"),
        (lambda m: m.graph.node.insert(0, m.graph.node.pop(1)), "topologically sorted"),
        (lambda m: retyped(m), "axis"),
    ],
)
def test_what_later_code_cannot_walk_is_refused_in_words(
    tmp_path: Path, change: Change, why: str
) -> None:
    with pytest.raises(VimDeployError, match=why) as caught:
        read(tmp_path, change)
    assert caught.value.code == "VIM-409"


def direction(node: onnx.NodeProto) -> AttributeProto:
    return next(attribute for attribute in node.attribute if attribute.name == "reverse")


def scan() -> onnx.NodeProto:
    return next(node for node in scan_blocks().graph.node if node.domain)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda node: node.ClearField("attribute"), "does not say reverse"),
        (lambda node: setattr(direction(node), "i", 2), "says reverse = 2"),
        (lambda node: setattr(direction(node), "i", -1), "says reverse = -1"),
        (
            lambda node: direction(node).CopyFrom(helper.make_attribute("reverse", 1.0)),
            "does not say reverse",
        ),
        (lambda node: node.input.pop(), "5 inputs and 1 outputs"),
        (lambda node: node.output.append("more"), "6 inputs and 2 outputs"),
    ],
)
def test_scans_that_break_the_contract(
    tmp_path: Path, change: Callable[[onnx.NodeProto], object], why: str
) -> None:
    changed = scan_blocks()
    change(next(node for node in changed.graph.node if node.domain))
    path = tmp_path / "m.onnx"
    path.write_bytes(changed.SerializeToString())
    with pytest.raises(VimDeployError, match=why) as caught:
        read_onnx(path)
    assert caught.value.code == "VIM-409"


def test_every_op_of_the_contract_is_known() -> None:
    assert not list(op_flaws(scan()))


def test_what_others_may_write_and_runtimes_take(tmp_path: Path) -> None:
    """TensorRT's plugins in ONNX's own domain, undeclared shapes, a later version of the format."""

    def change(changed: onnx.ModelProto) -> None:
        changed.graph.node[0].op_type = "EfficientNMS_TRT"
        changed.functions[0].node[0].op_type = "InstanceNormalization_TRT"
        changed.graph.output[0].type.tensor_type.ClearField("shape")
        changed.ir_version = 99
        changed.graph.ClearField("name")

    assert read(tmp_path, change).ir_version == 99


@pytest.mark.parametrize("name", [b"image", b"logits", b"MatMul", b"batch", b"Body"])
def test_a_text_that_is_no_utf8(tmp_path: Path, name: bytes) -> None:
    data = model().SerializeToString()
    assert name in data
    (tmp_path / "m.onnx").write_bytes(data.replace(name, b"\xff" + name[1:]))
    with pytest.raises(VimDeployError, match="UTF-8") as caught:
        read_onnx(tmp_path / "m.onnx")
    assert caught.value.code == "VIM-409"


def field(number: int, content: bytes) -> bytes:
    """One length-delimited field of a message."""
    size, head = len(content), bytes([number << 3 | 2])
    while size > 0x7F:
        head, size = head + bytes([size & 0x7F | 0x80]), size >> 7
    return head + bytes([size]) + content


def levels(count: int) -> bytes:
    content = b""
    for _ in range(count):
        # A graph's node, the node's attribute, the attribute's graph.
        content = field(1, field(5, field(6, content)))
    return field(7, content)


BOMBS = {
    "nodes": field(7, b"\x0a\x00" * (onnx_file.MAX_MESSAGES + 1)),
    "names": field(7, field(1, b"\x0a\x00" * (onnx_file.MAX_FIELDS + 1))),
    "numbers": field(7, field(5, field(1, b"\x01" * (1 << 25)))),
    "levels": levels(40),
    "cut off": b"\x3a\x7f\x00",
    "an endless number": b"\x08" + b"\xff" * 40,
    "a group": b"\x3b",
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_that_become_large_are_not_parsed(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.onnx").write_bytes(BOMBS[name])
    with pytest.raises(ValueError, match=r"^it"):
        onnx_file.require_modest(BOMBS[name], onnx.ModelProto.DESCRIPTOR)
    with pytest.raises(VimDeployError) as caught:
        read_onnx(tmp_path / "m.onnx")
    assert caught.value.code == "VIM-409"


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x07\x12", bytes(100), b"\x0a" * 5000])
def test_what_is_no_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(VimDeployError) as caught:
        read_onnx(tmp_path / "m.onnx")
    assert caught.value.code == "VIM-409"


def test_a_free_size_needs_no_name(tmp_path: Path) -> None:
    unnamed = read(tmp_path, lambda m: kind_of(m).shape.dim[0].Clear())
    assert inputs_of(unnamed)[0].shape == ("?", 3)
    assert inputs_of(model())[0].shape == ("batch", 3)
    assert tensor_sizes(unnamed, 2).shapes["image"] == (2, 3)


@pytest.mark.timeout(60)
def test_a_long_chain_of_functions_is_followed_once() -> None:
    """Looking through all of them for each took ten minutes for a megabyte."""
    opsets = [helper.make_opsetid("own", 1)]
    changed = model()
    for number in range(20_000):
        callee = f"F{number - 1}" if number else "Body"
        node = helper.make_node(callee, ["a"], ["b"], domain="own")
        changed.functions.append(
            helper.make_function("own", f"F{number}", ["a"], ["b"], [node], opsets)
        )
    assert next(onnx_rules._function_flaws(changed), None) is None
    changed.functions[-1].node[0].op_type = "F19999"
    assert "calls itself" in next(onnx_rules._function_flaws(changed))
