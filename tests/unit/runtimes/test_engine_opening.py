"""Plugin libraries and code inside plans: what is loaded before an engine, and only then."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support import fake_rtx
from tests.support.builds import needs_rtx
from tests.support.engines import images, record_of, use_fake_gpu, write_engine, write_record
from tests.support.fake_cudart import FakeCudart
from tests.support.fake_tensorrt import VERSIONS
from tests.support.fake_tensorrt.registry import OPS, write_library
from tests.support.fake_tensorrt.runtime import expected, runtime_module
from tests.support.trt_builds import describe_fake
from vim_deploy.artifact.record import PluginIdentity
from vim_deploy.errors import VimDeployError
from vim_deploy.files import sha256_of
from vim_deploy.ops import contract
from vim_deploy.runtimes.tensorrt import opening
from vim_deploy.runtimes.tensorrt.engine import LoadedEngine
from vim_deploy.runtimes.tensorrt.runner import TrtRunner
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx

NEEDS = {"plugins": ("VimBiCausalConv", "VimBiSelectiveScan")}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeCudart]:
    monkeypatch.delenv("VIM_DEPLOY_PLUGIN", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(opening, "describe_plugin", describe_fake)
    fake = use_fake_gpu(monkeypatch)
    yield fake
    gc.collect()
    assert fake.leaks() == {}


def make(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, folder: Path, version: str, **changes: Any
) -> tuple[ModuleType, Path, Path]:
    """A TensorRT, an engine that needs plugins, with its record, and the library beside it."""
    module = runtime_module(version, gpu)
    library = write_library(folder / "libvim_plugins.so", "V2" if version == "8.6" else "V3", OPS)

    plan = {**NEEDS, **changes.pop("plan", {})}
    path = write_engine(folder, version, **plan)
    interface = json.loads(library.read_text())["interface"]
    plugin = PluginIdentity(
        library.name, sha256_of(library), "1.0", contract.CONTRACT_VERSION, interface, OPS,
        embedded=changes.pop("embedded", False),
    )  # fmt: skip
    write_record(path, record_of(path, version, plugin=plugin, **changes))
    return module, path, library


def error_of(path: Path, module: ModuleType, **options: Any) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        TrtRunner(path, module=module, **options)
    error = caught.value
    error.__traceback__ = None
    error.__context__ = error.__cause__ = None
    return error


@pytest.mark.parametrize("version", list(VERSIONS))
def test_library_of_the_record_is_loaded_first(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, version: str
) -> None:
    module, path, library = make(monkeypatch, gpu, tmp_path, version)
    with TrtRunner(path, module=module) as runner:
        assert runner.notes == ()
        np.testing.assert_array_equal(runner.run(images(2))["logits"], expected(images(2)))
    calls = module.state.calls
    if version != "8.6":
        assert calls.index(f"load {library.name}") < calls.index("deserialize")
    # A second runner: the registry has the library already, and says None to that.
    with TrtRunner(path, module=module) as runner:
        runner.run(images(1))


def test_without_the_library(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path
) -> None:
    module, path, library = make(monkeypatch, gpu, tmp_path, "10.14")
    library.unlink()
    assert error_of(path, module).code == "VIM-903"
    assert "deserialize" not in module.state.calls


def test_library_for_another_generation(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path
) -> None:
    module, path, _ = make(monkeypatch, gpu, tmp_path, "10.3")
    old = write_library(tmp_path / "old.so", "V2")
    error = error_of(path, module, plugin=old)
    assert error.code == "VIM-903"
    assert "8.6" in error.message
    assert not any(call.startswith("load") for call in module.state.calls)


def test_library_that_tensorrt_does_not_take(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path
) -> None:
    module, path, _ = make(monkeypatch, gpu, tmp_path, "11")
    monkeypatch.setattr(type(module.get_plugin_registry()), "load_library", lambda self, path: None)
    error = error_of(path, module)
    assert error.code == "VIM-903"
    assert "VimBiSelectiveScan" in error.why


def test_code_in_a_plan_runs_only_when_allowed(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path
) -> None:
    module, path, library = make(
        monkeypatch, gpu, tmp_path, "10.14",
        plan={"lean": True}, flags=("VERSION_COMPATIBLE",), embedded=True,
    )  # fmt: skip
    library.unlink()
    error = error_of(path, module)
    assert error.code == "VIM-203"
    assert "--allow-plan-code" in error.fix
    assert "deserialize" not in module.state.calls
    with TrtRunner(path, module=module, allow_plan_code=True) as runner:
        np.testing.assert_array_equal(runner.run(images(1))["logits"], expected(images(1)))


def test_tensorrts_own_refusal_of_code_is_explained(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path
) -> None:
    module, path, _ = make(
        monkeypatch, gpu, tmp_path, "10.14", plan={"lean": True}, flags=("VERSION_COMPATIBLE",)
    )
    error = error_of(path, module)
    assert error.code == "VIM-203"
    assert "getEngineHostCodeAllowed" in error.why


@pytest.mark.parametrize("recorded", [True, False])
def test_code_is_not_allowed_where_none_is_known(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path, recorded: bool
) -> None:
    module, path, _ = make(monkeypatch, gpu, tmp_path, "10.14")
    if not recorded:
        (tmp_path / "model.plan.json").unlink()
    error = error_of(path, module, allow_plan_code=True)
    assert error.code == "VIM-203"
    assert "deserialize" not in module.state.calls


def test_rtx_engine_takes_no_library(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeCudart, tmp_path: Path
) -> None:
    gpu.cc = "8.9"
    module, _, library = make(monkeypatch, gpu, tmp_path, "11")
    module.__version__ = "1.7.1.116"
    monkeypatch.setattr(trt_rtx, "load", lambda: module)
    path = tmp_path / "rtx.plan"
    path.write_bytes(fake_rtx.plan_bytes())
    with pytest.raises(VimDeployError) as caught:
        TrtRunner(path, plugin=library)
    assert caught.value.code == "VIM-203"
    assert not any(call.startswith("load") for call in module.state.calls)


@needs_rtx
def test_the_real_rtx_module_has_every_name_the_runner_uses() -> None:
    """TensorRT-RTX has the shape of TensorRT 11; what is used of 11 has to be there."""
    module = trt_rtx.load()
    used = {
        "Runtime": "deserialize_cuda_engine engine_host_code_allowed get_plugin_registry",
        "ICudaEngine": "num_io_tensors get_tensor_name get_tensor_mode get_tensor_dtype "
        "get_tensor_shape num_optimization_profiles get_tensor_profile_shape "
        "create_execution_context device_memory_size_v2",
        "IExecutionContext": "active_optimization_profile set_optimization_profile_async "
        "set_input_shape get_tensor_shape set_tensor_address execute_async_v3 set_debug_listener "
        "set_tensor_debug_state set_all_tensors_debug_state",
        "IDebugListener": "process_debug_tensor",
        "INetworkDefinition": "mark_debug",
        "IPluginRegistry": "load_library get_creator",
        "ILogger": "log",
    }
    missing = [
        f"{cls}.{name}"
        for cls, names in used.items()
        for name in names.split()
        if not hasattr(getattr(module, cls), name)
    ]
    assert missing == []
    assert module.TensorIOMode.INPUT.name == "INPUT"
    assert {"FLOAT", "HALF", "BF16", "INT64", "UINT8"} <= set(module.DataType.__members__)
    assert {"DEVICE", "HOST"} <= set(module.TensorLocation.__members__)


@pytest.mark.rtx
@needs_rtx
def test_the_real_rtx_module_says_that_there_is_no_gpu() -> None:
    if shutil.which("nvidia-smi") is not None:
        pytest.skip("this machine has an NVIDIA driver")
    with pytest.raises(VimDeployError) as caught:
        LoadedEngine(trt_rtx.load(), fake_rtx.plan_bytes(), "model.plan")
    assert caught.value.code == "VIM-302"
    assert "cudaError 35" in caught.value.why
