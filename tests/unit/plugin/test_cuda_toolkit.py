"""Finding the CUDA compiler and what builds are made with among what may be installed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.toolkits import install
from vim_deploy.errors import VimDeployError
from vim_deploy.installation import extra_command
from vim_deploy.plugin import toolchain as cuda_toolkit
from vim_deploy.plugin.toolchain import find_build_tools, find_toolkit


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No toolkit, and only the system's own programs."""
    for name in ("CUDA_HOME", "CUDA_PATH", "CXX", "CUDACXX", "NVCC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(cuda_toolkit, "_pypi_folders", list)
    monkeypatch.setattr(cuda_toolkit, "_scripts_folders", list)
    monkeypatch.setattr(cuda_toolkit, "_DEFAULT_NVCC", tmp_path / "none")


def test_explicit_root_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = install(tmp_path / "named", "12.8")
    monkeypatch.setenv("CUDA_HOME", str(install(tmp_path / "home")))
    found = find_toolkit(named)
    assert (found.nvcc, found.version) == (named / "bin" / "nvcc", "12.8")
    assert found.architectures == ("80", "90", "120")
    assert found.root == named


def test_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = install(tmp_path / "path")
    monkeypatch.setenv("PATH", f"{on_path}/bin:/usr/bin:/bin")
    assert find_toolkit().source == "PATH"
    monkeypatch.setenv("CUDA_PATH", str(install(tmp_path / "cuda_path")))
    assert find_toolkit().source == "CUDA_PATH"
    monkeypatch.setenv("CUDA_HOME", str(install(tmp_path / "home")))
    assert find_toolkit().source == "CUDA_HOME"


def test_pypi_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    install(site / "nvidia" / "cu12", "12.9")
    newest = install(site / "nvidia" / "cu13", "13.5")
    monkeypatch.undo()
    monkeypatch.setattr(sys, "path", [str(site)])
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    assert cuda_toolkit._pypi_folders() == [newest, site / "nvidia" / "cu12"]


def test_incomplete_toolkit_is_passed_over_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = install(tmp_path / "partial", complete=False)
    monkeypatch.setenv("CUDA_HOME", str(partial))
    with pytest.raises(VimDeployError) as caught:
        find_toolkit()
    assert caught.value.code == "VIM-307"
    assert "cicc" in caught.value.why
    monkeypatch.setenv("CUDA_PATH", str(install(tmp_path / "whole")))
    assert find_toolkit().source == "CUDA_PATH"


def test_wrapper_script_is_followed(tmp_path: Path) -> None:
    real = install(tmp_path / "real")
    (tmp_path / "wrapper" / "bin").mkdir(parents=True)
    script = tmp_path / "wrapper" / "bin" / "nvcc"
    script.write_text(f'#!/bin/sh\nexec {real}/bin/nvcc "$@"\n')
    script.chmod(0o755)
    assert find_toolkit(tmp_path / "wrapper").nvcc == real / "bin" / "nvcc"


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho gcc 12\n", "junk"])
def test_program_that_is_no_compiler(tmp_path: Path, text: str) -> None:
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.write_text(text)
    nvcc.chmod(0o755)
    with pytest.raises(VimDeployError) as caught:
        find_toolkit(tmp_path)
    assert caught.value.code == "VIM-307"


def test_nothing_at_all() -> None:
    with pytest.raises(VimDeployError) as caught:
        find_toolkit()
    assert caught.value.code == "VIM-307"
    assert extra_command("plugin") in caught.value.fix


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_build_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cmake", "g++"):
        program(tmp_path / name)
    monkeypatch.setenv("PATH", str(tmp_path))
    lacks("ninja or make")
    make = program(tmp_path / "make")
    found = find_build_tools()
    assert (found.generator, found.maker) == ("Unix Makefiles", make)
    ninja = program(tmp_path / "ninja")
    found = find_build_tools()
    assert (found.generator, found.maker) == ("Ninja", ninja)
    (tmp_path / "g++").unlink()
    lacks("a C++ compiler")
    (tmp_path / "cmake").unlink()
    assert "cmake ninja" in lacks("cmake").fix


def lacks(what: str) -> VimDeployError:
    with pytest.raises(VimDeployError, match=re.escape(f"needs {what}")) as caught:
        find_build_tools()
    assert caught.value.code == "VIM-301"
    return caught.value


def test_programs_of_an_environment_that_is_not_activated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "path" / "g++")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    own = tmp_path / "environment"
    monkeypatch.setattr(cuda_toolkit, "_scripts_folders", lambda: [str(own)])
    cmake, ninja = program(own / "cmake"), program(own / "ninja")
    found = find_build_tools()
    assert (found.cmake, found.maker) == (cmake, ninja)
    words = found.configure(tmp_path, tmp_path / "build", Path("/usr/bin/g++"))
    assert f"-DCMAKE_MAKE_PROGRAM={ninja}" in words
    assert find_build_tools().cmake == cmake
    assert program(tmp_path / "path" / "cmake") == find_build_tools().cmake
