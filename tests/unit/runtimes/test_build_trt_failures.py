"""Builds with full TensorRT that fail, are stopped or killed: nothing half-written is left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import tiny_onnx
from tests.support.builds import build_engine_trt
from tests.support.fake_tensorrt import worker as fake_worker
from tests.support.source import REPOSITORY
from tests.support.trt_builds import VERSIONS, make_machine, save
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building import build as building
from vim_deploy.runtimes.building import process as build_process


@pytest.fixture
def single(tmp_path) -> Path:
    return save(tiny_onnx.scan_blocks(2), tmp_path / "single.onnx")


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda version, **behaviour: make_machine(monkeypatch, tmp_path, version, **behaviour)


@pytest.fixture
def process(monkeypatch, tmp_path):
    """Builds run in a real process of their own, on a fake TensorRT."""

    def start(version: str, **behaviour: object) -> None:
        make_machine(monkeypatch, tmp_path, version)
        monkeypatch.setattr(building, "run_worker", build_process.run_worker)
        line = fake_worker.command(version, **behaviour)
        monkeypatch.setattr(build_process, "worker_command", lambda _: line)

    return start


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def error_of(model: Path, **arguments) -> VimDeployError:
    folder = model.parent
    before = names(folder) - {"cache"}
    with pytest.raises(VimDeployError) as caught:
        build_engine_trt(model, folder / "m.plan", **arguments)
    assert caught.value.fix
    assert names(folder) - {"cache"} == before
    return caught.value


@pytest.mark.parametrize("version", VERSIONS)
def test_out_of_memory(make, single, version):
    make(version, fail="memory")
    error = error_of(single)
    assert error.code == "VIM-608"
    assert "8589934592" in error.why
    assert "--max-batch" in error.fix


@pytest.mark.parametrize("version", VERSIONS)
def test_a_builder_that_gives_nothing(make, single, version):
    make(version, fail="none")
    assert error_of(single).code == "VIM-603"


def test_a_profile_that_does_not_fit_the_model(make, single):
    make("10.14")
    shapes = ProfileOptions(opt_shapes=("tokens:1x7x8",))
    assert error_of(single, profiles=shapes).code == "VIM-415"


def test_a_parser_that_refuses(make, tmp_path):
    make("8.6")
    model = tiny_onnx.elementwise({"x": ("batch", 4)}, "Mystery", domain="other")
    model.opset_import.append(tiny_onnx.helper.make_opsetid("other", 1))
    error = error_of(save(model, tmp_path / "m.onnx"))
    assert error.code == "VIM-601"
    assert "number 0" in error.why


def test_a_full_disk(make, single, monkeypatch):
    machine = make("10.14")
    run = machine.run_worker

    def full(job, progress):
        run(replace(job, output=Path(os.devnull)), progress)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(building, "run_worker", full)
    assert error_of(single).code == "VIM-305"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_real_process_builds(process, single, tmp_path, version):
    process(version)
    seen = []
    record = build_engine_trt(single, tmp_path / "m.plan", progress=seen.append)
    assert record.plugin_layers == {"VimSelectiveScan": 2}
    assert "Building engine" in {state.phase for state in seen}
    assert (tmp_path / "m.plan").stat().st_size == record.plan.bytes


def test_a_killed_build_process(process, single):
    process("10.14", fail="kill")
    error = error_of(single)
    assert error.code == "VIM-604"
    assert "SIGKILL" in error.why


@pytest.mark.parametrize("version", ["8.6", "10.14"])
def test_an_interrupt_stops_the_build_and_keeps_the_old_engine(process, single, tmp_path, version):
    process(version)
    build_engine_trt(single, tmp_path / "m.plan")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("m.plan*")}
    process(version, step_seconds=30.0)

    def stop(state):
        if state.phase == "Building engine":
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build_engine_trt(single, tmp_path / "m.plan", progress=stop, force=True)
    assert time.monotonic() - began < 20
    assert {path.name: path.read_bytes() for path in tmp_path.glob("m.plan*")} == before
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_tool_that_is_killed_leaves_nothing_but_what_the_next_run_removes(
    process, single, tmp_path
):
    """SIGKILL of the tool itself: its build process notices and removes its files."""
    process("10.14")
    line = fake_worker.command("10.14", step_seconds=60.0)
    code = f"""
import sys
from pathlib import Path
from tests.support.builds import build_engine_trt
from tests.support.trt_builds import make_machine
from vim_deploy.runtimes.building import process as build_process
from vim_deploy.runtimes.building import build as building
import pytest
patch = pytest.MonkeyPatch()
folder = Path({str(tmp_path)!r})
make_machine(patch, folder, "10.14")
patch.setattr(building, "run_worker", build_process.run_worker)
patch.setattr(build_process, "worker_command", lambda _: {line!r})
build_engine_trt(
    folder / "single.onnx", folder / "m.plan",
    progress=lambda state: print(state.phase, flush=True),
)
"""
    tool = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert tool.stdout is not None
    for text in tool.stdout:
        if text.startswith("Building engine"):
            break
    tool.send_signal(signal.SIGKILL)
    tool.wait(10)
    tool.stdout.close()
    # The plan and the lowered model go with the build process; the record's part stays hidden.
    deadline = time.monotonic() + 15
    while len(list(tmp_path.glob(".m.plan.*.part"))) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not (tmp_path / "m.plan").exists()
    assert not (tmp_path / "m.plan.json").exists()
    build_engine_trt(single, tmp_path / "m.plan")
    assert not [name for name in names(tmp_path) if name.startswith(".")]
