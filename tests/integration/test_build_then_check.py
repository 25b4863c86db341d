"""What the builder writes, the passport check reads: every release, on the fake TensorRT."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.support import tiny_onnx
from tests.support.builds import build_engine_trt
from tests.support.trt_builds import H200, VERSIONS, make_machine, save
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.passport import Machine, check_passport
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.request import TrtOptions


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tiny_onnx.scan_blocks(2), tmp_path / "m.onnx")


@pytest.mark.parametrize("version", VERSIONS)
def test_engine_fits_where_it_was_built_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, version: str
) -> None:
    built = make_machine(monkeypatch, tmp_path, version)
    plan = tmp_path / "m.plan"
    build_engine_trt(model, plan)
    here = Machine("tensorrt", str(built.module.__version__), "9.0", H200.name)
    passport = check_passport(Artifact.engine(plan), here, batch=8)
    assert passport.notes == ()
    assert passport.plugin == built.library
    for other in (
        dataclasses.replace(here, version="10.9.0"),
        dataclasses.replace(here, compute_capability="8.0", gpu="NVIDIA A100"),
    ):
        with pytest.raises(VimDeployError) as caught:
            check_passport(Artifact.engine(plan), other)
        assert caught.value.code == "VIM-901"
    with pytest.raises(VimDeployError) as caught:
        check_passport(Artifact.engine(plan), here, batch=33)
    assert caught.value.code == "VIM-905"
    built.library.write_text("rebuilt")
    with pytest.raises(VimDeployError) as caught:
        check_passport(Artifact.engine(plan), here)
    assert caught.value.code == "VIM-903"


def test_hardware_compatible_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    built = make_machine(monkeypatch, tmp_path, "10.14")
    plan = tmp_path / "m.plan"
    build_engine_trt(model, plan, options=TrtOptions(hardware_compat="ampere+"))
    for capability, fits in (("8.0", True), ("8.9", True), ("12.0", True), ("7.5", False)):
        there = Machine("tensorrt", str(built.module.__version__), capability, "Other GPU")
        if fits:
            assert any(
                "Other GPU" in note for note in check_passport(Artifact.engine(plan), there).notes
            )
            continue
        with pytest.raises(VimDeployError) as caught:
            check_passport(Artifact.engine(plan), there)
        assert caught.value.code == "VIM-901"
