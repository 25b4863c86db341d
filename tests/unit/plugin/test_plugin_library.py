"""A plugin library file: what is taken for one, what it says, where it is looked for."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import plugins
from tests.support.c_library import compile_c
from vim_deploy.errors import VimDeployError
from vim_deploy.ops import PLUGIN_OPS, contract
from vim_deploy.plugin import describe as plugin_library
from vim_deploy.plugin.describe import PluginInfo, describe_plugin, gpu_architectures

INFO = PluginInfo(
    path="libvim_plugins.so",
    sha256="0" * 64,
    version="0.1.0",
    contract_version=1,
    plugin_version="1",
    plugin_namespace="",
    ops=(),
    interface="V3",
    tensorrt="10.14.1",
    cuda="13.0",
    architectures=("sm_80", "sm_90", "compute_90"),
    kernels="",
)


def entry(kind: int, arch: int, payload: bytes = b"\x50\xed\x55\xba") -> bytes:
    header = struct.pack("<HHIQ", kind, 1, 64, len(payload)) + bytes(12) + struct.pack("<I", arch)
    return header.ljust(64, b"\0") + payload


def fatbin(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_architectures_are_read_from_every_fatbin(tmp_path: Path) -> None:
    path = tmp_path / "library"
    path.write_bytes(
        b"\x7fELF"
        + fatbin(entry(2, 90), entry(1, 120))
        + b"between"
        + fatbin(entry(2, 80), entry(2, 120))
    )
    assert gpu_architectures(path) == ("sm_80", "sm_90", "sm_120", "compute_120")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x50\xed\x55\xba",
        fatbin(entry(2, 90))[:-1],
        fatbin(entry(7, 90)),
        fatbin(entry(2, 90)[:20]),
        struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 2**63),
        struct.pack("<IHHQ", 0xBA55ED50, 2, 16, 0),
    ],
)
def test_what_only_looks_like_a_fatbin(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "library"
    path.write_bytes(data)
    assert gpu_architectures(path) == ()


@pytest.mark.parametrize(
    ("major", "minor", "runs"),
    [(8, 0, True), (8, 6, True), (9, 0, True), (12, 0, True), (7, 5, False)],
)
def test_runs_on(major: int, minor: int, runs: bool) -> None:
    assert INFO.runs_on(major, minor) is runs


def test_machine_code_does_not_run_on_other_majors() -> None:
    only_80 = replace(INFO, architectures=("sm_80",))
    assert only_80.runs_on(8, 9)
    assert not only_80.runs_on(9, 0)
    only_86 = replace(INFO, architectures=("sm_86",))
    assert not only_86.runs_on(8, 0)


def test_which_tensorrt_is_served() -> None:
    assert INFO.serves == ("10", "11")
    assert replace(INFO, tensorrt="8.6.1").serves == ("8.6",)


@pytest.mark.slow
def test_the_built_library_describes_itself() -> None:
    info = plugins.need_plugin().info
    assert info.ops == tuple(PLUGIN_OPS)
    assert info.contract_version == contract.CONTRACT_VERSION
    assert (info.plugin_version, info.plugin_namespace) == ("1", "")
    assert info.architectures == ("sm_80", "compute_80")
    assert (info.interface, info.tensorrt) == ("V3", "10.14.1")
    assert info.serves == ("10", "11")


@pytest.mark.parametrize("data", [b"", b"not a library", b"\x7fELF and no more"])
def test_files_that_are_no_library(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "libvim_plugins.so"
    path.write_bytes(data)
    with pytest.raises(VimDeployError) as caught:
        describe_plugin(path)
    assert caught.value.code == "VIM-417"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.so", tmp_path):
        with pytest.raises(VimDeployError) as caught:
            describe_plugin(path)
        assert caught.value.code == "VIM-401"


def test_foreign_library(tmp_path: Path) -> None:
    library = compile_c(tmp_path, "int answer(void) { return 42; }\n")
    with pytest.raises(VimDeployError) as caught:
        describe_plugin(library)
    assert caught.value.code == "VIM-417"


def test_library_of_another_contract(tmp_path: Path) -> None:
    library = compile_c(tmp_path, "int vim_plugins_contract_version(void) { return 99; }\n")
    with pytest.raises(VimDeployError) as caught:
        describe_plugin(library)
    assert caught.value.code == "VIM-903"
    assert "99" in caught.value.why


@pytest.mark.parametrize("said", ["", "{}", "[1]", "no json"])
def test_library_that_does_not_describe_itself(tmp_path: Path, said: str) -> None:
    library = compile_c(
        tmp_path,
        "int vim_plugins_contract_version(void) { return 1; }\n"
        f'const char *vim_plugins_build_info(void) {{ return "{said}"; }}\n',
    )
    with pytest.raises(VimDeployError) as caught:
        describe_plugin(library)
    assert caught.value.code == "VIM-417"


def test_where_the_library_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(plugin_library.LIBRARY_VARIABLE, raising=False)
    with pytest.raises(VimDeployError) as caught:
        plugin_library.find_plugin_library()
    assert caught.value.code == "VIM-401"
    paths = []
    for age, name in enumerate(("new", "old")):
        path = plugin_library.cache_folder() / name / plugin_library.LIBRARY_NAME
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
        paths.append(path)
    assert plugin_library.find_plugin_library() == paths[0]
    named = tmp_path / "named.so"
    monkeypatch.setenv(plugin_library.LIBRARY_VARIABLE, str(named))
    with pytest.raises(VimDeployError) as caught:
        plugin_library.find_plugin_library()
    assert caught.value.code == "VIM-401"
    named.touch()
    assert plugin_library.find_plugin_library() == named
    assert plugin_library.find_plugin_library(paths[1]) == paths[1]


def test_relative_cache_setting_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    # The XDG base directory specification says so.
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert plugin_library.cache_folder().is_absolute()
