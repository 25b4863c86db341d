"""The engine record: a round trip through JSON, and what is not a record."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.support import fake_rtx
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.profiles import resolve_profiles
from vim_deploy.artifact.record import (
    EngineRecord,
    FileIdentity,
    parse_record,
    read_record,
    record_path,
)
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.files import settings_hash
from vim_deploy.runtimes.building.build import check_output
from vim_deploy.specs import CheckpointInfo, ImagePreparation, TensorSpec
from vim_deploy.stages.inspecting import inspect
from vim_deploy.untrusted import parse_json

IMAGE = TensorSpec("image", "float32", ("batch", 3, 32, 32))
EXPORT = ExportInfo(
    model="custom",
    model_config=VimConfig(depth=2, img_size=(32, 32)),
    checkpoint=CheckpointInfo("a.pth", "00", "model"),
    image=ImagePreparation(32, 32),
    preprocess="none",
    head="logits",
    graph="base",
    precision="fp32",
    opset=18,
    pos_embed="unchanged",
    tool_version="0.1.0",
    settings_hash="11",
    labels=("zero", "one"),
)
RECORD = EngineRecord(
    plan=FileIdentity("model.plan", "aa", 136),
    source=FileIdentity("model.onnx", "bb", 10),
    external_data=(FileIdentity("weights.bin", "cc", 5),),
    runtime="tensorrt-rtx",
    runtime_version="1.7.1.116",
    inputs=(IMAGE,),
    outputs=(TensorSpec("logits", "float32", ("batch", 10)),),
    profiles=resolve_profiles([IMAGE]),
    compute_capabilities=("8.0", "8.6"),
    later_gpus=True,
    layers=7,
    tool_version="0.1.0",
    settings_hash="dd",
    build_seconds=1.5,
    peak_memory_bytes=1 << 30,
    export=EXPORT,
    command=("vim-deploy", "build-engine"),
)


OLD = sorted((Path(__file__).parents[2] / "data" / "old").glob("*.plan.json"))


def parsed(value):
    return parse_record(value, lambda why: VimDeployError("VIM-413", "no record", why=why))


def test_round_trip_through_json():
    assert parsed(json.loads(json.dumps(encode(RECORD)))) == RECORD


def test_round_trip_without_export_info():
    bare = dataclasses.replace(RECORD, export=None)
    assert parsed(json.loads(json.dumps(encode(bare)))) == bare


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.name)
def test_records_of_0_1_0_are_read_and_written_as_they_were(path):
    value = json.loads(path.read_text())
    record = parsed(value)
    assert json.loads(json.dumps(encode(record))) == value
    assert settings_hash(record.settings()) == record.settings_hash


def test_there_are_old_records_of_both_runtimes():
    assert {path.name for path in OLD} == {"tensorrt-rtx.plan.json", "tensorrt.plan.json"}


def test_weights_may_be_in_a_folder_below():
    assert parsed(changed("external_data", 0, "name", by="data/w.bin")).external_data[0].bytes == 5


def test_a_name_that_is_no_text_is_stored_as_one(tmp_path):
    path = tmp_path / "model-\udcff.onnx"
    path.write_bytes(b"x")
    identity = FileIdentity.of(path)
    assert identity.name == "model-\\udcff.onnx"
    value = encode(dataclasses.replace(RECORD, source=identity))
    assert parsed(parse_json(json.dumps(value))).source == identity


def test_what_a_later_version_adds_is_left_out():
    value = json.loads(json.dumps(encode(RECORD)))
    value |= {"surprise": 1, "up_to_date": True}
    value["export"]["surprise"] = {"deep": 1}
    assert parsed(value) == RECORD
    assert not parsed(value).up_to_date


def test_what_an_earlier_version_lacks_has_its_default():
    value = json.loads(json.dumps(encode(RECORD)))
    optional = {"command", "gpu", "plugin", "flags", "options", "lowering", "inner_tensors"}
    for key in (*optional, "weights_from", "precision", "layer_types"):
        del value[key]
    for key in ("scan_body", "dense", "labels", "precision_policy", "io_precision"):
        del value["export"][key]
    assert parsed(value).export == dataclasses.replace(EXPORT, labels=())
    assert parsed(value).flags == ()


def changed(*keys, by):
    value = json.loads(json.dumps(encode(RECORD)))
    place = value
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = by
    return value


@pytest.mark.parametrize(
    ("keys", "by", "why"),
    [
        (("plan", "name"), "../model.plan", "not the name of a file"),
        (("plan", "name"), "..", "not the name of a file"),
        (("plan", "name"), "a\0b", "not the name of a file"),
        (("source", "name"), "", "not the name of a file"),
        (("external_data", 0, "name"), "x" * 300, "not the name of a file"),
        (("external_data", 0, "name"), "/etc/passwd", "not the name of a file"),
        (("external_data", 0, "name"), "a/../../b", "not the name of a file"),
        (("external_data", 0, "bytes"), "5", "bytes"),
        (("layers",), -1, "layers is -1"),
        (("layers",), True, "layers"),
        (("build_seconds",), "long", "build_seconds"),
        (("runtime_version",), "1" * 5000, "runtime_version"),
        (("precision",), "fp4", "precision"),
        (("compute_capabilities",), ["8" * 5000], "compute capability"),
        (("compute_capabilities",), [8.6], "compute_capabilities"),
        (("inputs",), [], "no input with an axis"),
        (("inputs", 0, "shape", 1), -3, "shape"),
        (("outputs", 0, "dtype"), 32, "dtype"),
        (("profiles",), {}, "profiles"),
        (("profiles", 0), {}, "missing"),
        (("profiles", 0, "image", "max"), [], "sizes"),
        (("profiles", 0, "image", "max", 0), 1 << 40, "goes from"),
        (("layer_types",), {"float32": "many"}, "layer_types"),
        (("options",), [], "options"),
        (("export",), [], "export"),
        (("export", "image", "std"), [0, 0, 0], "std"),
        (("export", "labels"), [None], "labels"),
    ],
)
def test_values_that_no_build_writes(keys, by, why):
    with pytest.raises(VimDeployError, match="VIM-413") as caught:
        parsed(changed(*keys, by=by))
    assert why in caught.value.why


def test_no_field_is_left_out():
    fields = {field.name for field in dataclasses.fields(EngineRecord)} - {"up_to_date"}
    assert set(encode(RECORD)) == fields | {"format"}


def test_name():
    assert record_path(Path("out/model.fp16.plan")).name == "model.fp16.plan.json"


@pytest.mark.parametrize(
    ("field", "value", "changes"),
    [
        ("runtime_version", "1.8.0.0", True),
        ("tool_version", "0.2.0", True),
        ("later_gpus", False, True),
        ("external_data", (), True),
        ("source", FileIdentity("renamed.onnx", "bb", 10), False),
        ("command", (), False),
        ("build_seconds", 9.0, False),
    ],
)
def test_settings_are_what_decides_the_engine(field, value, changes):
    other = dataclasses.replace(RECORD, **{field: value})
    assert (settings_hash(other.settings()) != settings_hash(RECORD.settings())) is changes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"format": 2}',
        '{"format": 1, "plan": 3}',
        "\xff\xfe",
        json.dumps(encode(RECORD))[:-1],
        json.dumps(encode(RECORD) | {"build_seconds": float("nan")}),
        "[" * 100_000,
        json.dumps(encode(RECORD) | {"plan": {}}),
    ],
)
def test_not_a_record(tmp_path, text):
    plan = tmp_path / "model.plan"
    record_path(plan).write_bytes(text.encode("latin-1"))
    with pytest.raises(VimDeployError) as caught:
        read_record(plan)
    assert caught.value.code == "VIM-413"


def test_no_record(tmp_path):
    assert read_record(tmp_path / "model.plan") is None


def test_record_of_another_engine(tmp_path):
    plan = tmp_path / "model.plan"
    plan.write_bytes(fake_rtx.plan_bytes())
    record_path(plan).write_text(json.dumps(encode(RECORD)))
    with pytest.raises(VimDeployError) as caught:
        inspect(plan)
    assert caught.value.code == "VIM-902"
    own = dataclasses.replace(RECORD, plan=FileIdentity.of(plan))
    record_path(plan).write_text(json.dumps(encode(own)))
    assert inspect(plan)["record"] == encode(own)


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_plan_without_a_name_is_refused_as_an_output(name: str, tmp_path: Path) -> None:
    """And does not end in pathlib's own error."""
    with pytest.raises(VimDeployError) as caught:
        check_output(Path(name), tmp_path / "model.onnx")
    assert caught.value.code == "VIM-304"
