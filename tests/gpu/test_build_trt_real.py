"""The builder on real TensorRT and a real GPU: what the fake only imitates."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from tests.support import tiny_onnx
from tests.support.builds import build_engine_trt
from tests.support.trt_builds import half_scan_blocks, save
from vim_deploy.artifact.engine_file import read_header
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.codec import encode
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.request import TrtOptions
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.plugins import choose_plugin
from vim_deploy.runtimes.tensorrt.refit import refit_engine
from vim_deploy.stages.inspecting import inspect

SMALL = ProfileOptions(max_batch=2)


def _missing() -> str:
    """What this machine lacks; empty when it has everything."""
    try:
        capabilities, gpu = trt.capabilities(), cuda_driver.gpu()
        choose_plugin("auto", capabilities, gpu, frozenset({"VimSelectiveScan"}))
    except VimDeployError as error:
        return f"not checked here: {error.message} {error.why}".strip()
    return ""


pytestmark = [pytest.mark.trt, pytest.mark.gpu]


@pytest.fixture(scope="module", autouse=True)
def _machine() -> None:
    missing = _missing()
    if missing:
        pytest.skip(missing)


@pytest.fixture
def single(tmp_path) -> Path:
    return save(tiny_onnx.scan_blocks(2, width=16), tmp_path / "single.onnx")


@pytest.mark.parametrize("half", [False, True])
def test_plugin_layers_and_types(tmp_path, half):
    model = half_scan_blocks(2) if half else tiny_onnx.scan_blocks(2)
    record = build_engine_trt(save(model, tmp_path / "m.onnx"), tmp_path / "m.plan", profiles=SMALL)
    assert record.plugin_layers == {"VimSelectiveScan": 2}
    assert record.precision == ("fp16" if half else "fp32")
    assert inspect(tmp_path / "m.plan")["record"] == encode(record)
    header = read_header(tmp_path / "m.plan")
    assert header.runtime == "tensorrt"
    # Where the version stands in a plan was read off TensorRT 10's own trtexec.
    assert record.runtime_version.split(".")[:2] == header.version.split(".")[:2]


def test_without_the_plugin(tmp_path):
    pytest.importorskip("torch", reason="not checked here: torch is not installed")
    from tests.support.models import perturbed, save_training_file, tiny_config
    from vim_deploy.families.vim.network.vim import VisionMamba
    from vim_deploy.recipe.schema import ModelRequest
    from vim_deploy.stages.export_options import ExportOptions
    from vim_deploy.stages.exporting import export

    config = tiny_config()
    checkpoint = save_training_file(perturbed(VisionMamba(config)), tmp_path / "tiny.pth")
    request = ModelRequest(str(checkpoint), config=encode(config))
    model = export(request, tmp_path / "m.onnx", ExportOptions(check=False)).path
    options = TrtOptions(plugin="none")
    record = build_engine_trt(model, tmp_path / "a.plan", options=options, profiles=SMALL)
    assert record.plugin is None
    record = build_engine_trt(model, tmp_path / "b.plan", precision="fp16", profiles=SMALL)
    assert record.plugin_layers == {"VimBiCausalConv": 2, "VimBiSelectiveScan": 2}


def test_options_and_a_damaged_timing_cache(single, tmp_path, caplog):
    cache = tmp_path / "own.cache"
    cache.write_bytes(b"no timing cache")
    options = TrtOptions(
        timing_cache=str(cache), opt_level=2, workspace_mib=256, hardware_compat="ampere+",
        export_layers=tmp_path / "layers.json",
    )  # fmt: skip
    record = build_engine_trt(single, tmp_path / "a.plan", options=options, profiles=SMALL)
    assert "starting a new one" in caplog.text
    assert record.later_gpus
    assert json.loads((tmp_path / "layers.json").read_text())["Layers"]
    caplog.clear()
    build_engine_trt(single, tmp_path / "b.plan", options=options, profiles=SMALL)
    assert "starting a new one" not in caplog.text


def test_refit(single, tmp_path):
    build_engine_trt(single, tmp_path / "a.plan", options=TrtOptions(refit=True), profiles=SMALL)
    other = onnx.load(single)
    for tensor in other.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values * values.dtype.type(0.5), tensor.name))
    record = refit_engine(tmp_path / "a.plan", save(other, tmp_path / "b.onnx"))
    assert record.weights_from.name == "b.onnx"


def test_too_large_a_profile_fails_with_a_code(tmp_path):
    model = save(tiny_onnx.scan_blocks(1, length=4096, width=4096), tmp_path / "m.onnx")
    with pytest.raises(VimDeployError) as caught:
        build_engine_trt(model, tmp_path / "m.plan", profiles=ProfileOptions(max_batch=1 << 20))
    assert caught.value.code in ("VIM-603", "VIM-608", "VIM-604")
    assert not (tmp_path / "m.plan").exists()
