"""A library of native ops for ONNX Runtime: what it says, and where it is taken from."""

from __future__ import annotations

import json
import os
import platform
import shutil
from pathlib import Path

import pytest

from tests.support.c_library import SAID, compile_c, native_ops, saying
from tests.support.ort_ops import built_library
from vim_deploy.errors import VimDeployError
from vim_deploy.ops import OPS
from vim_deploy.plugin import build_ort, describe, ort_library
from vim_deploy.plugin.build_cache import KEY_FILE
from vim_deploy.plugin.ort_library import (
    describe_ort_library,
    find_ort_library,
    library_name,
    needed_glibc,
    no_ort_library,
    sources_key,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(ort_library.LIBRARY_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return describe.cache_folder()


def in_cache(cache: Path, name: str, key: object, age: int = 0) -> Path:
    library = cache / name / library_name("cpu")
    library.parent.mkdir(parents=True)
    library.touch()
    os.utime(library, (1000 - age, 1000 - age))
    (library.parent / KEY_FILE).write_text(json.dumps(key))
    return library


def test_the_built_library_describes_itself() -> None:
    info = describe_ort_library(built_library())
    assert (info.provider, info.domain, info.domain_version) == ("cpu", "vim_deploy", 1)
    assert info.ops == tuple(OPS)
    assert info.instruction_set in info.instruction_sets
    assert info.title == f"native ops ({info.instruction_set})"
    assert info.kernels in info.sentence
    assert len(info.sha256) == 64
    assert info.ort_api == 17


def test_least_c_library_is_read_from_the_file() -> None:
    major, minor = needed_glibc(built_library()).split(".")[:2]
    # The first of x86-64 was 2.2.5.
    assert int(major) == 2
    assert 2 <= int(minor) < 200


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + b"\xff" * 200])
def test_files_whose_tables_lead_nowhere_need_no_c_library(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "library"
    path.write_bytes(data)
    assert needed_glibc(path) == ""


@pytest.mark.parametrize("cut", [64, 4096])
def test_a_library_that_was_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.so"
    path.write_bytes(built_library().read_bytes()[:-cut])
    assert needed_glibc(path) == ""


@pytest.mark.parametrize("kept", [16, 64, 300, 60_000, 200_000])
def test_what_was_cut_off_is_never_loaded(tmp_path: Path, kept: int) -> None:
    """The loader would map what is not there, and the process die of it."""
    path = tmp_path / "cut.so"
    path.write_bytes(built_library().read_bytes()[:kept])
    with pytest.raises(VimDeployError, match="plugin library") as caught:
        describe_ort_library(path)
    assert (caught.value.code, caught.value.why) == ("VIM-417", "the file is cut off")


def test_a_build_that_was_damaged_is_made_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def compile_it(_work: object, library: Path) -> None:
        made.append(library)
        shutil.copy(built_library(), library)

    monkeypatch.setattr(build_ort._Work, "compile", compile_it)
    said: list[str] = []
    first = build_ort.build_ort_library(build_ort.OrtBuildSettings(), say=said.append)
    assert not first.up_to_date
    assert build_ort.build_ort_library(build_ort.OrtBuildSettings(), say=said.append).up_to_date
    first.library.unlink()
    first.library.write_bytes(built_library().read_bytes()[:5000])
    again = build_ort.build_ort_library(build_ort.OrtBuildSettings(), say=said.append)
    assert (again.library, again.up_to_date, len(made)) == (first.library, False, 2)
    assert "cannot be used: the file is cut off" in said[-2]


def test_another_contract(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError) as caught:
        describe_ort_library(saying(tmp_path, json.dumps(SAID), contract=7))
    assert caught.value.code == "VIM-903"
    assert "plugin build --target onnxruntime" in caught.value.fix


@pytest.mark.parametrize("other", [{"domain": "theirs"}, {"domain_version": 2}])
def test_another_domain(tmp_path: Path, other: dict[str, object]) -> None:
    with pytest.raises(VimDeployError) as caught:
        describe_ort_library(native_ops(tmp_path, **other))
    assert caught.value.code == "VIM-903"


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", "no json", "[" * 100_000),
        json.dumps({**SAID, "ops": "all"}),
        json.dumps({**SAID, "ort_api": "17"}),
        json.dumps({**SAID, "name": "vim_ort_cuda"}),
        json.dumps({**SAID, "name": "vim_ort_tpu", "provider": "tpu"}),
        json.dumps(SAID)[:-1] + ', "ort_api": 1e999}',
    ],
)
def test_what_is_no_description(tmp_path: Path, text: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        describe_ort_library(saying(tmp_path, text))
    assert caught.value.code == "VIM-417"


def test_files_that_are_no_library(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("text")
    foreign = compile_c(tmp_path, "int answer(void) { return 42; }\n")
    for path in (text, foreign):
        with pytest.raises(VimDeployError) as caught:
            describe_ort_library(path)
        assert caught.value.code == "VIM-417"


def test_where_a_library_is_taken_from(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_library, "_INSTALLED", tmp_path / "native")
    assert find_ort_library() is None
    key = sources_key("cpu")
    old = in_cache(cache, "old", key, age=5)
    assert find_ort_library() == old
    new = in_cache(cache, "new", {**key, "compiler": "clang++"})
    assert find_ort_library() == new
    assert find_ort_library("cuda") is None
    installed = tmp_path / "native" / library_name("cpu")
    installed.parent.mkdir()
    installed.touch()
    assert find_ort_library() == installed
    monkeypatch.setenv(ort_library.LIBRARY_VARIABLE, str(old))
    assert find_ort_library() == old
    monkeypatch.setenv(ort_library.LIBRARY_VARIABLE, str(installed.parent))
    assert find_ort_library() == installed
    with pytest.raises(VimDeployError) as caught:
        find_ort_library("cuda")
    assert caught.value.code == "VIM-401"
    assert find_ort_library(explicit=new) == new
    monkeypatch.setenv(ort_library.LIBRARY_VARIABLE, "")
    assert find_ort_library() is None


def test_a_named_library_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ort_library.LIBRARY_VARIABLE, str(tmp_path / "gone.so"))
    with pytest.raises(VimDeployError) as caught:
        find_ort_library()
    assert caught.value.code == "VIM-401"


@pytest.mark.parametrize(
    ("made_of", "known"),
    [
        ({"sources": "0" * 64}, "was built of other sources"),
        ({"machine": "vax"}, f"was built on vax, and this machine is {platform.machine()}"),
        ({"machine": "vax", "sources": "0" * 64}, "was built on vax"),
        ([], "says what it was built of"),
        (None, "says what it was built of"),
    ],
)
def test_stale_libraries_are_not_taken(cache: Path, made_of: object, known: str) -> None:
    key = {**sources_key("cpu"), **made_of} if isinstance(made_of, dict) else made_of
    stale = in_cache(cache, "stale", key)
    assert find_ort_library() is None
    lack = no_ort_library("cpu")
    assert known in lack.why
    assert str(stale) in lack.why
    assert lack.fix == "vim-deploy plugin build --target onnxruntime"


def test_without_sources_no_build_is_taken(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none is called one of other sources: nobody can compare."""
    built = in_cache(cache, "built", sources_key("cpu"))
    assert find_ort_library() == built
    monkeypatch.setenv("VIM_DEPLOY_PLUGIN_SOURCES", str(tmp_path))
    assert find_ort_library() is None
    lack = no_ort_library("cpu")
    assert "nobody can say" in lack.why
    assert str(tmp_path) in lack.why
    assert str(built) in lack.why
    assert "VIM_DEPLOY_ORT_OPS" in lack.fix


def test_why_there_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not cache.exists()
    assert "none was built here" in no_ort_library("cuda").why
    assert no_ort_library("cuda").fix.endswith("--provider cuda")
    monkeypatch.setenv(ort_library.LIBRARY_VARIABLE, "")
    assert "means none" in no_ort_library("cpu").why
    assert no_ort_library("cpu").fix == "unset VIM_DEPLOY_ORT_OPS"


def test_a_library_beside_a_model_or_here_is_not_taken(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not cache.exists()
    monkeypatch.chdir(tmp_path)
    shutil.copy(built_library(), tmp_path / library_name("cpu"))
    assert find_ort_library() is None
