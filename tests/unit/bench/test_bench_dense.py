"""Benchmarks of dense models: estimates against measured peaks, and baselines that fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.detectors import described, stand_in
from tests.support.reference import checkpoint_path
from vim_deploy.bench.subject import ONNX_RUNTIME, PYTORCH, dense_size, model_bytes
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import find
from vim_deploy.recipe.catalog import find_recipe
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.stages.benchmarking import BenchOptions, benchmark
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

SEGMENTOR = str(checkpoint_path("E01_upernet"))


@pytest.mark.parametrize(
    ("recipe", "head", "side", "runner", "peak"),
    [
        ("upernet-vim-tiny", "logits", 256, ONNX_RUNTIME, 232),
        ("upernet-vim-tiny", "logits", 512, ONNX_RUNTIME, 498),
        ("upernet-vim-tiny", "logits", 256, PYTORCH, 492),
        ("vimdet-tiny", "features", 512, ONNX_RUNTIME, 259),
        ("vimdet-tiny", "features", 512, PYTORCH, 558),
    ],
)
def test_estimates(recipe: str, head: str, side: int, runner: str, peak: int) -> None:
    """Peaks in MB, batch 1, ONNX Runtime 1.32 and PyTorch 2.13 on Linux x86-64."""
    found = find_recipe(recipe)
    assert found.dense is not None
    config = found.model_config.replace(img_size=side)
    behind = dense_size(config, found.dense, find(head, dense=True))
    assert 0.9 < model_bytes(config, 1, runner, behind) / 1e6 / peak < 1.3


def test_what_the_head_gives_decides() -> None:
    found = find_recipe("upernet-vim-tiny")
    assert found.dense is not None
    heads = ("features", "logits", "upsampled+aux")
    sizes = [dense_size(found.model_config, found.dense, find(head, dense=True)) for head in heads]
    assert sizes[0].values < sizes[1].values < sizes[2].values
    assert sizes[0].weights < sizes[1].weights == sizes[2].weights
    assert (
        dense_size(found.model_config, found.dense, find("labels", dense=True)).values
        == sizes[2].values
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "seg.onnx"
    options = ExportOptions(head="labels", check=False)
    return export(ModelRequest(SEGMENTOR), path, options).path


def test_pytorch_beside_a_segmentation_network(file: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = BenchOptions(baselines=("pytorch",), warmup=0, duration=0.05, threads=1)
    report = benchmark([file], options)
    report.require_measured()
    found = {item.subject.runtime: item for item in report.measurements}
    assert set(found) == {ONNX_RUNTIME, PYTORCH}
    for item in found.values():
        assert item.subject.tokens == 16
        assert item.subject.image == (64, 64)
        assert item.subject.estimated_bytes is not None


@pytest.mark.parametrize("baseline", ["deit", "deit-tiny"])
def test_no_classifier_beside_a_dense_model(file: Path, baseline: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        benchmark([file], BenchOptions(baselines=(baseline,)))
    assert caught.value.code == "VIM-203"
    assert "--baseline pytorch" in caught.value.fix


def test_a_detector(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    report = benchmark([stand_in(tmp_path / "det.onnx")], BenchOptions(warmup=0, duration=0.02))
    report.require_measured()
    (item,) = report.measurements
    assert item.finite
    assert item.subject.image == (64, 64)
    info = described()
    assert info.dense is not None
    sizes = [
        dense_size(info.model_config, info.dense, find(head, dense=True))
        for head in ("features", "detections")
    ]
    # 1000 regions of 7 x 7 bins and 8 channels, twelve times.
    assert sizes[1].values - sizes[0].values >= 12 * 1000 * 49 * 8 - sizes[0].values
    assert sizes[1].weights > sizes[0].weights
