"""The choice of a runtime, and that it is said."""

from __future__ import annotations

import logging

import pytest

from tests.support.fake_tensorrt import personality
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.cuda.driver import Gpu
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes import Runtime, choose_runtime
from vim_deploy.runtimes.tensorrt import capability as trt


@pytest.fixture
def installed(monkeypatch):
    def pretend(*, rtx: bool, full: bool) -> None:
        there = {"tensorrt": full, "tensorrt-rtx": rtx}
        monkeypatch.setattr(Runtime, "is_installed", lambda row: there[row.name])

    return pretend


def test_auto_without_full_tensorrt(installed, caplog):
    installed(rtx=True, full=False)
    with caplog.at_level(logging.INFO, "vim_deploy"):
        assert choose_runtime().name == "tensorrt-rtx"
    assert "full TensorRT is not installed" in caplog.text


def no_gpu():
    raise VimDeployError("VIM-302", "no usable GPU", why="no driver", fix="use one with a GPU")


def test_auto_without_a_gpu_says_why_full_tensorrt_is_not_used(installed, monkeypatch, caplog):
    installed(rtx=True, full=True)
    monkeypatch.setattr(trt, "load", lambda: personality("10.3"))
    monkeypatch.setattr(cuda_driver, "gpu", no_gpu)
    with caplog.at_level(logging.INFO, "vim_deploy"):
        assert choose_runtime("auto").name == "tensorrt-rtx"
    assert "10.3.0 is installed, but builds only on a GPU: no driver" in caplog.text


@pytest.mark.parametrize("rtx", [True, False])
def test_auto_takes_full_tensorrt_where_it_can_build(installed, monkeypatch, caplog, rtx):
    installed(rtx=rtx, full=True)
    monkeypatch.setattr(trt, "load", lambda: personality("10.14"))
    monkeypatch.setattr(cuda_driver, "gpu", lambda: Gpu("NVIDIA H200", 9, 0, 132))
    with caplog.at_level(logging.INFO, "vim_deploy"):
        assert choose_runtime("auto").name == "tensorrt"
        assert choose_runtime("tensorrt").name == "tensorrt"
    assert "TensorRT 10.14.1.48 and a GPU are here" in caplog.text


def test_full_tensorrt_needs_a_gpu(installed, monkeypatch):
    installed(rtx=True, full=True)
    monkeypatch.setattr(trt, "load", lambda: personality("11"))
    monkeypatch.setattr(cuda_driver, "gpu", no_gpu)
    with pytest.raises(VimDeployError) as caught:
        choose_runtime("tensorrt")
    assert caught.value.code == "VIM-302"


def test_an_old_release_is_refused(installed, monkeypatch):
    old = personality("8.6")
    old.__version__ = "8.5.3.1"
    installed(rtx=True, full=True)
    monkeypatch.setattr(trt, "load", lambda: old)
    with pytest.raises(VimDeployError, match=r"8\.5\.3\.1") as caught:
        choose_runtime("tensorrt")
    assert caught.value.code == "VIM-309"


def test_auto_beside_a_broken_tensorrt(installed, monkeypatch, caplog):
    def broken():
        raise VimDeployError("VIM-301", "TensorRT does not load", why="libnvinfer.so.10")

    installed(rtx=True, full=True)
    monkeypatch.setattr(trt, "capabilities", broken)
    with caplog.at_level(logging.INFO, "vim_deploy"):
        assert choose_runtime("auto").name == "tensorrt-rtx"
    assert "libnvinfer.so.10" in caplog.text


@pytest.mark.parametrize(
    ("requested", "rtx", "code"),
    [
        ("auto", False, "VIM-301"),
        ("tensorrt-rtx", False, "VIM-301"),
        ("tensorrt", True, "VIM-301"),
        ("tensorrt-rx", True, "VIM-202"),
    ],
)
def test_refused(installed, requested, rtx, code):
    installed(rtx=rtx, full=False)
    with pytest.raises(VimDeployError) as caught:
        choose_runtime(requested)
    assert caught.value.code == code
    assert caught.value.fix
