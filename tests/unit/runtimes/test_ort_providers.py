"""ONNX Runtime's providers: options, and that nothing runs elsewhere than asked."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support.tiny_onnx import perceptron, scan_blocks
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.onnxruntime import capability as ort
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner, tensorrt_options
from vim_deploy.runtimes.onnxruntime.trt_ep import PLUGIN_DOMAIN
from vim_deploy.specs import TensorSpec

SPEC = TensorSpec("image", "float32", ("batch", 3, 224, 224))
GPU_BUILD = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


class Session:
    """What ONNX Runtime would make; notes how it was asked."""

    def __init__(self, model: Any, options: Any, providers: Any, enable_fallback: int) -> None:
        self.model, self.providers, self.enable_fallback = model, providers, enable_fallback
        Session.last = self

    last: Session
    starts = True

    def get_providers(self) -> list[str]:
        names = [item if isinstance(item, str) else item[0] for item in self.providers]
        return names if Session.starts else ["CPUExecutionProvider"]


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime-gpu whose sessions only note how they were made."""
    runtime = SimpleNamespace(
        __version__="1.22.0",
        get_available_providers=lambda: list(GPU_BUILD),
        SessionOptions=SimpleNamespace,
        InferenceSession=Session,
    )
    monkeypatch.setattr(ort, "load", lambda: runtime)
    monkeypatch.setattr(Session, "starts", True)


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "m.onnx"
    onnx.save(model, path)
    return path


def test_options_of_tensorrt(tmp_path: Path) -> None:
    assert tensorrt_options([SPEC], None, max_batch=None, types=set()) == {}
    library = tmp_path / "libvim_plugins.so"
    assert tensorrt_options([SPEC], library, max_batch=16, types={onnx.TensorProto.FLOAT16}) == {
        "trt_extra_plugin_lib_paths": str(library),
        "trt_fp16_enable": "1",
        "trt_profile_min_shapes": "image:1x3x224x224",
        "trt_profile_opt_shapes": "image:16x3x224x224",
        "trt_profile_max_shapes": "image:16x3x224x224",
    }
    sized = [SPEC, TensorSpec("size", "int64", ("batch", 2))]
    assert tensorrt_options(sized, None, max_batch=4, types=set()) == {
        "trt_profile_min_shapes": "image:1x3x224x224,size:1x2",
        "trt_profile_opt_shapes": "image:4x3x224x224,size:4x2",
        "trt_profile_max_shapes": "image:4x3x224x224,size:4x2",
    }
    fixed = TensorSpec("image", "float32", (4, 3, 224, 224))
    assert tensorrt_options([fixed], None, max_batch=4, types=set()) == {}


def test_cuda(gpu_build: None, tmp_path: Path) -> None:
    runner = OrtRunner(save(perceptron(), tmp_path), "cuda")
    assert runner.name == "ONNX Runtime 1.22.0 CUDA"
    assert Session.last.providers[0] == ("CUDAExecutionProvider", {"use_tf32": "0"})
    assert Session.last.providers[1:] == ["CPUExecutionProvider"]
    assert Session.last.enable_fallback == 0


def test_tensorrt_with_and_without_the_plugin_library(gpu_build: None, tmp_path: Path) -> None:
    path, library = save(scan_blocks(), tmp_path), tmp_path / "p.so"
    OrtRunner(path, "tensorrt")
    assert Session.last.model == str(path)
    library.write_bytes(b"x")
    OrtRunner(path, "tensorrt", plugin=library)
    model = onnx.load_from_string(Session.last.model)
    assert any(node.domain == PLUGIN_DOMAIN for node in model.graph.node)
    name, options = Session.last.providers[0]
    assert name == "TensorrtExecutionProvider"
    assert options["trt_extra_plugin_lib_paths"] == str(library)
    assert Session.last.providers[1:] == ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_missing_plugin_library(gpu_build: None, tmp_path: Path) -> None:
    with pytest.raises(VimDeployError) as caught:
        OrtRunner(save(scan_blocks(), tmp_path), "tensorrt", plugin=tmp_path / "none.so")
    assert caught.value.code == "VIM-401"


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_does_not_start_is_an_error(
    gpu_build: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    monkeypatch.setattr(Session, "starts", False)
    with pytest.raises(VimDeployError) as caught:
        OrtRunner(save(perceptron(), tmp_path), provider)
    assert caught.value.code == "VIM-302"
    assert "CPUExecutionProvider" in caught.value.why


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_the_installed_runtime_names_what_it_has(tmp_path: Path, provider: str) -> None:
    have = ort.capabilities().providers
    if ort.PROVIDERS[provider][0] in have:
        pytest.skip("this ONNX Runtime has that provider")
    with pytest.raises(VimDeployError) as caught:
        OrtRunner(save(perceptron(), tmp_path), provider)
    assert caught.value.code == "VIM-301"
    assert all(name in caught.value.why for name in have)


def test_the_installed_runtime_really_falls_back(tmp_path: Path) -> None:
    """The reason for the check: asked for a provider it lacks, a session runs on the CPU."""
    import onnxruntime

    path = str(save(perceptron(), tmp_path))
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has that provider")
    with pytest.warns(UserWarning, match="not in available provider"):
        session = onnxruntime.InferenceSession(path, providers=["CUDAExecutionProvider"])
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_unknown_provider(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError, match="tensorrt") as caught:
        OrtRunner(save(perceptron(), tmp_path), "tensort")
    assert caught.value.code == "VIM-202"


def test_cpu_still_runs(tmp_path: Path) -> None:
    runner = OrtRunner(save(perceptron(), tmp_path))
    found = runner.run(np.ones((2, 8), np.float32))["logits"]
    assert found.shape == (2, 8)
    assert runner.name.endswith("CPU")


def test_a_package_that_does_not_load_is_told_from_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('numpy.core failed to import')\n")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(VimDeployError) as caught:
        ort.load()
    assert caught.value.code == "VIM-301"
    assert "ONNX Runtime is installed, but does not load" in str(caught.value)
    assert "numpy.core failed to import" in str(caught.value)
