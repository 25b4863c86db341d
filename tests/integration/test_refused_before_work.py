"""What is missing is said before anything is loaded, exported, compiled or measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.support.packages import own_op_classifier
from tests.support.tiny_onnx import perceptron
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin.ort_library import LIBRARY_VARIABLE
from vim_deploy.runtimes.onnxruntime import capability
from vim_deploy.runtimes.onnxruntime import native_ops as choosing
from vim_deploy.stages import (
    bench_subjects,
    bisecting,
    deploying,
    laddering,
    running,
    verifying,
)

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    own_op_classifier(Path("toy.onnx"))
    Path("text.so").write_text("text")


@pytest.fixture(autouse=True)
def begun(monkeypatch: Patch) -> list[str]:
    """What has begun of the work that should not; it ends there."""
    names: list[str] = []

    def refuse(place: object, name: str) -> None:
        def called(*_: Any, **__: Any) -> Any:
            names.append(name)
            raise VimDeployError("VIM-312", f"{name} was called")

        monkeypatch.setattr(place, name, called)

    refuse(deploying, "export")
    refuse(bench_subjects, "export")
    refuse(choosing, "build_ort_library")
    for stage in (verifying, running):
        refuse(stage, "open_runner")
    for stage in (laddering, bisecting):
        refuse(stage, "open_subject")
    return names


def code_of(capsys: Captured, words: str) -> str:
    assert run([*words.split(), "--json"]) != 0
    code: str = json.loads(capsys.readouterr().out)["error"]["code"]
    return code


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("deploy vim-digits --no-engine --images gone", "VIM-401"),
        ("verify toy.onnx --against vim-digits --images gone", "VIM-401"),
        ("verify toy.onnx --against vim-digits --ladder --images gone", "VIM-401"),
        ("verify vim-digits --precision fp16 --bisect --images gone", "VIM-401"),
        ("bench vim-digits --provider cuda", "VIM-301"),
        ("bench toy.onnx --provider cuda", "VIM-301"),
        ("bench vim-digits --provider tensorrt --ops native", "VIM-203"),
        ("run toy.onnx p.png -o gone/out.npz", "VIM-304"),
        ("package toy.onnx --ops native -o gone/made", "VIM-304"),
        ("package toy.onnx --ops native -o toy.onnx", "VIM-304"),
        ("package toy.onnx --ops native --golden-from toy.onnx", "VIM-203"),
    ],
)
def test_what_is_not_there(
    words: str, code: str, begun: list[str], capsys: Captured, monkeypatch: Patch, tmp_path: Path
) -> None:
    monkeypatch.delenv(LIBRARY_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if "CUDAExecutionProvider" in capability.capabilities().providers:
        pytest.skip("this ONNX Runtime has the provider that has to be missing")
    Path("p.png").write_bytes(b"")
    assert (code_of(capsys, words), begun) == (code, [])
    assert not Path("vim-deploy-work").exists()


@pytest.mark.parametrize("library", ["", "text.so", "gone.so"])
@pytest.mark.parametrize("words", ["deploy vim-digits --no-engine", "bench vim-digits"])
def test_native_ops_that_are_not_to_be_had(
    words: str, library: str, begun: list[str], capsys: Captured, monkeypatch: Patch
) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, library)
    wanted = "VIM-417" if library == "text.so" else "VIM-401"
    assert (code_of(capsys, f"{words} --ops native"), begun) == (wanted, [])
    assert not Path("vim-deploy-work").exists()
    # Nobody insists on them: the work begins.
    assert code_of(capsys, words) == "VIM-312"
    assert begun == ["export"]


def test_native_ops_are_built_before_the_export(
    begun: list[str], capsys: Captured, monkeypatch: Patch, tmp_path: Path
) -> None:
    monkeypatch.delenv(LIBRARY_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for words in ("deploy vim-digits --no-engine", "bench vim-digits"):
        assert code_of(capsys, f"{words} --ops native") == "VIM-312"
    assert begun == ["build_ort_library"] * 2


def test_deploy_verifies_and_so_needs_onnx_runtime(
    begun: list[str], capsys: Captured, monkeypatch: Patch
) -> None:
    def missing() -> None:
        raise VimDeployError("VIM-301", "onnxruntime is not installed")

    monkeypatch.setattr(capability, "capabilities", missing)
    assert (code_of(capsys, "deploy vim-digits --no-engine"), begun) == ("VIM-301", [])


def test_a_plugin_library_that_is_not_there(
    begun: list[str], capsys: Captured, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(deploying, "builder_for", lambda wanted: None)
    assert code_of(capsys, "deploy vim-digits --plugin gone.so") == "VIM-401"
    providers = ("TensorrtExecutionProvider", "CPUExecutionProvider")
    here = capability.Capabilities("1.32.0", providers)
    monkeypatch.setattr(capability, "capabilities", lambda: here)
    words = "bench vim-digits --provider tensorrt --plugin gone.so"
    assert (code_of(capsys, words), begun) == ("VIM-401", [])


def test_a_file_without_our_ops_needs_no_library(
    begun: list[str], capsys: Captured, monkeypatch: Patch
) -> None:
    """Native ops of none are none; only what is exported is known to have some."""
    monkeypatch.setenv(LIBRARY_VARIABLE, "")
    onnx.save(perceptron(), "plain.onnx")
    # Its input is no picture, which is found out behind the library.
    assert (code_of(capsys, "bench plain.onnx --ops native"), begun) == ("VIM-415", [])
    assert code_of(capsys, "bench toy.onnx --ops native") == "VIM-401"
