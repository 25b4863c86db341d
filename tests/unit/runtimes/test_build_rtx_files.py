"""What a build writes, keeps and refuses; the compiler is replaced by a stand-in."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support import fake_rtx, tiny_onnx
from tests.support.builds import build_engine_rtx
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import read_record
from vim_deploy.errors import VimDeployError
from vim_deploy.files import single_writer
from vim_deploy.runtimes.building import build as building
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx
from vim_deploy.stages.inspecting import inspect


@pytest.fixture
def builds(monkeypatch):
    """Replace the compiler; the list holds the job of every build."""
    jobs = []

    def run(job, progress):
        jobs.append(job)
        return fake_rtx.run_worker(job, progress)

    monkeypatch.setattr(trt_rtx, "capabilities", lambda: fake_rtx.CAPABILITIES)
    monkeypatch.setattr(building, "run_worker", run)
    return jobs


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(tiny_onnx.perceptron(), path)
    return path


def code_of(*args, **kwargs) -> str:
    with pytest.raises(VimDeployError) as caught:
        build_engine_rtx(*args, **kwargs)
    assert caught.value.fix
    return caught.value.code


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_plan_and_record(builds, model, tmp_path):
    plan = tmp_path / "model.plan"
    record = build_engine_rtx(model, plan, command=("vim-deploy", "build-engine", "model.onnx"))
    assert names(tmp_path) == {"model.onnx", "model.plan", "model.plan.json"}
    assert read_record(plan) == record
    assert not record.up_to_date
    assert record.plan.bytes == plan.stat().st_size
    assert record.inputs[0].shape == ("batch", 8)
    assert record.later_gpus
    assert record.command[0] == "vim-deploy"
    assert inspect(plan)["record"]["source"]["name"] == "model.onnx"
    assert stat.S_IMODE(plan.stat().st_mode) == stat.S_IMODE(
        (tmp_path / "model.plan.json").stat().st_mode
    )


def test_same_settings_are_up_to_date(builds, model, tmp_path):
    plan = tmp_path / "model.plan"
    first = build_engine_rtx(model, plan)
    # The same batches, written out: what counts is the profile.
    again = build_engine_rtx(model, plan, profiles=ProfileOptions(1, 8, 32))
    assert again.up_to_date
    assert again == first
    assert len(builds) == 1
    build_engine_rtx(model, plan, force=True)
    assert len(builds) == 2


def test_a_renamed_model_is_the_same_model(builds, model, tmp_path):
    build_engine_rtx(model, tmp_path / "model.plan")
    renamed = model.rename(tmp_path / "other.onnx")
    assert build_engine_rtx(renamed, tmp_path / "model.plan").up_to_date


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"profiles": ProfileOptions(max_batch=2)}, "profiles"),
        ({"compute_capabilities": ["8.6"]}, "compute capabilities"),
        # The same list as the default's, but without later GPUs.
        ({"compute_capabilities": ["80", "86", "89", "120", "121"]}, "compute capabilities"),
    ],
)
def test_other_settings_are_refused_unless_forced(builds, model, tmp_path, change, word):
    plan = tmp_path / "model.plan"
    build_engine_rtx(model, plan)
    before = plan.read_bytes()
    with pytest.raises(VimDeployError) as caught:
        build_engine_rtx(model, plan, **change)
    assert caught.value.code == "VIM-204"
    assert word in caught.value.why
    assert plan.read_bytes() == before
    assert len(builds) == 1
    forced = build_engine_rtx(model, plan, force=True, **change)
    assert read_record(plan) == forced


def test_another_model_is_other_settings(builds, model, tmp_path):
    plan = tmp_path / "model.plan"
    build_engine_rtx(model, plan)
    onnx.save(tiny_onnx.perceptron(width=4), model)
    assert code_of(model, plan) == "VIM-204"


def test_another_runtime_version_is_other_settings(builds, model, tmp_path, monkeypatch):
    from dataclasses import replace

    build_engine_rtx(model, tmp_path / "model.plan")
    newer = replace(fake_rtx.CAPABILITIES, version="1.8.0.1")
    monkeypatch.setattr(trt_rtx, "capabilities", lambda: newer)
    with pytest.raises(VimDeployError, match=r"model\.plan") as caught:
        build_engine_rtx(model, tmp_path / "model.plan")
    assert caught.value.why == "different: runtime version"


@pytest.mark.parametrize("damage", ["plan changed", "no record", "record is text", "record is []"])
def test_an_engine_nothing_is_known_about_is_kept(builds, model, tmp_path, damage):
    plan, record = tmp_path / "model.plan", tmp_path / "model.plan.json"
    build_engine_rtx(model, plan)
    if damage == "plan changed":
        plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text("[]" if "[]" in damage else "not JSON")
    before = plan.read_bytes()
    assert code_of(model, plan) == "VIM-204"
    assert plan.read_bytes() == before
    build_engine_rtx(model, plan, force=True)
    assert inspect(plan)["record"] is not None


def test_a_record_without_its_engine_does_not_hinder(builds, model, tmp_path):
    plan = tmp_path / "model.plan"
    build_engine_rtx(model, plan)
    plan.unlink()
    assert not build_engine_rtx(model, plan).up_to_date


@pytest.mark.parametrize("content", [b"", b"just text\n", b"\x08\x08\x12\x07pyto"])
def test_unreadable_model(builds, tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert code_of(path, tmp_path / "model.plan") == "VIM-409"
    assert names(tmp_path) == {"model.onnx"}
    assert not builds


def test_truncated_model(builds, model, tmp_path):
    model.write_bytes(model.read_bytes()[:-40])
    assert code_of(model, tmp_path / "model.plan") == "VIM-409"


def test_missing_model(builds, tmp_path):
    assert code_of(tmp_path / "no.onnx", tmp_path / "model.plan") == "VIM-401"


def test_missing_folder(builds, model, tmp_path):
    assert code_of(model, tmp_path / "nowhere" / "model.plan") == "VIM-304"
    assert not builds


def test_output_is_a_folder_or_a_device(builds, model, tmp_path):
    (tmp_path / "model.plan").mkdir()
    assert code_of(model, tmp_path / "model.plan") == "VIM-304"
    assert code_of(model, Path("/dev/full")) == "VIM-304"
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert not builds


def test_output_is_the_model(builds, model, tmp_path):
    before = model.read_bytes()
    assert code_of(model, model, force=True) == "VIM-203"
    assert model.read_bytes() == before


def test_folder_that_cannot_be_written(builds, model, tmp_path, monkeypatch):
    # By a stand-in, since the superuser may write to a read-only folder.
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("vim_deploy.files.tempfile.mkstemp", refuse)
    assert code_of(model, tmp_path / "model.plan") == "VIM-304"
    assert names(tmp_path) == {"model.onnx"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_keeps_the_old_engine(builds, model, tmp_path, monkeypatch, number):
    plan = tmp_path / "model.plan"
    old = build_engine_rtx(model, plan)

    def full(job, progress):
        job.output.write_bytes(b"half of it")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(building, "run_worker", full)
    assert code_of(model, plan, force=True) == "VIM-305"
    assert read_record(plan) == old
    assert inspect(plan)["sha256"] == old.plan.sha256
    assert names(tmp_path) == {"model.onnx", "model.plan", "model.plan.json"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("fault")])
def test_an_interrupted_build_leaves_nothing(builds, model, tmp_path, monkeypatch, error):
    def interrupted(job, progress):
        job.output.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(building, "run_worker", interrupted)
    with pytest.raises(type(error)):
        build_engine_rtx(model, tmp_path / "model.plan")
    assert names(tmp_path) == {"model.onnx"}


def test_leftovers_of_a_killed_build_are_removed(builds, model, tmp_path):
    leftovers = [".model.plan.abcd_123.part", ".model.plan.json.abcd_123.part"]
    others = [".model.plan2.abcd_123.part", ".other.plan.abcd_123.part"]
    for name in leftovers + others:
        (tmp_path / name).touch()
    build_engine_rtx(model, tmp_path / "model.plan")
    assert names(tmp_path) == {"model.onnx", "model.plan", "model.plan.json", *others}


def test_one_writer_at_a_time(builds, model, tmp_path):
    plan = tmp_path / "model.plan"
    with single_writer(plan):
        assert code_of(model, plan) == "VIM-306"
    assert not builds


@pytest.mark.parametrize("word", [0x04, 0x7F])
def test_an_engine_for_other_gpus_than_asked_is_an_error(
    builds, model, tmp_path, monkeypatch, word
):
    monkeypatch.setattr(fake_rtx, "plan_word", lambda job: word)
    assert code_of(model, tmp_path / "model.plan") == "VIM-603"
    assert names(tmp_path) == {"model.onnx"}


def test_named_gpus(builds, model, tmp_path):
    record = build_engine_rtx(model, tmp_path / "model.plan", compute_capabilities=["89", "7.5"])
    assert record.compute_capabilities == ("7.5", "8.9")
    assert not record.later_gpus
    assert builds[0].named == ("7.5", "8.9")


def test_unsupported_gpu(builds, model, tmp_path):
    assert code_of(model, tmp_path / "m.plan", compute_capabilities=["9.0"]) == "VIM-202"


def test_external_weights_count_as_part_of_the_model(builds, tmp_path):
    path, plan = tmp_path / "model.onnx", tmp_path / "model.plan"

    def save(seed: int) -> None:
        model = tiny_onnx.perceptron(width=64)
        weight = np.random.default_rng(seed).standard_normal((64, 64)).astype(np.float32)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
        (tmp_path / "weights.bin").unlink(missing_ok=True)
        onnx.save(model, path, save_as_external_data=True, location="weights.bin")

    save(1)
    before = path.read_bytes()
    record = build_engine_rtx(path, plan)
    assert [item.name for item in record.external_data] == ["weights.bin"]
    save(2)
    assert path.read_bytes() == before
    assert code_of(path, plan) == "VIM-204"
    (tmp_path / "weights.bin").unlink()
    assert code_of(path, plan) == "VIM-409"


def test_record_is_plain_json(builds, model, tmp_path):
    build_engine_rtx(model, tmp_path / "model.plan")
    value = json.loads((tmp_path / "model.plan.json").read_text())
    assert value["format"] == 1
    assert "up_to_date" not in value
    assert value["profiles"] == [{"image": {"min": [1, 8], "opt": [8, 8], "max": [32, 8]}}]
