"""``vim-deploy plugin``: what it prints, and its exit codes without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import plugins
from tests.support.c_library import PLUGIN_SAID, native_ops, saying
from vim_deploy.cli.main import run
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin.ort_library import library_name


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


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What calls itself a library of native ops for CPUs, under the name that folders have it."""
    folder = tmp_path_factory.mktemp("native")
    return native_ops(folder).rename(folder / library_name("cpu"))


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What calls itself a plugin library for TensorRT."""
    return saying(tmp_path_factory.mktemp("plugin"), json.dumps(PLUGIN_SAID))


def test_info_of_either_kind(
    native: Path, plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--target`` need not be said where LIBRARY is; where it is said, it has to be so."""
    for library, kind, key in ((native, "onnxruntime", "provider"), (plugin, "tensorrt", "serves")):
        other = "tensorrt" if kind == "onnxruntime" else "onnxruntime"
        for words in ([], ["--target", kind]):
            assert run(["plugin", "info", str(library), "--json", *words]) == 0
            assert key in json.loads(capsys.readouterr().out)
        assert run(["plugin", "info", str(library), "--json", "--target", other]) == 4
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["code"] == "VIM-417"
        assert kind in error["why"]


def test_info_of_what_a_variable_names_is_of_the_target(
    native: Path,
    plugin: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What would be taken for it, or refused."""
    for variable, words, right, wrong in (
        ("VIM_DEPLOY_PLUGIN", [], plugin, native),
        ("VIM_DEPLOY_ORT_OPS", ["--target", "onnxruntime"], native, plugin),
    ):
        monkeypatch.setenv(variable, str(right))
        assert run(["plugin", "info", "--json", *words]) == 0
        assert json.loads(capsys.readouterr().out)["path"] == str(right)
        monkeypatch.setenv(variable, str(wrong))
        assert run(["plugin", "info", "--json", *words]) == 4
        assert error_code(capsys) == "VIM-417"


@pytest.mark.parametrize("command", ["info", "test"])
@pytest.mark.parametrize("way", ["named", "folder", "variable"])
def test_a_library_for_another_provider_is_refused(
    command: str,
    way: str,
    native: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["plugin", command, "--target", "onnxruntime", "--provider", "cuda", "--json"]
    if way == "variable":
        monkeypatch.setenv("VIM_DEPLOY_ORT_OPS", str(native))
    else:
        words.append(str(native if way == "named" else native.parent))
    # A folder has a file for each provider, and this one none for GPUs.
    status, code = (4, "VIM-401") if way == "folder" else (9, "VIM-903")
    assert run(words) == status
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert "cuda" in error["message"] + error["why"]


def test_info_of_the_provider_that_is_asked_for(
    native: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for library in (native, native.parent):
        words = ["plugin", "info", str(library), "--target", "onnxruntime", "--json"]
        for more in ([], ["--provider", "cpu"]):
            assert run([*words, *more]) == 0
            assert json.loads(capsys.readouterr().out)["path"] == str(native)


@pytest.mark.parametrize("command", ["build", "info", "test"])
@pytest.mark.parametrize("target", [[], ["--target", "tensorrt"]])
def test_a_provider_is_for_native_ops(
    command: str, target: list[str], native: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = [] if command == "build" else [str(native)]
    words = ["plugin", command, *library, *target, "--provider", "cpu", "--json"]
    assert run(words) == 2
    assert error_code(capsys) == "VIM-203"


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
    words = ["plugin", "build", "--arch", "native", "--tensorrt-root", str(tmp_path), "--json"]
    assert run(words) == 3
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
