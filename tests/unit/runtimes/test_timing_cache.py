"""The timing cache: one for each GPU, TensorRT and plugin; a bad one costs time, not the build."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import tiny_onnx
from tests.support.builds import build_engine_trt
from tests.support.fake_tensorrt.registry import write_library
from tests.support.trt_builds import VERSIONS, make_machine, save
from vim_deploy.runtimes.building.request import TrtOptions
from vim_deploy.runtimes.tensorrt import timing_cache
from vim_deploy.runtimes.tensorrt.timing_cache import cache_path, read_cache, save_cache

KEY = {
    "gpu": "NVIDIA H200",
    "compute_capability": "9.0",
    "version": "10.3.0",
    "plugin_sha256": "ab" * 32,
}


@pytest.fixture
def single(tmp_path) -> Path:
    return save(tiny_onnx.scan_blocks(1), tmp_path / "single.onnx")


def test_everything_that_changes_timings_is_in_the_name(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    others = [
        KEY,
        *({**KEY, name: value + "1"} for name, value in KEY.items() if "sha" not in name),
    ]
    others += [{**KEY, "plugin_sha256": "cd" * 32}, {**KEY, "plugin_sha256": ""}]
    paths = {cache_path("on", **key) for key in others}
    assert len(paths) == len(others)
    assert all(path.parent == tmp_path / "vim-deploy" / "timing" for path in paths)
    assert cache_path("on", **KEY).name == "nvidia-h200-cc9.0-trt10.3.0-abababababab.cache"
    assert cache_path("off", **KEY) is None
    assert cache_path("own.cache", **KEY) == Path("own.cache")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_second_build_reads_what_the_first_wrote(monkeypatch, tmp_path, single, version):
    machine = make_machine(monkeypatch, tmp_path, version)
    build_engine_trt(single, tmp_path / "a.plan")
    (path,) = (tmp_path / "cache" / "vim-deploy" / "timing").iterdir()
    assert version in path.name
    build_engine_trt(single, tmp_path / "b.plan")
    read = [content for (content,) in machine.fake.arguments("IBuilderConfig.create_timing_cache")]
    assert read[0] == b""
    assert read[1] == path.read_bytes()[: len(read[1])]
    assert read[1]
    assert not machine.warnings()


@pytest.mark.parametrize("content", [b"garbage", b"fake timing cache 9.9.9 timed"])
def test_a_bad_cache_is_left_aside_with_a_note(monkeypatch, tmp_path, single, content):
    machine = make_machine(monkeypatch, tmp_path, "10.14")
    own = tmp_path / "own.cache"
    own.write_bytes(content)
    build_engine_trt(single, tmp_path / "a.plan", options=TrtOptions(timing_cache=str(own)))
    (note,) = machine.warnings()
    assert str(own) in note
    assert "starting a new one" in note
    assert b"10.14" in own.read_bytes()


def test_off_means_no_cache(monkeypatch, tmp_path, single):
    machine = make_machine(monkeypatch, tmp_path, "10.14")
    build_engine_trt(single, tmp_path / "a.plan", options=TrtOptions(timing_cache="off"))
    assert not [name for name in machine.fake.names() if "timing_cache" in name]
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_costs_no_engine(monkeypatch, tmp_path, single):
    machine = make_machine(monkeypatch, tmp_path, "10.14")
    path = str(single / "under-a-file.cache")
    build_engine_trt(single, tmp_path / "a.plan", options=TrtOptions(timing_cache=path))
    assert any("was not saved" in note for note in machine.warnings())


def test_another_plugin_has_another_cache(monkeypatch, tmp_path, single):
    make_machine(monkeypatch, tmp_path, "10.14")
    build_engine_trt(single, tmp_path / "a.plan")
    other = write_library(tmp_path / "other.so", "V3", ("VimSelectiveScan",))
    make_machine(monkeypatch, tmp_path, "10.14")
    build_engine_trt(single, tmp_path / "b.plan", options=TrtOptions(plugin=str(other)))
    assert len(list((tmp_path / "cache" / "vim-deploy" / "timing").iterdir())) == 2


def test_files_that_are_no_caches(monkeypatch, tmp_path):
    assert read_cache(tmp_path / "none") == (b"", "")
    content, note = read_cache(tmp_path)
    assert (content, "cannot be read" in note) == (b"", True)
    monkeypatch.setattr(timing_cache, "MAX_CACHE_BYTES", 3)
    save_cache(tmp_path / "big", b"1234")
    content, note = read_cache(tmp_path / "big")
    assert (content, "too much" in note) == (b"", True)


def test_what_a_killed_build_left_goes_when_timings_are_saved(tmp_path):
    path = tmp_path / "timing" / "gpu.cache"
    path.parent.mkdir()
    (path.parent / ".gpu.cache.abcdefgh.part").write_bytes(b"half")
    (path.parent / ".gpu.cache.lock").touch()
    assert save_cache(path, b"whole") == ""
    assert [entry.name for entry in path.parent.iterdir()] == ["gpu.cache"]
    assert read_cache(path) == (b"whole", "")


def test_two_builds_that_save_timings_at_once_both_do(tmp_path):
    path = tmp_path / "gpu.cache"
    contents = [bytes([number]) * 1000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        notes = list(pool.map(lambda content: save_cache(path, content), contents))
    assert notes == [""] * 8
    assert path.read_bytes() in contents
