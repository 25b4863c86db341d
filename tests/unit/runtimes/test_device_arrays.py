"""Arrays that are on the GPU already: both protocols, streams, outputs of the caller's own."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.engines import images, use_fake_gpu, write_engine
from tests.support.fake_cudart import FakeCudart
from tests.support.fake_tensorrt.runtime import expected, runtime_module
from vim_deploy.cuda.device_view import _DlTensor, view_of
from vim_deploy.cuda.runtime import Cuda
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.tensorrt.runner import TrtRunner


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCudart]:
    fake = use_fake_gpu(monkeypatch)
    yield fake
    gc.collect()
    assert fake.leaks() == {}


@pytest.fixture
def module(gpu: FakeCudart) -> ModuleType:
    return runtime_module("10.14", gpu)


class Tensor:
    """An array of somebody else's on the GPU, with ``__cuda_array_interface__``."""

    def __init__(self, gpu: FakeCudart, values: np.ndarray[Any, Any], **said: Any) -> None:
        self.gpu, self.shape, self.dtype = gpu, values.shape, values.dtype
        self.pointer = gpu.cudaMalloc(values.nbytes)[1]
        gpu.view(self.pointer, values.dtype, values.shape)[...] = values
        self.said = said

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "version": 3,
            "stream": None,
            **self.said,
        }

    def values(self) -> np.ndarray[Any, Any]:
        return self.gpu.view(self.pointer, self.dtype, self.shape).copy()

    def free(self) -> None:
        self.gpu.cudaFree(self.pointer)


class DlTensor(Tensor):
    """The same with DLPack, as a torch CUDA tensor has it."""

    device = (2, 0)
    code = 2

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, stream: int) -> Any:
        self.asked_stream = stream
        rank = len(self.shape)
        self._sizes = (ctypes.c_int64 * rank)(*self.shape)
        self._tensor = _DlTensor(
            data=self.pointer - 4, device_type=self.device[0], device_id=0, ndim=rank,
            code=self.code, bits=8 * self.dtype.itemsize, lanes=1,
            shape=ctypes.cast(self._sizes, ctypes.POINTER(ctypes.c_int64)), byte_offset=4,
        )  # fmt: skip
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self._tensor), b"dltensor", None)


@pytest.mark.parametrize("kind", [Tensor, DlTensor])
def test_nothing_is_copied(
    gpu: FakeCudart, module: ModuleType, tmp_path: Path, kind: type[Tensor]
) -> None:
    tensor = kind(gpu, images(3))
    with TrtRunner(write_engine(tmp_path), module=module) as runner:
        found = runner.run_device(tensor)["logits"]
        assert "cudaMemcpyAsync" not in gpu.calls
        np.testing.assert_array_equal(found.numpy(), expected(images(3)))
        assert found.__cuda_array_interface__["shape"] == (3, 4)
        again = runner.run_device(tensor)["logits"]
        assert again.pointer != found.pointer
    # Results outlive the runner.
    np.testing.assert_array_equal(found.numpy(), expected(images(3)))
    found.close()
    with pytest.raises(ValueError, match="closed"):
        _ = found.__cuda_array_interface__
    tensor.free()
    del again


def test_outputs_of_the_caller(gpu: FakeCudart, module: ModuleType, tmp_path: Path) -> None:
    tensor, target = DlTensor(gpu, images(2)), DlTensor(gpu, np.zeros((2, 4), np.float32))
    with TrtRunner(write_engine(tmp_path), module=module, cuda_graph=True) as runner:
        for seed in range(4):
            gpu.view(tensor.pointer, np.float32, (2, 1, 2, 3))[...] = images(2, seed=seed)
            assert runner.run_device(tensor, {"logits": target})["logits"] is target
            np.testing.assert_array_equal(target.values(), expected(images(2, seed=seed)))
        assert gpu.calls.count("cudaStreamBeginCapture") == 1
        assert "cudaMemcpyAsync" not in gpu.calls
    tensor.free()
    target.free()


