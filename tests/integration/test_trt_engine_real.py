"""The TensorRT runner on a real TensorRT and GPU; skipped with the reason where one is missing."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.builds import build_engine_trt
from tests.support.tiny_onnx import perceptron
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import record_path
from vim_deploy.cuda import runtime as cudart
from vim_deploy.cuda.buffers import StagingBuffer
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes import runtime_named
from vim_deploy.runtimes.base import Array, run_in_batches
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.runtimes.tensorrt.capability import capabilities
from vim_deploy.runtimes.tensorrt.runner import TrtRunner

pytestmark = [pytest.mark.trt, pytest.mark.gpu]
#: Relative L2 of a float32 engine, whose products may be in TF32 (10 bits of mantissa).
LIMIT = 1e-3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A perceptron; no custom op, so no plugin library is needed."""
    path = tmp_path_factory.mktemp("trt") / "m.onnx"
    onnx.save(perceptron(), path)
    return path


@pytest.fixture(scope="module")
def engine(model: Path) -> Path:
    """Its engine for batches 1 to 4."""
    if not runtime_named("tensorrt").is_installed():
        pytest.skip("full TensorRT is not installed")
    if not cudart.is_installed():
        pytest.skip("cuda-bindings is not installed")
    try:
        cudart.Cuda()
    except VimDeployError as error:
        pytest.skip(f"{error.message}: {error.why}")
    path = model.with_suffix(".plan")
    build_engine_trt(model, path, profiles=ProfileOptions(min_batch=1, opt_batch=2, max_batch=4))
    return path


@pytest.fixture(scope="module")
def images() -> Array:
    return np.random.default_rng(0).standard_normal((7, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def wanted(model: Path, images: Array) -> Array:
    return OrtRunner(model).run(images)["logits"]


def distance(found: Array, wanted: Array) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_results(engine: Path, images: Array, wanted: Array, cuda_graph: bool) -> None:
    with TrtRunner(engine, cuda_graph=cuda_graph) as runner:
        for batch in (1, 2, 2, 4, 4, 1):
            found = run_in_batches(runner, images, batch)["logits"]
            assert distance(found, wanted) < LIMIT


def test_threads(engine: Path, images: Array, wanted: Array) -> None:
    distances: list[float] = []
    contexts = 1 if capabilities().generation == "8.6" else 2

    def work(runner: TrtRunner, batch: int) -> None:
        for _ in range(20):
            found = run_in_batches(runner, images, batch)["logits"]
            distances.append(distance(found, wanted))

    with TrtRunner(engine, contexts=contexts, cuda_graph=True) as runner:
        threads = [threading.Thread(target=work, args=(runner, 1 + i)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(distances) == 80
    assert max(distances) < LIMIT


def test_arrays_on_the_gpu(engine: Path, images: Array, wanted: Array) -> None:
    cuda = cudart.Cuda()
    stream = cuda.create_stream()
    with TrtRunner(engine) as runner:
        staging, size = StagingBuffer(cuda), images[:4].nbytes
        staging.fit(size)
        staging.host("float32", (4, 8))[...] = images[:4]
        staging.upload(size, stream)
        cuda.synchronize(stream)
        assert distance(runner.run_device(staged(staging))["logits"].numpy(), wanted[:4]) < LIMIT
        memory = runner.memory()
        assert 0 < memory.free < memory.total
        staging.close()
    cuda.destroy_stream(stream)


def staged(staging: StagingBuffer) -> object:
    """The device half of a staging buffer as somebody's array of shape [4, 8]."""

    class Theirs:
        shape = (4, 8)

        @property
        def __cuda_array_interface__(self) -> dict[str, object]:
            return {
                "shape": self.shape,
                "typestr": "<f4",
                "data": (staging.device, False),
                "version": 3,
                "stream": None,
            }

    return Theirs()


def test_what_does_not_fit_is_told(engine: Path, images: Array, tmp_path: Path) -> None:
    with TrtRunner(engine) as runner, pytest.raises(VimDeployError) as caught:
        runner.run(images[:5])
    assert caught.value.code == "VIM-905"
    cut = tmp_path / "cut.plan"
    cut.write_bytes(engine.read_bytes()[:-100])
    with pytest.raises(VimDeployError) as caught:
        TrtRunner(cut)
    assert caught.value.code in ("VIM-413", "VIM-901")
    record_path(cut).write_bytes(record_path(engine).read_bytes())
    with pytest.raises(VimDeployError) as caught:
        TrtRunner(cut)
    assert caught.value.code == "VIM-902"
