"""The modules that import a runtime, with stand-ins for what is or is not installed."""

from __future__ import annotations

import enum
import sys
from types import ModuleType

import pytest

from tests.support.builds import install_only
from tests.support.fake_tensorrt import personality
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.onnxruntime import capability as ort
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx
from vim_deploy.stages.diagnosis import diagnose


class ComputeCapability(enum.Enum):
    NONE = 0
    CURRENT = 1
    SM120 = 120
    SM75 = 75
    SM86 = 86


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a module of a given text where Python finds it."""

    def install(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


def test_rtx_capabilities(monkeypatch):
    module = ModuleType("tensorrt_rtx")
    module.__version__ = "1.2.3.4"
    module.ComputeCapability = ComputeCapability
    monkeypatch.setattr(trt_rtx, "load", lambda: module)
    assert trt_rtx.capabilities() == trt_rtx.Capabilities(
        version="1.2.3.4",
        compute_capabilities=("7.5", "8.6", "12.0"),
        default_compute_capabilities=("8.6", "12.0"),
    )


@pytest.mark.parametrize(
    ("name", "ask"),
    [("tensorrt_rtx", trt_rtx.load), ("tensorrt", trt.capabilities)],
)
def test_libraries_that_do_not_load(package, name, ask):
    package(name, "raise ImportError('libsomething.so: cannot open shared object file')")
    with pytest.raises(VimDeployError) as caught:
        ask()
    assert caught.value.code == "VIM-301"
    assert "libsomething.so" in caught.value.why


@pytest.mark.parametrize("ask", [ort.load, trt_rtx.load, trt.capabilities])
def test_not_installed(monkeypatch, ask):
    install_only(monkeypatch)
    with pytest.raises(VimDeployError) as caught:
        ask()
    assert caught.value.code == "VIM-301"
    assert "pip install" in caught.value.fix


@pytest.mark.parametrize("lean", ["tensorrt_lean", "tensorrt_lean_bindings", "tensorrt_dispatch"])
def test_a_part_of_tensorrt_is_not_tensorrt(package, monkeypatch, lean):
    install_only(monkeypatch)
    package(lean, "raise SystemExit('it was imported')")
    with pytest.raises(VimDeployError) as caught:
        trt.capabilities()
    assert caught.value.code == "VIM-301"
    said = f"only {lean} is here, a runtime for version-compatible engines, which builds none"
    assert caught.value.why == said
    (line,) = [item for item in diagnose() if item.subject == "engine: TensorRT"]
    assert (line.ok, line.detail) == (False, f"not installed; {said}")
    (line,) = [item for item in diagnose() if item.subject == "engine: TensorRT-RTX"]
    assert line.detail == "not installed"


@pytest.mark.parametrize(
    ("version", "generation", "typed", "flags", "functions", "opset"),
    [
        ("8.6", "8.6", False, ("EXPLICIT_BATCH",), False, 17),
        ("10.3", "10", True, ("STRONGLY_TYPED",), True, None),
        ("10.14", "10", True, ("STRONGLY_TYPED",), True, None),
        ("11", "11", True, (), True, None),
    ],
)
def test_full_tensorrt_capabilities(version, generation, typed, flags, functions, opset):
    found = trt.capabilities_of(personality(version))
    assert found.generation == generation
    assert (found.strongly_typed, found.network_flags) == (typed, flags)
    assert (found.local_functions, found.max_opset) == (functions, opset)
    assert ("FP16" in found.builder_flags) == (version != "11")
    assert ("SAME_COMPUTE_CAPABILITY" in found.hardware_levels) == (version in ("10.14", "11"))
    assert found.progress_monitor == (version != "8.6")


@pytest.mark.parametrize("version", ["8.5.3", "9.3.0", "7.2", "next"])
def test_other_releases_of_full_tensorrt(version):
    module = personality("10.3")
    module.__version__ = version
    with pytest.raises(VimDeployError, match=version) as caught:
        trt.capabilities_of(module)
    assert caught.value.code == "VIM-309"


def test_full_tensorrt_version(package):
    package("tensorrt", "__version__ = '10.3.0'")
    assert trt.load().__version__ == "10.3.0"
    del sys.modules["tensorrt"]
