"""Engines in bench: the measuring process on stand-ins of TensorRT and CUDA, and the options."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench import bench_report, measured
from tests.support.engines import record_of, use_fake_gpu, write_engine, write_record
from tests.support.fake_cudart import FakeCudart
from tests.support.fake_tensorrt.runtime import runtime_module
from vim_deploy.bench.table import COLUMNS, result_rows
from vim_deploy.bench.worker import answers
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.stages.bench_subjects import SubjectMaker


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCudart]:
    """A pretended GPU with TensorRT 10.14, on which nothing may be left."""
    fake = use_fake_gpu(monkeypatch)
    module = runtime_module("10.14", fake)
    monkeypatch.setattr(trt, "load", lambda: module)
    yield fake
    gc.collect()
    assert fake.leaks() == {}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = write_engine(tmp_path)
    # Its size is then that of the input.
    write_record(path, record_of(path, export=None, precision="fp16"))
    return path


def groups(*names: Path | str, **options: Any) -> list[list[Any]]:
    values: dict[str, Any] = {
        "image_sizes": (),
        "batches": (1, 3),
        "baselines": (),
        "random_weights": None,
        "graph": "fused",
        "runner": RunnerOptions(),
        "cuda_graph": False,
    }
    maker = SubjectMaker(Path(), **{**values, **options}, progress=lambda _: None)
    return maker.groups(names)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_an_engine_is_measured(gpu: FakeCudart, engine: Path, cuda_graph: bool) -> None:
    (_, (subject,)) = groups(engine, cuda_graph=cuda_graph)
    assert (subject.runtime, subject.batch, subject.image) == ("tensorrt", 3, (2, 3))
    assert subject.facts["precision"] == "fp16"
    job = {"runner": subject.runner, "source": subject.source, "batch": 3, "threads": 1}
    orders = iter([job, {"do": "turn", "seconds": 0.01, "settle": True}, {"do": "end"}])
    ready, turn, end = answers(orders)
    assert ready["name"].startswith("TensorRT 10.14")
    assert len(turn["host"]) == len(turn["device"]) > 0
    assert set(turn["device"]) == {0.25e-3}
    assert ("cudaGraphLaunch" in gpu.calls) == cuda_graph
    device = end["memory"]["device"]
    assert device["contexts"] == 1
    assert device["buffers"] > 0
    assert device["total"] == gpu.total


def test_a_batch_that_no_profile_takes_fails_with_its_code(gpu: FakeCudart, engine: Path) -> None:
    ((subject,),) = groups(engine, batches=(9,))
    job = {"runner": subject.runner, "source": subject.source, "batch": 9, "threads": 1}
    (failed,) = answers(iter([job]))
    assert (failed["event"], failed["code"]) == ("failed", "VIM-905")


def test_an_engine_without_its_record(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError, match=r"which images model\.plan takes") as caught:
        groups(write_engine(tmp_path))
    assert caught.value.code == "VIM-410"
    with pytest.raises(VimDeployError) as caught:
        groups(tmp_path / "gone.plan")
    assert caught.value.code == "VIM-401"


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--baseline", {"baselines": ("pytorch",)}),
        ("--provider", {"runner": RunnerOptions(provider="cuda")}),
        ("--image-sizes", {"image_sizes": (224,)}),
        ("--random-weights", {"random_weights": 0}),
    ],
)
def test_options_that_are_not_for_engines(engine: Path, option: str, values: Any) -> None:
    with pytest.raises(VimDeployError, match=option) as caught:
        groups(engine, **values)
    assert caught.value.code == "VIM-203"


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--cuda-graph", {"cuda_graph": True}),
        ("--allow-plan-code", {"runner": RunnerOptions(allow_plan_code=True)}),
        ("--plugin", {"runner": RunnerOptions(plugin=Path("x.so"))}),
        ("--plugin", {"runner": RunnerOptions(plugin=Path("x.so"), provider="cuda")}),
    ],
)
def test_options_that_are_for_engines(option: str, values: Any) -> None:
    with pytest.raises(VimDeployError, match=option) as caught:
        groups("some.onnx", **values)
    assert caught.value.code == "VIM-203"


def test_gpu_memory_stands_in_the_table() -> None:
    item = measured(runner="tensorrt")
    parts = {"engine": 20_000_000, "context": 3_000_000, "contexts": 2, "buffers": 4_000_000}
    item.memory["device"] = {**parts, "free": 1, "total": 2}
    (row,) = result_rows(encode(bench_report(item)))
    assert row[COLUMNS.index("memory MB")] == "105 + GPU 30"
