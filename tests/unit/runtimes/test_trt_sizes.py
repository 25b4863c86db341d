"""Engines that are told the sizes of pictures: both inputs on the GPU, in every release."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support import detectors
from tests.support.engines import images, use_fake_gpu, write_engine
from tests.support.fake_cudart import FakeCudart
from tests.support.fake_tensorrt import VERSIONS
from tests.support.fake_tensorrt.onnx_engine import KIND, use_onnx_engines
from tests.support.fake_tensorrt.runtime import COUNT, expected, runtime_module
from tests.unit.runtimes.test_device_arrays import DlTensor, Tensor
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import run_in_batches
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.runtimes.tensorrt.runner import TrtRunner

SIZED: dict[str, Any] = {"inputs": ["image", "size"], "outputs": ["logits", COUNT]}
SIZES = np.array([[2, 3], [1, 2], [0, 0], [1, 1], [2, 1], [0, 3]])


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCudart]:
    """A pretended GPU on which nothing may be left."""
    fake = use_fake_gpu(monkeypatch)
    yield fake
    gc.collect()
    assert fake.leaks() == {}


@pytest.fixture
def module(gpu: FakeCudart) -> ModuleType:
    return runtime_module("10.14", gpu)


def check(found: Any, image: np.ndarray[Any, Any], size: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(found["logits"], expected(image, size))
    np.testing.assert_array_equal(found[COUNT], size.prod(axis=1))


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("version", list(VERSIONS))
def test_results_in_every_release(
    gpu: FakeCudart, tmp_path: Path, version: str, graphs: bool
) -> None:
    module = runtime_module(version, gpu)
    path = write_engine(tmp_path, version, **SIZED)
    with TrtRunner(path, module=module, cuda_graph=graphs) as runner:
        # TensorRT 8.6 has no 64-bit integers; whoever calls does not see that.
        dtype = "int32" if version == "8.6" else "int64"
        assert runner.size is not None
        assert (runner.size.dtype, runner.size.shape) == (dtype, ("batch", 2))
        for batch in (1, 4, 4, 4, 2, 4):
            image, size = images(batch, seed=batch), SIZES[-batch:]
            found = runner.run(image, size)
            check(found, image, size)
            assert found[COUNT].dtype == np.int64
        check(runner.run(image), image, np.tile([[2, 3]], (4, 1)))
        joined = run_in_batches(runner, images(6), 4, SIZES)
        check(joined, images(6), SIZES)
    assert not any(module.state.alive.values())


def test_a_fixed_batch_and_one_that_the_sizes_narrow(module: ModuleType, tmp_path: Path) -> None:
    fixed = write_engine(tmp_path, profiles=((3, 3, 3),), **SIZED)
    with TrtRunner(fixed, module=module) as runner:
        check(run_in_batches(runner, images(4), 3, SIZES[:4]), images(4), SIZES[:4])
    # As trtexec builds it when it is told another range of the sizes.
    path = write_engine(
        tmp_path, profiles=((1, 2, 4), (4, 8, 8)), size_profiles=((2, 3, 8), (5, 5, 6)), **SIZED
    )
    with TrtRunner(path, module=module) as runner:
        assert runner.batches == ((2, 2, 4), (5, 6, 6))
        for batch in (1, 7):
            with pytest.raises(VimDeployError) as caught:
                runner.run(images(batch))
            assert caught.value.code == "VIM-905"
        for batch in (2, 4, 5, 6):
            check(runner.run(images(batch), SIZES[:batch]), images(batch), SIZES[:batch])
    one = write_engine(
        tmp_path, profiles=((2, 2, 2),), size_profiles=((1, 2, 4), (2, 8, 8)), **SIZED
    )
    with TrtRunner(one, module=module) as runner:
        assert runner.batches == ((2, 2, 2), (2, 2, 2))


@pytest.mark.parametrize(
    "size",
    [np.ones((3, 2), int), np.ones((2, 2), "f4"), SIZES[:2] - 3, SIZES[:2] + 1, [[1, 1]] * 2],
)
def test_other_sizes_are_refused_before_the_gpu(
    gpu: FakeCudart, module: ModuleType, tmp_path: Path, size: Any
) -> None:
    with TrtRunner(write_engine(tmp_path, **SIZED), module=module) as runner:
        before = len(gpu.calls)
        with pytest.raises(VimDeployError) as caught:
            runner.run(images(2), size)
        assert caught.value.code == "VIM-415"
        assert gpu.calls[before:] == []


@pytest.mark.parametrize("kind", [Tensor, DlTensor])
def test_sizes_beside_an_image_on_the_gpu(
    gpu: FakeCudart, module: ModuleType, tmp_path: Path, kind: type[Tensor]
) -> None:
    tensor, there = kind(gpu, images(3)), kind(gpu, SIZES[1:4])
    # DLPack's word for integers.
    there.code = 0
    with TrtRunner(write_engine(tmp_path, **SIZED), module=module, cuda_graph=True) as runner:
        for _ in range(3):
            found = runner.run_device(tensor, size=there)
            assert "cudaMemcpyAsync" not in gpu.calls
            check({name: value.numpy() for name, value in found.items()}, images(3), SIZES[1:4])
            gpu.calls.clear()
        for size, means in ((SIZES[:3], SIZES[:3]), (None, np.tile([[2, 3]], (3, 1)))):
            found = runner.run_device(tensor, size=size)
            check({name: value.numpy() for name, value in found.items()}, images(3), means)
        for wrong in (tensor, kind(gpu, SIZES[:2]), SIZES[:3] + 3):
            with pytest.raises(VimDeployError) as caught:
                runner.run_device(tensor, size=wrong)
            assert caught.value.code == "VIM-415"
            if isinstance(wrong, Tensor) and wrong is not tensor:
                wrong.free()
    tensor.free()
    there.free()
    del found


def test_sizes_on_the_host_stay_until_a_stream_of_the_caller_has_read_them(
    gpu: FakeCudart, module: ModuleType, tmp_path: Path
) -> None:
    stream = gpu.cudaStreamCreateWithFlags(1)[1]
    tensor = DlTensor(gpu, images(2))
    targets = {"logits": Tensor(gpu, np.zeros((2, 4), "f4")), COUNT: Tensor(gpu, SIZES[:2, 0])}
    with TrtRunner(write_engine(tmp_path, **SIZED), module=module) as runner:
        first = SIZES[:2].copy()
        runner.run_device(tensor, targets, stream=stream, size=first)
        # The caller's array is free at once; the next call waits for the first.
        first[:] = 0
        found = runner.run(images(2), SIZES[2:4])
        check(found, images(2), SIZES[2:4])
        check({name: item.values() for name, item in targets.items()}, images(2), SIZES[:2])
    gpu.cudaStreamSynchronize(stream)
    gpu.cudaStreamDestroy(stream)
    for item in (tensor, *targets.values()):
        item.free()


def test_sizes_for_an_engine_that_takes_none(
    gpu: FakeCudart, module: ModuleType, tmp_path: Path
) -> None:
    tensor, there = Tensor(gpu, images(2)), Tensor(gpu, SIZES[:2])
    with TrtRunner(write_engine(tmp_path), module=module) as runner:
        for size in (SIZES[:2], there):
            for call in (
                lambda size=size: runner.run(images(2), size),
                lambda size=size: runner.run_device(tensor, size=size),
            ):
                with pytest.raises(VimDeployError, match="takes no sizes") as caught:
                    call()
                assert caught.value.code == "VIM-415"
    tensor.free()
    there.free()


@pytest.mark.parametrize("version", ["8.6", "11"])
def test_a_whole_detector_gives_what_onnx_runtime_gives(
    gpu: FakeCudart, tmp_path: Path, version: str
) -> None:
    """Five outputs of other shapes and types."""
    file = detectors.stand_in(tmp_path / "d.onnx", 16)
    module = runtime_module(version, gpu)
    use_onnx_engines(module.state)
    names = ["boxes", "scores", "classes", "masks", "count"]
    path = write_engine(tmp_path, version, kind=KIND, model=str(file), outputs=names, debug=[])
    image = np.random.default_rng(1).standard_normal((3, 3, 16, 16)).astype(np.float32)
    size = np.array([[16, 9], [0, 0], [16, 16]])
    with TrtRunner(path, module=module) as runner, OrtRunner(file, threads=1) as reference:
        wanted = reference.run(image, size)
        found = run_in_batches(runner, image, 2, size)
        assert list(found) == list(wanted) == names
        for name in names:
            assert found[name].dtype == wanted[name].dtype
            np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("inputs", [["image", "mask"], ["image", "size", "mask"], []])
def test_other_inputs_are_refused(module: ModuleType, tmp_path: Path, inputs: list[str]) -> None:
    with pytest.raises(VimDeployError, match="image and size, are expected") as caught:
        TrtRunner(write_engine(tmp_path, inputs=inputs), module=module)
    assert caught.value.code == "VIM-415"
    caught.value.__traceback__ = None
