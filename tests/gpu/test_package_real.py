"""A package of an engine with real TensorRT: the plugin as Triton loads it, stored outputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.builds import build_engine_trt
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.codec import encode
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.cuda import runtime as cudart
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.plugins import choose_plugin
from vim_deploy.stages import check_package, package
from vim_deploy.stages.packaging import PackageOptions

pytestmark = [pytest.mark.trt, pytest.mark.gpu]


def _missing() -> str:
    """What this machine lacks; empty when it has everything."""
    try:
        capabilities, gpu = trt.capabilities(), cuda_driver.gpu()
        choose_plugin("auto", capabilities, gpu, frozenset({"VimBiSelectiveScan"}))
        cudart.Cuda()
    except VimDeployError as error:
        return f"not checked here: {error.message} {error.why}".strip()
    return ""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine of a two-layer model that needs the plugin library."""
    missing = _missing()
    if missing:
        pytest.skip(missing)
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
    build_engine_trt(model, tmp_path / "m.plan", profiles=ProfileOptions(max_batch=4))
    return tmp_path / "m.plan"


def test_everything_is_checked_where_it_runs(engine: Path, tmp_path: Path) -> None:
    made = package(engine, tmp_path / "made").folder
    moved = Path(shutil.move(made, tmp_path / "elsewhere"))
    checks = {item.name: item for item in check_package(moved).checks}
    assert "opened as the backend does" in checks["plugin"].detail
    assert checks["golden output"].checked


def test_the_file_it_was_built_from_answers_the_same(engine: Path, tmp_path: Path) -> None:
    source = PackageOptions(golden_from=tmp_path / "m.onnx")
    made = package(engine, tmp_path / "made", source).folder
    checks = {item.name: item for item in check_package(made).checks}
    assert checks["golden output"].checked
