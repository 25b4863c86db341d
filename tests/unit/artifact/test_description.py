"""What a file says of itself stands in it twice, and is believed as far as its graph agrees."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support import detectors
from tests.support.engines import EXPORT
from tests.support.packages import classifier
from tests.support.reference import REPOSITORY
from vim_deploy.artifact import Artifact, metadata
from vim_deploy.artifact.description import Description, describe
from vim_deploy.cli.inspect_summary import summary
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.stages.inspecting import inspect

PICTURES = str(REPOSITORY / "tests" / "data" / "digits")


def model(tmp_path: Path) -> onnx.ModelProto:
    """The small classifier as it was written."""
    return onnx.load(classifier(tmp_path / "m.onnx"))


def without_entry(tmp_path: Path) -> onnx.ModelProto:
    """The same as a tool leaves it that builds a file without its metadata."""
    made = model(tmp_path)
    del made.metadata_props[:]
    return made


def opened(made: onnx.ModelProto, path: Path) -> Artifact:
    onnx.save(made, path)
    return Artifact.open(path)


def set_input(made: onnx.ModelProto, name: str, element: int, shape: tuple[Any, ...]) -> None:
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info(name, element, shape))
    made.graph.node[0].input[0] = name


def test_both_places_hold_the_same_text(tmp_path: Path) -> None:
    made = model(tmp_path)
    text = metadata.entry_of(made)
    assert text is not None
    assert metadata.line_of(made) == text
    assert json.loads(text)["labels"] == list(EXPORT.labels)
    assert describe(made) == Description(EXPORT, "metadata", was_exported=True)


def test_attached_again_it_stands_once_and_other_text_stays(tmp_path: Path) -> None:
    made = model(tmp_path)
    made.graph.doc_string = f"of another tool\n{made.graph.doc_string}\nlast line"
    metadata.attach(made, replace(EXPORT, labels=()))
    lines = made.graph.doc_string.split("\n")
    assert lines[:2] == ["of another tool", "last line"]
    assert len(lines) == 3
    assert describe(made).doubt == ""
    metadata.attach(made, EXPORT)
    again = made.SerializeToString(deterministic=True)
    metadata.attach(made, EXPORT)
    assert made.SerializeToString(deterministic=True) == again


def test_the_second_place_is_read_where_the_first_is_gone(tmp_path: Path) -> None:
    file = opened(without_entry(tmp_path), tmp_path / "m.onnx")
    assert file.description.place == "doc_string"
    # It is no file that an export would write again.
    assert file.info == replace(EXPORT, settings_hash="")
    assert file.require_info().image == EXPORT.image


@pytest.mark.parametrize("form", ["joined\n\n{}\n\nmore", "{}\r\nmore", "a\r\n{}"])
def test_text_around_it_does_not_matter(tmp_path: Path, form: str) -> None:
    made = without_entry(tmp_path)
    made.graph.doc_string = form.format(made.graph.doc_string)
    assert describe(made).place == "doc_string"


def test_the_metadata_counts_where_both_are(tmp_path: Path) -> None:
    made = model(tmp_path)
    made.metadata_props[0].value = made.metadata_props[0].value.replace("north", "up")
    found = describe(made)
    assert found.info is not None
    assert found.info.labels[0] == "up"
    assert "says otherwise" in found.doubt
    # Damaged, it is no reason to look elsewhere: whoever changed it would not see it ignored.
    made.metadata_props[0].value = "{}"
    with pytest.raises(VimDeployError, match="VIM-410"):
        describe(made)


@pytest.mark.parametrize("text", ["vim_deploy: {", "vim_deploy: {}\nvim_deploy: []"])
def test_a_damaged_text_does_not_spoil_the_metadata(tmp_path: Path, text: str) -> None:
    made = model(tmp_path)
    made.graph.doc_string = text
    found = describe(made)
    assert found.info == EXPORT
    assert "says otherwise" in found.doubt


def test_who_says_standalone_and_holds_our_ops_is_not(tmp_path: Path) -> None:
    made = model(tmp_path)
    metadata.attach(made, replace(EXPORT, standalone=True))
    assert describe(made).changed == {}
    made.graph.node.add(op_type="VimSelectiveScan", domain="vim_deploy")
    found = describe(made)
    assert found.info is not None
    assert not found.info.standalone
    assert found.changed == {"standalone": ("True", "False")}


def test_the_second_place_is_read_as_strictly(tmp_path: Path) -> None:
    made = without_entry(tmp_path)
    good = made.graph.doc_string
    for damaged in (
        good.replace('"std": [0.5]', '"std": [0]'),
        good[:-1],
        "vim_deploy: ",
        "vim_deploy: " + "[" * 100_000,
        f"{good}\n{good.replace('north', 'up')}",
    ):
        made.graph.doc_string = damaged
        with pytest.raises(VimDeployError) as caught:
            describe(made)
        assert caught.value.code == "VIM-410"


@pytest.mark.parametrize(
    ("name", "element", "shape"),
    [
        ("pixels", TensorProto.FLOAT, ("batch", 1, 2, 3)),
        ("image", TensorProto.FLOAT, ("batch", 1, 2, 4)),
        ("image", TensorProto.FLOAT, ("batch", 6)),
        ("image", TensorProto.UINT8, ("batch", 1, 2, 3)),
    ],
)
def test_a_description_of_another_input_is_not_believed(
    tmp_path: Path, name: str, element: int, shape: tuple[Any, ...]
) -> None:
    made = without_entry(tmp_path)
    set_input(made, name, element, shape)
    file = opened(made, tmp_path / "m.onnx")
    assert file.info is None
    with pytest.raises(VimDeployError) as caught:
        file.require_info()
    assert caught.value.code == "VIM-410"
    assert "describes another one" in caught.value.why


def test_an_open_size_fits_any(tmp_path: Path) -> None:
    made = without_entry(tmp_path)
    set_input(made, "image", TensorProto.FLOAT, ("batch", 1, "height", 3))
    assert describe(made).info is not None


def test_what_the_graph_shows_counts_before_what_is_said(tmp_path: Path) -> None:
    made = model(tmp_path)
    made.opset_import[0].version = 20
    weight = made.graph.initializer[0]
    half = numpy_helper.to_array(weight).astype(np.float16)
    weight.CopyFrom(numpy_helper.from_array(half, weight.name))
    for value in (made.graph.input[0], made.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    found = describe(made)
    assert found.info == replace(
        EXPORT, opset=20, precision="fp16", io_precision="fp16", settings_hash=""
    )
    assert found.changed == {
        "opset": ("18", "20"),
        "precision": ("fp32", "fp16"),
        "io_precision": ("fp32", "fp16"),
    }
    file = opened(made, tmp_path / "m.onnx")
    assert file.precision == "fp16"
    rows = dict(summary(inspect(file.path)))
    assert rows["changed opset"] == "20; the export said 18"
    assert rows["precision"] == "fp16, fp16 in and out"


def test_inspect_says_where_it_was_found_and_who_wrote_last(tmp_path: Path) -> None:
    made = without_entry(tmp_path)
    made.producer_name, made.producer_version = "some.tool", "3.1"
    onnx.save(made, tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert found["description"]["place"] == "doc_string"
    assert found["export"]["labels"] == list(EXPORT.labels)
    rows = dict(summary(found))
    assert rows["description"].startswith("from the text of the graph")
    assert rows["last written by"] == "some.tool 3.1"


def test_a_file_that_says_nothing_is_named(tmp_path: Path, capsys: Any) -> None:
    """By what made it, as far as that shows, and with what brings the description back."""
    made = without_entry(tmp_path)
    made.graph.doc_string = ""
    made.producer_name, made.producer_version = "pytorch", "2.13"
    for exported, why in ((False, "pytorch 2.13 wrote it"), (True, "pytorch 2.13 left out what")):
        if exported:
            made.opset_import.append(helper.make_opsetid("vim_deploy", 1))
        onnx.save(made, tmp_path / "m.onnx")
        for command in (["run", PICTURES], ["package"], ["verify", "--against", "vim-digits"]):
            if command[0] == "verify":
                pytest.importorskip("torch")
            assert run([command[0], str(tmp_path / "m.onnx"), *command[1:]]) == 4
            said = capsys.readouterr().err
            assert "error VIM-410" in said
            assert why in said
            assert f"inspect {tmp_path / 'm.onnx'} --describe-from ORIGINAL.onnx" in said


def detector(tmp_path: Path) -> onnx.ModelProto:
    """The stand-in as a tool leaves it that builds a file without its metadata."""
    made = onnx.load(detectors.stand_in(tmp_path / "d.onnx", 16))
    del made.metadata_props[:]
    return made


def test_a_detector_is_described_by_both_inputs(tmp_path: Path) -> None:
    made = detector(tmp_path)
    found = describe(made)
    assert found.info is not None
    assert found.doubt == ""
    # Tools give the batch another name, and may turn the inputs round.
    for value in made.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = f"{value.name}_n"
    first = made.graph.input.pop(0)
    made.graph.input.append(first)
    assert describe(made).info == found.info


def renamed_size(made: onnx.ModelProto) -> None:
    made.graph.input[1].name = made.graph.node[6].input[0] = "im_shape"


def without_size(made: onnx.ModelProto) -> None:
    del made.graph.input[1]


def float_size(made: onnx.ModelProto) -> None:
    made.graph.input[1].type.tensor_type.elem_type = TensorProto.FLOAT


def wide_size(made: onnx.ModelProto) -> None:
    made.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 4


def another(made: onnx.ModelProto) -> None:
    made.graph.input.add().CopyFrom(made.graph.input[1])
    made.graph.input[2].name = "scale_factor"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (renamed_size, "its inputs are image, im_shape, not image and size"),
        (without_size, "its inputs are image, not image and size"),
        (another, "its inputs are image, size, scale_factor, not image and size"),
        (float_size, "'size' is float32 ['batch', 2], where int64 ['batch', 2] is expected"),
        (wide_size, "'size' is int64 ['batch', 4], where int64 ['batch', 2] is expected"),
    ],
)
def test_a_detector_with_other_inputs_is_not_believed(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], says: str
) -> None:
    made = detector(tmp_path)
    change(made)
    found = describe(made)
    assert found.info is None
    assert says in found.doubt


def test_a_size_for_a_model_that_takes_none_is_not_believed(tmp_path: Path) -> None:
    made = without_entry(tmp_path)
    made.graph.input.add().CopyFrom(
        helper.make_tensor_value_info("size", TensorProto.INT64, ("batch", 2))
    )
    assert "its inputs are image, size, not image" in describe(made).doubt


def test_describe_from_carries_a_detector_over(tmp_path: Path) -> None:
    original = detectors.stand_in(tmp_path / "d.onnx", 16)
    made = detector(tmp_path)
    made.graph.doc_string = ""
    onnx.save(made, tmp_path / "tool.onnx")
    detectors.stand_in(original, 16)
    command = ["inspect", str(tmp_path / "tool.onnx"), "--describe-from", str(original)]
    assert run([*command, "-o", str(tmp_path / "new.onnx")]) == 0
    new = Artifact.open(tmp_path / "new.onnx")
    assert new.info == replace(Artifact.open(original).require_info(), settings_hash="")
    assert new.image_size == (16, 16)
    # Sizes of another type or shape are another input.
    float_size(made)
    onnx.save(made, tmp_path / "tool.onnx")
    assert run([*command, "-o", str(tmp_path / "other.onnx")]) != 0
