"""``vim-deploy plugin``: what it prints, and its exit codes without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import plugins
from vim_deploy.cli.main import run
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import VimDeployError


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> cuda_driver.Gpu:
        raise VimDeployError("VIM-302", "no usable GPU", why="not on this machine")

    monkeypatch.setattr(cuda_driver, "gpu", none)


def error_code(capsys: pytest.CaptureFixture[str]) -> str:
    return json.loads(capsys.readouterr().out)["error"]["code"]


def test_help_of_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugin", "--help"]) == 0
    text = capsys.readouterr().out
    for name in ("build", "info", "test"):
        assert name in text
        assert run(["plugin", name, "--help"]) == 0


def test_info_of_no_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugin", "info", str(tmp_path / "none.so"), "--json"]) == 4
    assert error_code(capsys) == "VIM-401"
    (tmp_path / "text.so").write_text("text")
    assert run(["plugin", "info", str(tmp_path / "text.so"), "--json"]) == 4
    assert error_code(capsys) == "VIM-417"


@pytest.mark.usefixtures("no_gpu")
def test_test_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = tmp_path / "libvim_plugins.so"
    library.touch()
    assert run(["plugin", "test", str(library), "--json"]) == 3
    assert error_code(capsys) == "VIM-302"


@pytest.mark.usefixtures("no_gpu")
def test_native_build_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.need_toolkit()
    plugins.need_tool("cmake")
    (tmp_path / "NvInferRuntime.h").touch()
    (tmp_path / "NvInferVersion.h").write_text(
        "#define NV_TENSORRT_MAJOR 10\n#define NV_TENSORRT_MINOR 3\n#define NV_TENSORRT_PATCH 0\n"
    )
    assert run(["plugin", "build", "--tensorrt-root", str(tmp_path), "--json"]) == 3
    assert error_code(capsys) == "VIM-302"


@pytest.mark.slow
def test_info_of_a_built_library(capsys: pytest.CaptureFixture[str]) -> None:
    built = plugins.need_plugin()
    assert run(["plugin", "info", str(built.library), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["serves"] == ["10", "11"]
    assert told["architectures"] == ["sm_80", "compute_80"]
    assert run(["plugin", "info", str(built.library)]) == 0
    assert "VimBiSelectiveScan" in capsys.readouterr().out


@pytest.mark.slow
def test_library_without_code_for_this_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = plugins.need_plugin()
    monkeypatch.setattr(cuda_driver, "gpu", lambda: cuda_driver.Gpu("T4", 7, 5, 40))
    assert run(["plugin", "test", str(built.library), "--json"]) == 9
    assert error_code(capsys) == "VIM-904"
