"""The CUDA runtime's bindings: what their errors become, and that our calls are theirs."""

from __future__ import annotations

import pytest

from tests.support.engines import use_fake_gpu
from vim_deploy.cuda import runtime as cudart
from vim_deploy.errors import VimDeployError
from vim_deploy.installation import extra_command


def test_device_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = use_fake_gpu(monkeypatch, total=5000, name="Some GPU", cc="8.6")
    cuda = cudart.Cuda()
    assert cuda.info() == cudart.DeviceInfo(0, "Some GPU", "8.6", 5000)
    pointer = cuda.allocate(1000)
    assert cuda.memory() == (4000, 5000)
    assert cuda.on_gpu(pointer)
    assert not cuda.on_gpu(1)
    cuda.free(pointer)
    assert gpu.leaks() == {}


@pytest.mark.parametrize(
    ("number", "code"),
    [(2, "VIM-906"), (35, "VIM-302"), (700, "VIM-904")],
)
def test_errors_have_codes(monkeypatch: pytest.MonkeyPatch, number: int, code: str) -> None:
    gpu = use_fake_gpu(monkeypatch)
    cuda = cudart.Cuda()
    gpu.failing["cudaMalloc"] = number
    with pytest.raises(VimDeployError) as caught:
        cuda.allocate(1)
    assert caught.value.code == code
    assert "cudaMalloc" in caught.value.why
    assert str(number) in caught.value.why


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudart, "is_installed", lambda: False)
    with pytest.raises(VimDeployError, match="cuda-bindings") as caught:
        cudart.Cuda()
    assert caught.value.code == "VIM-301"
    assert extra_command("trt-run") in caught.value.fix


def test_the_bindings_have_every_function_we_call(monkeypatch: pytest.MonkeyPatch) -> None:
    if not cudart.is_installed():
        pytest.skip("cuda-bindings is not installed")
    module = cudart.load()
    gpu = use_fake_gpu(monkeypatch)
    names = [name for name in dir(type(gpu)) if name.startswith("cuda")]
    assert len(names) > 25
    assert [name for name in names if not hasattr(module, name)] == []
    for kind in ("cudaMemcpyKind", "cudaMemoryType", "cudaStreamCaptureMode"):
        for member, number in vars(getattr(gpu, kind)).items():
            assert int(getattr(getattr(module, kind), member)) == number


def test_the_bindings_without_a_driver_are_told_as_no_gpu() -> None:
    if not cudart.is_installed():
        pytest.skip("cuda-bindings is not installed")
    runtime = cudart.load()
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("this machine has a GPU")
    with pytest.raises(VimDeployError) as caught:
        cudart.Cuda()
    assert caught.value.code == "VIM-302"
