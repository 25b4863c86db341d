"""Building the plugin library: settings, cache, and what is said when something is missing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from tests.support import plugins
from tests.support.c_library import PLUGIN_SAID, saying
from vim_deploy.codec import encode
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import NoHeadersError, VimDeployError
from vim_deploy.plugin import build as plugin_build
from vim_deploy.plugin import describe as plugin_library
from vim_deploy.plugin import headers
from vim_deploy.plugin.build import PluginSettings, build_plugin, resolve_architectures
from vim_deploy.plugin.toolchain import Toolkit

TOOLKIT = Toolkit(
    Path("/toolkit/bin/nvcc"),
    "13.0",
    "PATH",
    ("75", "80", "86", "87", "89", "90", "100", "110", "120"),
)


def quiet(_: str) -> None:
    pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return plugin_library.cache_folder()


def test_all_architectures() -> None:
    names, left_out = resolve_architectures("all", TOOLKIT)
    assert names == (
        *("75-real", "80-real", "86-real", "87-real", "89-real", "90-real"),
        *("100", "120"),
    )
    assert left_out == ()


def test_all_leaves_out_what_the_compiler_does_not_know() -> None:
    old = dataclasses.replace(TOOLKIT, version="12.2", architectures=("75", "80", "86", "90"))
    assert resolve_architectures("all", old) == (
        ("75-real", "80-real", "86", "90"),
        ("87", "89", "100", "120"),
    )


@pytest.mark.parametrize("text", ["90,80", "8.0, 9.0", "sm_90,sm_80,80"])
def test_list_of_architectures(text: str) -> None:
    assert resolve_architectures(text, TOOLKIT) == (("80-real", "90"), ())


@pytest.mark.parametrize("text", ["", "ampere", "8", "80;90", "80,", "-1", "70", "999"])
def test_architectures_that_are_none(text: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        resolve_architectures(text, TOOLKIT)
    assert caught.value.code == "VIM-202"


def test_native_asks_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "gpu", lambda: cuda_driver.Gpu("H200", 9, 0, 132))
    assert resolve_architectures("native", TOOLKIT) == (("90-real",), ())


def test_native_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> cuda_driver.Gpu:
        raise VimDeployError("VIM-302", "no usable GPU", why="no driver")

    monkeypatch.setattr(cuda_driver, "gpu", none)
    with pytest.raises(VimDeployError) as caught:
        resolve_architectures("native", TOOLKIT)
    assert caught.value.code == "VIM-302"
    assert "--arch" in caught.value.fix


def test_where_nobody_says_the_gpu_at_hand_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(cuda_driver, "gpu", lambda: cuda_driver.Gpu("H200", 9, 0, 132))
    assert plugin_build.default_arch(said.append) == "native"
    assert said == []

    def none() -> cuda_driver.Gpu:
        raise VimDeployError("VIM-302", "no usable GPU", why="no driver")

    monkeypatch.setattr(cuda_driver, "gpu", none)
    assert plugin_build.default_arch(said.append) == "all"
    assert said == ["no usable GPU here (no driver): compiling for all, as --arch all"]


def test_headers_are_fetched_where_none_are_and_a_release_needs_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class FetchedError(Exception):
        pass

    def fetch(_: object) -> None:
        raise FetchedError

    monkeypatch.setattr(headers, "_SYSTEM_HEADERS", ())
    monkeypatch.delenv("TensorRT_ROOT", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(plugin_build, "fetch_headers", fetch)
    with pytest.raises(FetchedError):
        plugin_build._fitting_headers(PluginSettings("80"), quiet)
    for settings in (PluginSettings("80", "8.6"), PluginSettings("80", tensorrt_root=tmp_path)):
        with pytest.raises(NoHeadersError):
            plugin_build._fitting_headers(settings, quiet)


def test_hash_follows_the_sources(tmp_path: Path) -> None:
    shutil.copytree(plugins.PLUGINS, tmp_path / "plugins", ignore=shutil.ignore_patterns("build"))
    copy = tmp_path / "plugins"
    before = plugin_build.hash_sources(copy)
    assert before == plugin_build.hash_sources(plugins.PLUGINS)
    (copy / "tests" / "note.txt").write_text("tests do not change the library")
    assert plugin_build.hash_sources(copy) == before
    header = copy / "include" / "vim_plugins" / "contract.h"
    header.write_text(header.read_text() + "\n")
    changed = plugin_build.hash_sources(copy)
    assert changed != before
    header.rename(header.with_name("renamed.h"))
    assert plugin_build.hash_sources(copy) not in (before, changed)


def test_missing_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIM_DEPLOY_PLUGIN_SOURCES", str(tmp_path))
    with pytest.raises(VimDeployError) as caught:
        build_plugin(PluginSettings(), say=quiet)
    assert caught.value.code == "VIM-401"


def write_headers(folder: Path, major: int) -> Path:
    folder.mkdir()
    (folder / "NvInferRuntime.h").touch()
    numbers = zip(("MAJOR", "MINOR", "PATCH"), (major, 6, 1), strict=True)
    (folder / "NvInferVersion.h").write_text(
        "".join(f"#define NV_TENSORRT_{name} {number} //!< text\n" for name, number in numbers)
    )
    return folder


@pytest.mark.parametrize(("asked", "there"), [("8.6", 10), ("10", 8), ("11", 8)])
def test_headers_of_another_release(tmp_path: Path, asked: str, there: int) -> None:
    plugins.need_toolkit()
    headers = write_headers(tmp_path / "include", there)
    with pytest.raises(VimDeployError) as caught:
        build_plugin(PluginSettings("80", asked, tensorrt_root=headers), say=quiet)
    assert caught.value.code == "VIM-308"
    assert f"{there}.6.1" in caught.value.why


def test_unknown_release() -> None:
    plugins.need_toolkit()
    with pytest.raises(VimDeployError) as caught:
        build_plugin(PluginSettings("80", "9"), say=quiet)
    assert caught.value.code == "VIM-202"


def test_failed_build_says_what_the_compiler_said_and_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.need_toolkit()
    plugins.need_tool("cmake")
    # Headers that have a version and nothing else: the kernels are not reached before CMake
    # starts on the broken file.
    broken = tmp_path / "plugins"
    (broken / "kernels").mkdir(parents=True)
    (broken / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.24)\nproject(x LANGUAGES CXX)\n"
        "add_library(vim_plugins SHARED kernels/bad.cpp)\n"
    )
    (broken / "kernels" / "bad.cpp").write_text("int f() { return nothing_here; }\n")
    monkeypatch.setenv("VIM_DEPLOY_PLUGIN_SOURCES", str(broken))
    headers = write_headers(tmp_path / "include", 10)
    with pytest.raises(VimDeployError) as caught:
        build_plugin(PluginSettings("80", tensorrt_root=headers), say=quiet)
    assert caught.value.code == "VIM-605"
    assert "nothing_here" in caught.value.why
    assert list(cache.iterdir()) == []


def test_a_library_that_was_damaged_is_made_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.need_toolkit()
    plugins.need_tool("cmake")
    made = saying(tmp_path, json.dumps(PLUGIN_SAID))
    monkeypatch.setattr(plugin_build._Work, "compile", lambda _, path: shutil.copy(made, path))
    headers = write_headers(tmp_path / "include", 10)
    said: list[str] = []

    def build() -> plugin_build.PluginBuild:
        return build_plugin(PluginSettings("80", tensorrt_root=headers), say=said.append)

    first = build()
    assert not first.up_to_date
    assert build().up_to_date
    assert first.library.parent.parent == cache
    first.library.unlink()
    first.library.write_bytes(made.read_bytes()[:5000])
    said.clear()
    again = build()
    assert (again.library, again.up_to_date) == (first.library, False)
    assert any("cannot be used: the file is cut off" in line for line in said)
    assert again.library.read_bytes() == made.read_bytes()


@pytest.mark.slow
def test_second_build_is_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plugins.need_plugin()
    monkeypatch.setenv("XDG_CACHE_HOME", str(first.library.parents[3]))
    said: list[str] = []
    settings = PluginSettings(plugins.ARCHITECTURE, "11", tensorrt_root=first.headers.include)
    output = tmp_path / "out"
    output.mkdir()
    again = build_plugin(settings, output, said.append)
    assert again.up_to_date
    assert again.seconds == 0
    assert again.library == output / plugin_library.LIBRARY_NAME
    assert again.info.sha256 == first.info.sha256
    assert any("nvcc" in line for line in said)
    assert any("TensorRT headers 10.14.1" in line for line in said)
    json.dumps(encode(again))
    other = tmp_path / "other.so"
    other.write_bytes(b"precious")
    with pytest.raises(VimDeployError) as caught:
        build_plugin(settings, other, quiet)
    assert caught.value.code == "VIM-204"
    assert other.read_bytes() == b"precious"
    build_plugin(settings, other, quiet, force=True)
    assert other.read_bytes() == first.library.read_bytes()
    assert build_plugin(settings, other, quiet).library == other
    note = json.loads((first.library.parent / "build.json").read_text())
    assert note["architectures"] == ["80"]
    # The build's own folder is gone.
    assert sorted(path.name for path in first.library.parent.iterdir() if path.is_dir()) == []
