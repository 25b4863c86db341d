"""What an exported file says of itself is carried over to what a tool made of it, where it fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.engines import EXPORT, write_engine
from tests.support.packages import classifier
from vim_deploy.artifact import Artifact, metadata
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.specs import CheckpointInfo
from vim_deploy.stages import describe_from


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``a.onnx`` as exported; ``b.onnx``: as a tool leaves it, which keeps no description."""
    monkeypatch.chdir(tmp_path)
    write("a.onnx", onnx.load(classifier(Path("a.onnx"))))
    made = onnx.load("a.onnx")
    del made.metadata_props[:]
    made.graph.doc_string = ""
    made.producer_name = "some.tool"
    write("b.onnx", made)


def write(name: str, made: onnx.ModelProto) -> None:
    onnx.save(made, name)


def refused(code: str, *arguments: str, **options: Any) -> VimDeployError:
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    with pytest.raises(VimDeployError) as caught:
        describe_from(*arguments, **options)
    assert caught.value.code == code
    left = {path.name: path.read_bytes() for path in Path().iterdir() if path.suffix != ".lock"}
    assert left == before
    return caught.value


def test_the_description_is_carried_over_and_nothing_else() -> None:
    made = describe_from("b.onnx", "a.onnx", "c.onnx")
    assert (made.path, made.changed) == (Path("c.onnx"), ())
    assert Artifact.open(made.path).info == replace(EXPORT, settings_hash="") == made.info
    tools, new = onnx.load("b.onnx"), onnx.load("c.onnx")
    assert new.producer_name == "some.tool"
    del new.metadata_props[:]
    new.graph.doc_string = ""
    assert new == tools


def test_in_place_and_again() -> None:
    refused("VIM-204", "b.onnx", "a.onnx", "b.onnx")
    describe_from("b.onnx", "a.onnx", "b.onnx", force=True)
    first = Path("b.onnx").read_bytes()
    describe_from("b.onnx", "a.onnx", "b.onnx", force=True)
    assert Path("b.onnx").read_bytes() == first


def test_what_the_tool_changed_is_described_as_it_is() -> None:
    made = onnx.load("b.onnx")
    made.opset_import[0].version = 19
    write("b.onnx", made)
    found = describe_from("b.onnx", "a.onnx", "c.onnx")
    assert (found.changed, found.info.opset) == (("opset",), 19)
    # Told as it is, there is nothing left that differs.
    assert Artifact.open(found.path).description.changed == {}


@pytest.mark.parametrize(
    ("which", "name", "element", "shape", "why"),
    [
        (
            "input",
            "pixels",
            TensorProto.FLOAT,
            ("batch", 1, 2, 3),
            "pixels; the original has image",
        ),
        ("input", "image", TensorProto.FLOAT, ("batch", 1, 2, 4), "2, 4]; the original's is"),
        ("input", "image", TensorProto.UINT8, ("batch", 1, 2, 3), "uint8"),
        (
            "output",
            "features",
            TensorProto.FLOAT,
            ("batch", 4),
            "features; the original has logits",
        ),
        ("output", "logits", TensorProto.FLOAT, ("batch", 5), "[batch, 5]"),
    ],
)
def test_of_another_graph_it_is_refused(
    which: str, name: str, element: int, shape: tuple[Any, ...], why: str
) -> None:
    made = onnx.load("b.onnx")
    value = getattr(made.graph, which)[0]
    for node in made.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if item == value.name else item for item in names]
    value.CopyFrom(helper.make_tensor_value_info(name, element, shape))
    write("b.onnx", made)
    error = refused("VIM-415", "b.onnx", "a.onnx", "c.onnx")
    assert f"other {which}s" in error.message
    assert why in error.why.replace("'", "").replace("originals", "original's")


def test_a_batch_or_a_float_type_of_its_own_is_no_other_graph() -> None:
    made = onnx.load("b.onnx")
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    write("b.onnx", made)
    assert describe_from("b.onnx", "a.onnx", "c.onnx").info.labels == EXPORT.labels


def test_weights_beside_the_original_are_not_written_over() -> None:
    onnx.save_model(
        onnx.load("a.onnx"), "a.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    for output in ("w", "a.onnx"):
        error = refused("VIM-203", "b.onnx", "a.onnx", output, force=True)
        assert "the original itself, or its weights" in error.message


def test_weights_beside_the_changed_file_are_written_over_with_it_alone() -> None:
    onnx.save_model(
        onnx.load("b.onnx"),
        "b.onnx",
        save_as_external_data=True,
        location="c.onnx.data",
        size_threshold=0,
    )
    for output in ("c.onnx.data", "c.onnx"):
        error = refused("VIM-203", "b.onnx", "a.onnx", output, force=True)
        assert "the changed file itself, or its weights" in error.message
    assert describe_from("b.onnx", "a.onnx", "b.onnx", force=True).info.labels == EXPORT.labels


def test_sizes_that_a_tool_does_not_declare_are_no_others() -> None:
    made = onnx.load("b.onnx")
    made.graph.output[0].type.tensor_type.ClearField("shape")
    write("b.onnx", made)
    assert describe_from("b.onnx", "a.onnx", "c.onnx").info.labels == EXPORT.labels


def test_of_other_weights_it_is_refused() -> None:
    made = onnx.load("b.onnx")
    other = CheckpointInfo("other.pth", "ff", "model")
    metadata.attach(made, replace(EXPORT, checkpoint=other))
    write("b.onnx", made)
    assert "ff" in refused("VIM-404", "b.onnx", "a.onnx", "c.onnx").why
    # What cannot be read says nothing, and is replaced.
    made.metadata_props[0].value = "{}"
    write("b.onnx", made)
    assert describe_from("b.onnx", "a.onnx", "c.onnx").info.labels == EXPORT.labels


def test_what_is_no_pair_of_such_files() -> None:
    refused("VIM-410", "a.onnx", "b.onnx", "c.onnx")
    refused("VIM-203", "b.onnx", "a.onnx", "a.onnx", force=True)
    refused("VIM-401", "none.onnx", "a.onnx", "c.onnx")
    write_engine(Path())
    refused("VIM-409", "model.plan", "a.onnx", "c.onnx")
    refused("VIM-410", "b.onnx", "model.plan", "c.onnx")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "b.onnx", "--describe-from", "a.onnx", "-o", "c.onnx"]) == 0
    said = capsys.readouterr()
    assert said.out == "c.onnx\n"
    assert "vim-deploy verify c.onnx --against a.onnx" in said.err
    again = ["inspect", "b.onnx", "--describe-from", "a.onnx", "-o", "c.onnx", "--force", "--json"]
    assert run(again) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["changed"]) == ("c.onnx", [])
    assert found["export"]["labels"] == list(EXPORT.labels)
    for wrong in (["-o", "d.onnx"], ["--describe-from", "a.onnx"], ["--force"]):
        assert run(["inspect", "b.onnx", *wrong]) == 2
    assert run(["inspect", "b.onnx", "--describe-from", "a.onnx", "-o", "d.onnx", "--graph"]) == 2
    assert "VIM-203" in capsys.readouterr().err
