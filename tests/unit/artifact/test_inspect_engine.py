"""Describing engine files without a runtime."""

from __future__ import annotations

import pytest

from tests.support import fake_rtx
from vim_deploy.artifact.engine_file import read_header
from vim_deploy.errors import VimDeployError
from vim_deploy.stages.inspecting import inspect

#: As trtexec reads it: mark, a zero word, the version at byte 24.
FULL_TENSORRT = b"ftrt" + bytes(20) + bytes((10, 3, 0, 26)) + bytes(100)


def test_rtx_plan_without_record(tmp_path):
    path = tmp_path / "model.plan"
    path.write_bytes(fake_rtx.plan_bytes(word=0x0C))
    found = inspect(path)
    assert found["runtime"] == "tensorrt-rtx"
    assert found["runtime_version"] == "1.7.1.116"
    assert found["compute_capabilities"] == ["8.6", "8.9"]
    assert found["later_gpus"] is False
    assert found["record"] is None
    assert found["bytes"] == path.stat().st_size


def test_full_tensorrt_plan(tmp_path):
    path = tmp_path / "model.plan"
    path.write_bytes(FULL_TENSORRT)
    found = inspect(path)
    assert (found["runtime"], found["runtime_version"]) == ("tensorrt", "10.3.0.26")
    assert found["compute_capabilities"] == []


def test_gpus_of_an_unknown_version_are_not_guessed(tmp_path):
    path = tmp_path / "model.plan"
    data = bytearray(fake_rtx.plan_bytes())
    data[25] = 9
    path.write_bytes(data)
    assert read_header(path).compute_capabilities == ()


PLAN = fake_rtx.plan_bytes(b"x" * 100)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"not an engine at all, only a line of text\n" * 2, "mark"),
        (bytes(200), "mark"),
        (PLAN[:3], "mark"),
        (PLAN[:20], "truncated"),
        (PLAN[:-1], "truncated"),
        (PLAN + b"!", "longer"),
        (PLAN[:4] + b"\x01" + PLAN[5:], "damaged"),
        (FULL_TENSORRT[:30], "truncated"),
    ],
)
def test_not_an_engine(tmp_path, content, word):
    path = tmp_path / "model.plan"
    path.write_bytes(content)
    with pytest.raises(VimDeployError) as caught:
        inspect(path)
    assert caught.value.code == "VIM-413"
    assert word in caught.value.why


def test_missing_file(tmp_path):
    with pytest.raises(VimDeployError) as caught:
        inspect(tmp_path / "no.plan")
    assert caught.value.code == "VIM-401"
