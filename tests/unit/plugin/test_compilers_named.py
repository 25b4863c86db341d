"""Compilers that variables name: with a launcher, with arguments, in a folder with a space."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import plugins
from tests.support.c_library import SAID
from tests.support.toolkits import install
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin import build_ort
from vim_deploy.plugin.build_cache import KEY_FILE
from vim_deploy.plugin.build_ort import OrtBuildSettings, build_ort_library
from vim_deploy.plugin.toolchain import find_build_tools, find_toolkit

VARIABLES = (
    *("CXX", "CC", "CUDACXX", "NVCC", "CUDAHOSTCXX", "NVCC_CCBIN", "CXXFLAGS", "LDFLAGS"),
    *("CUDA_HOME", "CUDA_PATH"),
)
#: Says what it was called as, and calls it.
LAUNCHER = '#!/bin/sh\necho "$@" >> {log}\nexec "$@"\n'


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with cmake, make, g++ and a launcher, which is all that is on PATH."""
    for name in ("cmake", "make", "g++", "launch", "clang++"):
        program(tmp_path / "bin" / name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def error_of(call: Callable[[], object]) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("", ["g++"]),
        ("  ", ["g++"]),
        ("clang++", ["clang++"]),
        (" g++ ", ["g++"]),
        ("g++ -m64", ["g++", "-m64"]),
        ("launch g++", ["launch", "g++"]),
        ("launch g++ -DA='b c' -m64", ["launch", "g++", "-DA=b c", "-m64"]),
        ("g++ $HOME `id` ;", ["g++", "$HOME", "`id`", ";"]),
    ],
)
def test_cxx_is_taken_as_it_is_typed(
    bare: Path, monkeypatch: pytest.MonkeyPatch, named: str, words: list[str]
) -> None:
    monkeypatch.setenv("CXX", named)
    assert find_build_tools().compiler == (str(bare / words[0]), *words[1:])


def test_a_compiler_in_a_folder_with_a_space(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path / "my tools" / "c++")
    monkeypatch.setenv("CXX", str(path))
    assert find_build_tools().compiler == (str(path),)
    monkeypatch.setenv("CXX", f"'{path}' -m64")
    assert find_build_tools().compiler == (str(path), "-m64")
    assert shlex.split(find_build_tools().compiler_line) == [str(path), "-m64"]


def test_a_relative_one_is_meant_from_here(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "own" / "c++")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "own/c++ -m64")
    assert find_build_tools().compiler == (str(tmp_path / "own" / "c++"), "-m64")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("named", "code"),
    [("gone++", "VIM-301"), ("gone g++", "VIM-301"), ("''", "VIM-301"), ("g++ 'x", "VIM-202")],
)
def test_no_other_compiler_is_taken_for_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, named: str, code: str
) -> None:
    monkeypatch.setenv("CXX", named)
    error = error_of(find_build_tools)
    assert error.code == code
    assert "CXX" in error.message + error.why
    assert "CXX" in error.fix


@pytest.mark.parametrize("variable", ["CUDACXX", "NVCC"])
def test_the_cuda_compiler_that_is_named(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(install(tmp_path / "home")))
    named = install(tmp_path / "na med") / "bin" / "nvcc"
    monkeypatch.setenv(variable, str(named))
    found = find_toolkit()
    assert (found.nvcc, found.source) == (named, variable)
    (bare / "nvcc-13").symlink_to(named)
    monkeypatch.setenv(variable, "nvcc-13")
    assert find_toolkit().nvcc == named
    other = install(tmp_path / "other")
    assert find_toolkit(other).root == other

    monkeypatch.setenv(variable, str(tmp_path / "gone"))
    error = error_of(find_toolkit)
    assert error.code == "VIM-307"
    assert f"{variable}: no file {tmp_path / 'gone'}" in error.why
    for text in ("launch nvcc-13", "nvcc-13 -lineinfo"):
        monkeypatch.setenv(variable, text)
        error = error_of(find_toolkit)
        assert error.code == "VIM-202"
        assert "NVCC_APPEND_FLAGS" in error.fix


@pytest.mark.parametrize("variable", ["CUDAHOSTCXX", "NVCC_CCBIN"])
def test_one_compiler_makes_both_halves(
    bare: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    tools = find_build_tools()
    tools.require_for_nvcc()
    monkeypatch.setenv(variable, str(bare / "g++"))
    tools.require_for_nvcc()
    monkeypatch.setenv(variable, "clang++")
    error = error_of(tools.require_for_nvcc)
    assert error.code == "VIM-203"
    assert variable in error.message
    monkeypatch.setenv("CXX", "clang++")
    find_build_tools().require_for_nvcc()


#: A library that describes itself, and compiles where it was told to.
PROJECT = """cmake_minimum_required(VERSION 3.18)
project(try LANGUAGES {languages})
add_library(vim_ort_{provider} SHARED said.cpp {more})
"""
SOURCE = """#if TOLD != 7
#error not told
#endif
extern "C" int vim_plugins_contract_version() {{ return {contract}; }}
extern "C" const char *vim_plugins_build_info() {{ return {text}; }}
"""


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_a_launcher_and_arguments_are_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """By CMake, and by nvcc for the host's half of its files."""
    plugins.need_tool("cmake")
    compiler = plugins.need_tool("g++")
    cuda = provider == "cuda"
    if cuda:
        plugins.need_toolkit()
    said = {**SAID, "provider": provider, "name": f"vim_ort_{provider}"}
    sources = tmp_path / "plugins"
    project = sources / ("" if cuda else "cpu")
    project.mkdir(parents=True)
    more = {"languages": "CXX CUDA" if cuda else "CXX", "more": "half.cu" if cuda else ""}
    (project / "CMakeLists.txt").write_text(PROJECT.format(provider=provider, **more))
    text = SOURCE.format(contract=said["contract_version"], text=json.dumps(json.dumps(said)))
    (project / "said.cpp").write_text(text)
    (project / "half.cu").write_text("#if TOLD != 7\n#error not told\n#endif\nvoid half() {}\n")
    log = tmp_path / "log"
    launcher = program(tmp_path / "a launcher", LAUNCHER.format(log=shlex.quote(str(log))))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VIM_DEPLOY_PLUGIN_SOURCES", str(sources))
    settings = OrtBuildSettings(provider, "80" if cuda else "native")
    assert error_of(lambda: build_ort_library(settings, say=print)).code == "VIM-605"

    monkeypatch.setenv("CXX", f"'{launcher}' {compiler} -DTOLD=7")
    lines: list[str] = []
    built = build_ort_library(settings, say=lines.append)
    assert built.info.provider == provider
    calls = log.read_text()
    assert f"{compiler} -DTOLD=7" in calls
    assert "said.cpp" in calls
    assert ("half" in calls) is cuda
    assert "-DTOLD=7" in lines[0]
    made_of = json.loads((built.library.parent / KEY_FILE).read_text())
    assert shlex.split(made_of["compiler"]) == [str(launcher), compiler, "-DTOLD=7"]


@pytest.mark.usefixtures("bare")
def test_flags_that_compilers_are_given_make_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """CMake reads them by itself, so what was built without them is another library."""

    def key() -> dict[str, object]:
        return build_ort._Work.found(OrtBuildSettings()).key()

    plain = key()
    monkeypatch.setenv("LDFLAGS", "")
    assert key() == plain
    monkeypatch.setenv("CXXFLAGS", "-O1")
    assert key() == {**plain, "CXXFLAGS": "-O1"}
    monkeypatch.setenv("CXX", "launch g++")
    assert key()["compiler"] != plain["compiler"]
