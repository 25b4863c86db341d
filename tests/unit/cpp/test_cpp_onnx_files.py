"""The C++ runtime's reader of ONNX files: what they say of themselves, and what is refused.

Python is the measure: what it refuses, C++ refuses with the same code, before a runtime sees it.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from tests.support import cpp, cpp_builds, cpp_onnx, detectors
from vim_deploy.artifact import metadata
from vim_deploy.artifact.file import Artifact
from vim_deploy.artifact.metadata import METADATA_KEY, ExportInfo
from vim_deploy.specs import ImagePreparation

pytestmark = pytest.mark.slow

_GRAPH = """
digits (float[batch,1,8,8] image) => (float[batch,3] logits) {
    flat = Flatten (image)
    logits = MatMul (flat, weight)
}
"""


def described() -> ExportInfo:
    info = detectors.described(16)
    image = ImagePreparation(8, 8, 1, (0.5,), (0.25,), 0.875, "bicubic")
    return replace(info, head="logits", dense=None, image=image, labels=("a", "b\u00e9\n", "c"))


def small() -> onnx.ModelProto:
    """A classifier of three classes that says what it is."""
    graph = parser.parse_graph(_GRAPH)
    weight = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("vim_deploy", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="vim-deploy")
    metadata.attach(model, described())
    return model


def judged(path: Path) -> tuple[str, str]:
    """``ok`` and the description, or the code and the message, of the C++ library."""
    done = cpp_builds.run(cpp_builds.need_program("units"), "onnx", path)
    if done.returncode == 0:
        return "ok", done.stdout
    assert "\nfix: " in done.stderr
    return done.stderr.split(":")[0].removeprefix("error "), done.stderr


def without_entry(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def replaced(model: onnx.ModelProto, change: Callable[[str], str]) -> None:
    for entry in model.metadata_props:
        entry.value = change(entry.value)


def joined(model: onnx.ModelProto) -> None:
    without_entry(model)
    model.graph.doc_string += "\nvim_deploy: {}"


def cut_off(model: onnx.ModelProto) -> None:
    without_entry(model)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 9


def tool(model: onnx.ModelProto) -> None:
    without_entry(model)
    model.graph.doc_string = ""
    model.producer_name, model.producer_version = "slimmer", "1.2\x1b[31m"


def foreign(model: onnx.ModelProto) -> None:
    tool(model)
    del model.opset_import[1]


def recursive(model: onnx.ModelProto) -> None:
    names = ("one", "two")
    for name, other in zip(names, reversed(names), strict=True):
        node = helper.make_node(other, ["x"], ["y"], domain="vim_deploy")
        model.functions.append(
            helper.make_function("vim_deploy", name, ["x"], ["y"], [node], model.opset_import)
        )


def outside(model: onnx.ModelProto, location: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


CHANGES: dict[str, tuple[str, Callable[[onnx.ModelProto], object]]] = {
    "as written": ("ok", lambda m: None),
    "second place": ("ok", without_entry),
    "entry counts": ("ok", lambda m: setattr(m.graph, "doc_string", "vim_deploy: {}")),
    "joined": ("VIM-410", joined),
    "front cut off": ("VIM-410", cut_off),
    "left out by a tool": ("VIM-410", tool),
    "another exporter's": ("VIM-410", foreign),
    "no JSON": ("VIM-410", lambda m: replaced(m, lambda text: text[:-1])),
    "no deviation": ("VIM-410", lambda m: replaced(m, lambda t: t.replace("0.25", "0.0"))),
    "no pixels": ("VIM-410", lambda m: replaced(m, lambda t: t.replace("0.25", "1e-320"))),
    "no filter": ("VIM-410", lambda m: replaced(m, lambda t: t.replace("bicubic", "cubic"))),
    "no head": ("VIM-410", lambda m: replaced(m, lambda t: t.replace('"logits"', '"legs"'))),
    "no mode": ("VIM-410", lambda m: replaced(m, lambda t: t.replace('"none"', '"some"'))),
    "huge": ("VIM-410", lambda m: replaced(m, lambda t: t.replace('"height": 8', '"height": 9e9'))),
    "no nodes": ("VIM-409", lambda m: m.graph.ClearField("node")),
    "no opset": ("VIM-409", lambda m: m.ClearField("opset_import")),
    "no name": ("VIM-409", lambda m: setattr(m.graph.input[0], "name", "")),
    "size of zero": (
        "VIM-409",
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 0),
    ),
    "no shape": ("VIM-409", lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")),
    "no tensor": ("VIM-409", lambda m: m.graph.output[0].type.ClearField("tensor_type")),
    "unknown weights": ("VIM-409", lambda m: setattr(m.graph.initializer[0], "data_type", 99)),
    "weights twice": ("VIM-409", lambda m: m.graph.initializer.append(m.graph.initializer[0])),
    "calls itself": ("VIM-409", recursive),
    "outside": ("VIM-409", lambda m: outside(m, "../weights")),
    "anywhere": ("VIM-409", lambda m: outside(m, "/etc/passwd")),
    "memory": ("VIM-409", lambda m: outside(m, "*/_ORT_MEM_ADDR_/*")),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_file_says_of_itself(name: str, tmp_path: Path) -> None:
    code, change = CHANGES[name]
    model = small()
    change(model)
    path = tmp_path / "small.onnx"
    path.write_bytes(model.SerializeToString())
    found, said = judged(path)
    assert found == code, said
    assert cpp_onnx.verdict_of_python(path) == code
    assert "\x1b" not in said
    if code == "ok":
        info = Artifact.open(path).require_info()
        # Labels are printed as one line each.
        lines = [line.replace("\n", "\\n") for line in cpp.said_of_export(info)]
        assert said.splitlines() == [
            "input image 1 [-1, 1, 8, 8]",
            "output logits 1 [-1, 3]",
            *lines,
        ]
    elif name == "left out by a tool":
        assert "vim-deploy exported it, and slimmer 1.2" in said
    elif name == "another exporter's":
        assert "no vim-deploy metadata; slimmer 1.2" in said


def test_a_detector_keeps_its_second_input(tmp_path: Path) -> None:
    path = detectors.stand_in(tmp_path / "detector.onnx")
    assert judged(path)[1].startswith("input image 1 [-1, 3, 64, 64]\ninput size 7 [-1, 2]\n")
    model = onnx.load(path)
    without_entry(model)
    onnx.save(model, path)
    assert judged(path)[0] == "ok"
    model.graph.input[1].name = "sizes"
    for node in model.graph.node:
        node.input[:] = ["sizes" if name == "size" else name for name in node.input]
    onnx.save(model, path)
    assert judged(path)[0] == cpp_onnx.verdict_of_python(path) == "VIM-410"


def bombs() -> dict[str, bytes]:
    """Bytes that are small and would become much, or are no model."""
    deep = b""
    for _ in range(70):
        # Attribute.g (field 6) of Node.attribute (5) of Graph.node (1).
        for tag in (0x0A, 0x2A, 0x32):
            size = len(deep)
            head = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
            deep = bytes([tag]) + head + deep
    nodes = b"\x0a\x00" * 600_000
    size = len(nodes)
    graph = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + nodes
    return {
        "empty": b"",
        "text": b"this is no model, but words of it",
        "zeros": bytes(40),
        "group": b"\x3b\x3c",
        "length": b"\x3a\xff\xff\xff\xff\x0f",
        "endless": b"\x3a" + b"\xff" * 12,
        "deep": b"\x3a" + bytes([len(deep) & 0x7F | 0x80, len(deep) >> 7]) + deep,
        "many": b"\x3a" + graph,
        "not UTF-8": b"\x12\x02\xff\xfe",
    }


@pytest.mark.parametrize("name", bombs())
def test_bytes_that_are_no_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.onnx"
    path.write_bytes(bombs()[name])
    assert judged(path)[0] == cpp_onnx.verdict_of_python(path) == "VIM-409"


def test_changed_bytes_have_the_code_that_python_has(tmp_path: Path) -> None:
    """Python looks at more than C++ does, such as the rules of operators: it may refuse more."""
    whole = small().SerializeToString()
    rng = random.Random(3)
    paths = []
    for number in range(120):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.choice(
                (0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))
            )
        if number % 4 == 0:
            del data[rng.randrange(len(data)) :]
        paths.append(tmp_path / f"{number}.onnx")
        paths[-1].write_bytes(data)
    for path in paths:
        found, said = judged(path)
        wanted = cpp_onnx.verdict_of_python(path)
        assert found in ("ok", "VIM-409", "VIM-410"), said
        assert found == wanted or wanted in ("VIM-409", "VIM-410"), (path, found, wanted, said)


def test_halves() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [
            np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32),
            rng.integers(0, 2**32, 20_000, np.uint32).view(np.float32),
            np.array([65519.99, 65520, 65536, 2.0**-24, 2.0**-25, 2.0**-25 * 1.001], np.float32),
        ]
    )
    program = cpp_builds.need_program("units")
    done = answer_of(program, values.tobytes())
    found = np.frombuffer(done[: 2 * len(values)], np.float16)
    again = np.frombuffer(done[2 * len(values) :], np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    nan = np.isnan(values)
    np.testing.assert_array_equal(found[~nan].view(np.uint16), expected[~nan].view(np.uint16))
    np.testing.assert_array_equal(again[~nan], expected[~nan].astype(np.float32))
    assert np.isnan(found[nan]).all()
    assert np.isnan(again[nan]).all()


def answer_of(program: Path, data: bytes) -> bytes:
    """What a program writes, which is no text."""
    return subprocess.run(
        [str(program), "halves"],
        input=data,
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, **cpp_builds.ENVIRONMENT},
    ).stdout


def test_the_key_and_the_domain_are_those_of_python() -> None:
    header = (cpp_builds.CPP / "src" / "onnx_file.h").read_text("utf-8")
    assert f'kOpsDomain = "{METADATA_KEY}";' in header
