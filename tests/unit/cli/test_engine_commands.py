"""``run`` and ``verify`` on engines, with the stand-ins of TensorRT and the CUDA runtime."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.support import fake_rtx
from tests.support.engines import images, record_of, use_fake_gpu, write_engine, write_record
from tests.support.fake_cudart import FakeCudart
from tests.support.fake_tensorrt.runtime import expected, runtime_module
from tests.support.packages import classifier
from vim_deploy.artifact.record import record_path
from vim_deploy.cli.main import run
from vim_deploy.runtimes.tensorrt import capability as trt


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCudart]:
    fake = use_fake_gpu(monkeypatch)
    yield fake
    gc.collect()
    assert fake.leaks() == {}


@pytest.fixture
def module(gpu: FakeCudart, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = runtime_module("10.14", gpu)
    monkeypatch.setattr(trt, "load", lambda: made)
    return made


@pytest.fixture
def engine(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine with its record, pictures, and stored outputs, in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = write_engine(tmp_path)
    write_record(path, record_of(path))
    (tmp_path / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 2, 3), dtype=np.uint8)
    for index, picture in enumerate(pixels):
        PIL.Image.fromarray(picture).save(tmp_path / "pictures" / f"{index}.png")
    np.savez(tmp_path / "pixels.npz", pixels=pixels)
    np.savez(tmp_path / "stored.npz", image=images(5), logits=expected(images(5)))
    np.savez(tmp_path / "wrong.npz", image=images(5), logits=expected(images(5)) + 1)
    return path


def fails(capsys: Any, code: str, *arguments: str) -> str:
    """What a command that ends with ``code`` says on stderr."""
    capsys.readouterr()
    assert run(list(arguments)) == int(code[4])
    said = str(capsys.readouterr().err)
    assert code in said, said
    return said


def test_run_names_the_classes(capsys: Any, engine: Path) -> None:
    assert run(["run", "model.plan", "pictures", "--top", "1", "--json", "-o", "o.npz"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["runtime"] == "TensorRT 10.14.1.48 Fake H200"
    with np.load("pixels.npz") as stored:
        prepared = (stored["pixels"][:, None].astype(np.float32) / 255 - 0.5) / 0.5
    logits = expected(prepared)
    labels = ("north", "east", "south", "west")
    assert [item["top"][0]["label"] for item in value["images"]] == [
        labels[best] for best in logits.argmax(axis=1)
    ]
    with np.load("o.npz") as written:
        np.testing.assert_allclose(written["logits"], logits, rtol=1e-6)


def test_run_refuses_what_belongs_to_onnx_files(capsys: Any, engine: Path) -> None:
    fails(capsys, "VIM-203", "run", "model.plan", "pictures", "--provider", "cuda")
    fails(capsys, "VIM-203", "run", "model.plan", "pictures", "--allow-plan-code")


def test_run_needs_the_record(capsys: Any, engine: Path) -> None:
    record_path(engine).unlink()
    said = fails(capsys, "VIM-410", "run", "model.plan", "pictures")
    assert "plan.json" in said


def test_batch_is_refused_before_loading(capsys: Any, engine: Path, module: ModuleType) -> None:
    fails(capsys, "VIM-905", "run", "model.plan", "pictures", "--batch", "9")
    fails(capsys, "VIM-905", "verify", "model.plan", "--against", "stored.npz", "--batches", "1,9")
    assert "deserialize" not in module.state.calls


def test_verify_against_stored_outputs(capsys: Any, engine: Path) -> None:
    assert run(["verify", "model.plan", "--against", "stored.npz", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is True
    assert [item["batch"] for item in report["results"]] == [1, 2, 4]
    assert report["candidate"].startswith("TensorRT 10.14")
    said = fails(capsys, "VIM-701", "verify", "model.plan", "--against", "wrong.npz")
    assert "logits" in said


def test_verify_against_another_engine(capsys: Any, engine: Path, tmp_path: Path) -> None:
    other = write_engine(tmp_path, name="other.plan", profiles=((2, 2, 3),))
    arguments = ["verify", "model.plan", "--against", str(other), "--random", "5", "--json"]
    assert run(arguments) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True


def test_compare_with_an_onnx_file(capsys: Any, engine: Path, tmp_path: Path) -> None:
    """Each side is given the options that are for its kind of file."""
    pytest.importorskip("onnxruntime")
    classifier(tmp_path / "a.onnx")
    words = [str(tmp_path / "a.onnx"), str(engine), "--images", "pictures", "--no-time"]
    assert run(["compare", *words, "--ops", "function", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["a"]["kind"], value["b"]["kind"]) == ("ONNX file", "engine")
    assert value["b"]["runtime"].startswith("TensorRT")
    assert value["size_ratio"] == engine.stat().st_size / (tmp_path / "a.onnx").stat().st_size
    assert value["found"]["images"] == 5
    with np.load("pixels.npz") as stored:
        logits = expected((stored["pixels"][:, None].astype(np.float32) / 255 - 0.5) / 0.5)
    answers = [item["b"]["index"] for item in value["found"]["pictures"]]
    assert answers == logits.argmax(axis=1).tolist()


def test_compare_two_engines(capsys: Any, engine: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    other = write_engine(tmp_path / "copy")
    write_record(other, record_of(other))
    words = [str(engine), str(other), "--images", "pictures", "--no-time"]
    assert run(["compare", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["found"]["same_class"] == 5
    assert "no ONNX file is given" in fails(
        capsys, "VIM-203", "compare", *words, "--provider", "cpu"
    )


def test_verify_says_what_could_not_be_checked(capsys: Any, engine: Path) -> None:
    record_path(engine).unlink()
    assert run(["verify", "model.plan", "--against", "stored.npz", "--json"]) == 0
    assert "no record" in json.loads(capsys.readouterr().out)["notes"][0]


def test_bad_engines(capsys: Any, engine: Path, gpu: FakeCudart, module: ModuleType) -> None:
    data = engine.read_bytes()
    arguments = ("verify", "model.plan", "--against", "stored.npz")
    engine.write_bytes(data[:-10])
    fails(capsys, "VIM-902", *arguments)
    record_path(engine).unlink()
    fails(capsys, "VIM-413", *arguments)
    engine.write_bytes(data)
    gpu.cc = "8.6"
    said = fails(capsys, "VIM-901", *arguments)
    assert "compute capability 9.0, this GPU has 8.6" in said
    write_record(engine, record_of(engine))
    fails(capsys, "VIM-901", *arguments)
    gpu.cc = "9.0"
    module.__version__ = "10.15.0"
    fails(capsys, "VIM-901", *arguments)


def test_engine_that_needs_a_plugin(capsys: Any, engine: Path) -> None:
    record_path(engine).unlink()
    write_engine(engine.parent, plugins=("VimBiSelectiveScan",))
    said = fails(capsys, "VIM-903", "verify", "model.plan", "--against", "stored.npz")
    assert "--plugin" in said


def test_out_of_memory(capsys: Any, engine: Path, gpu: FakeCudart) -> None:
    gpu.total = 100
    said = fails(capsys, "VIM-906", "verify", "model.plan", "--against", "stored.npz")
    assert "smaller" in said


def test_rtx_engine_on_another_gpu(
    capsys: Any, engine: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx = ModuleType("tensorrt_rtx")
    rtx.__version__ = "1.7.1.116"  # type: ignore[attr-defined]
    monkeypatch.setattr("vim_deploy.runtimes.tensorrt_rtx.capability.load", lambda: rtx)
    Path("rtx.plan").write_bytes(fake_rtx.plan_bytes())
    said = fails(capsys, "VIM-901", "verify", "rtx.plan", "--against", "stored.npz")
    assert "RTX GPU" in said


def test_rtx_engine_without_a_gpu(capsys: Any, engine: Path, gpu: FakeCudart) -> None:
    Path("rtx.plan").write_bytes(fake_rtx.plan_bytes())
    gpu.failing["cudaGetDeviceCount"] = 100
    said = fails(capsys, "VIM-302", "verify", "rtx.plan", "--against", "stored.npz")
    assert "RTX GPUs only (compute capability 8.0, 8.6, 8.9, 12.0, 12.1 and later)" in said


def test_without_tensorrt_or_bindings(
    capsys: Any, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(engine.parent)
    monkeypatch.setattr("vim_deploy.cuda.runtime.is_installed", lambda: False)
    said = fails(capsys, "VIM-301", "verify", "model.plan", "--against", "stored.npz")
    assert "cuda-bindings" in said