def test_a_stream_of_the_caller_is_not_waited_for(
    gpu: FakeCudart, module: ModuleType, tmp_path: Path
) -> None:
    stream = gpu.cudaStreamCreateWithFlags(1)[1]
    tensor, target = DlTensor(gpu, images(2)), Tensor(gpu, np.zeros((2, 4), np.float32))
    with TrtRunner(write_engine(tmp_path), module=module) as runner:
        before = len(gpu.calls)
        runner.run_device(tensor, {"logits": target}, stream=stream)
        assert tensor.asked_stream == stream
        assert not {"cudaStreamSynchronize", "cudaDeviceSynchronize"} & set(gpu.calls[before:])
        assert not target.values().any()
        # The next call on the same context waits for that work first.
        other = images(1, seed=9)
        np.testing.assert_array_equal(runner.run(other)["logits"], expected(other))
        np.testing.assert_array_equal(target.values(), expected(images(2)))
        runner.run_device(tensor, {"logits": target}, stream=stream)
    gpu.cudaStreamSynchronize(stream)
    gpu.cudaStreamDestroy(stream)
    tensor.free()
    target.free()


def test_work_of_the_owner_comes_first(gpu: FakeCudart, module: ModuleType, tmp_path: Path) -> None:
    stream = gpu.cudaStreamCreateWithFlags(1)[1]
    with TrtRunner(write_engine(tmp_path), module=module) as runner:
        # A stream that the array names, then an array that says nothing: the device is waited for.
        for said in ({"stream": stream}, {"version": 2}):
            tensor = Tensor(gpu, np.zeros((1, 1, 2, 3), np.float32), **said)

            def produce(target: Tensor = tensor) -> None:
                gpu.view(target.pointer, np.float32, target.shape)[...] = images(1, seed=4)

            gpu.enqueue(stream, produce)
            found = runner.run_device(tensor)["logits"]
            np.testing.assert_array_equal(found.numpy(), expected(images(1, seed=4)))
            tensor.free()
            found.close()
    gpu.cudaStreamDestroy(stream)


@pytest.mark.parametrize(
    "values",
    [np.zeros((2, 1, 2, 3), np.float64), np.zeros((2, 1, 3, 2), np.float32), np.zeros(6, "f4")],
)
def test_wrong_dtype_or_shape(
    gpu: FakeCudart, module: ModuleType, tmp_path: Path, values: Any
) -> None:
    tensor = Tensor(gpu, values)
    with TrtRunner(write_engine(tmp_path), module=module) as runner:
        with pytest.raises(VimDeployError) as caught:
            runner.run_device(tensor)
        assert caught.value.code == "VIM-415"
    tensor.free()


def test_what_is_not_dense_on_this_gpu_is_refused(gpu: FakeCudart) -> None:
    cuda = Cuda()
    host = gpu.cudaMallocHost(24)[1]
    good = images(1)
    refused: list[Any] = [
        good,  # NumPy has DLPack, for the host
        good.tolist(),
        Tensor(gpu, good, data=(host, False)),
        Tensor(gpu, good, strides=(24, 24, 4, 8)),
        Tensor(gpu, good, strides=(25, 25, 13, 5)),
        Tensor(gpu, good, typestr=">f4"),
    ]
    elsewhere, bfloat = DlTensor(gpu, good), DlTensor(gpu, good)
    elsewhere.device, bfloat.code = (2, 1), 4
    for array in [*refused, elsewhere, bfloat]:
        with pytest.raises(VimDeployError) as caught:
            view_of(array, cuda, 1, name="'image'")
        assert caught.value.code == "VIM-415"
        if isinstance(array, Tensor):
            array.free()
    gpu.cudaFreeHost(host)


def test_explicit_dense_strides_are_taken(gpu: FakeCudart) -> None:
    tensor = Tensor(gpu, images(1), strides=(96, 24, 12, 4))
    view = view_of(tensor, Cuda(), 1, name="'image'")
    assert (view.pointer, view.dtype, view.shape) == (tensor.pointer, "float32", (1, 1, 2, 3))
    tensor.free()


def test_outputs_have_to_be_all_there(gpu: FakeCudart, module: ModuleType, tmp_path: Path) -> None:
    tensor, small = Tensor(gpu, images(2)), Tensor(gpu, np.zeros((1, 4), np.float32))
    with TrtRunner(write_engine(tmp_path), module=module) as runner:
        for outputs in ({}, {"scores": small}, {"logits": small}):
            with pytest.raises(VimDeployError) as caught:
                runner.run_device(tensor, outputs)
            assert caught.value.code == "VIM-415"
    tensor.free()
    small.free()
