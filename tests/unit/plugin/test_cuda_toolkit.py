"""Finding the CUDA compiler and TensorRT's headers among what may be installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.toolkits import install
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin import toolchain as cuda_toolkit
from vim_deploy.plugin.toolchain import find_build_tools, find_tensorrt_headers, find_toolkit


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No toolkit, no headers, and only the system's own programs."""
    for name in ("CUDA_HOME", "CUDA_PATH", "TensorRT_ROOT", "CXX", "CUDACXX", "NVCC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(cuda_toolkit, "_pypi_folders", list)
    monkeypatch.setattr(cuda_toolkit, "_SYSTEM_HEADERS", ())
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
    assert "nvidia-cuda-nvcc" in caught.value.fix


OLD = "#define NV_TENSORRT_{0} {1} //!< TensorRT version.\n"
NEW = "#define TRT_{0}_ENTERPRISE {1}\n#define NV_TENSORRT_{0} TRT_{0}_ENTERPRISE //!< version\n"


def write_headers(folder: Path, form: str, version: tuple[int, int, int]) -> Path:
    folder.mkdir(parents=True)
    (folder / "NvInferRuntime.h").touch()
    parts = zip(("MAJOR", "MINOR", "PATCH"), version, strict=True)
    (folder / "NvInferVersion.h").write_text("".join(form.format(*part) for part in parts))
    return folder


@pytest.mark.parametrize(
    ("form", "version"),
    [(OLD, (8, 6, 1)), (OLD, (10, 3, 0)), (NEW, (10, 14, 1)), (NEW, (11, 1, 0))],
)
@pytest.mark.parametrize("inside", ["", "include", "include/x86_64-linux-gnu", "targets/x/include"])
def test_headers(tmp_path: Path, form: str, version: tuple[int, int, int], inside: str) -> None:
    folder = write_headers(tmp_path / "root" / inside, form, version)
    found = find_tensorrt_headers(tmp_path / "root")
    assert found.include == folder
    assert found.version == ".".join(map(str, version))
    assert found.major == version[0]


def test_headers_by_variable_and_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = write_headers(tmp_path / "system", OLD, (10, 3, 0))
    monkeypatch.setattr(cuda_toolkit, "_SYSTEM_HEADERS", (str(system),))
    assert find_tensorrt_headers().source == "system"
    write_headers(tmp_path / "root" / "include", NEW, (11, 1, 0))
    monkeypatch.setenv("TensorRT_ROOT", str(tmp_path / "root"))
    assert find_tensorrt_headers().version == "11.1.0"


@pytest.mark.parametrize("version_text", ["", "#define NV_TENSORRT_MAJOR 10\n"])
def test_no_headers(tmp_path: Path, version_text: str) -> None:
    (tmp_path / "NvInferRuntime.h").touch()
    (tmp_path / "NvInferVersion.h").write_text(version_text)
    with pytest.raises(VimDeployError) as caught:
        find_tensorrt_headers(tmp_path)
    assert caught.value.code == "VIM-308"
    assert "kernel-lens" in caught.value.fix


def test_build_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cmake", "g++"):
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_build_tools().generator == "Unix Makefiles"
    (tmp_path / "g++").unlink()
    with pytest.raises(VimDeployError) as caught:
        find_build_tools()
    assert caught.value.code == "VIM-301"
    (tmp_path / "cmake").unlink()
    with pytest.raises(VimDeployError) as caught:
        find_build_tools()
    assert "cmake" in caught.value.fix
