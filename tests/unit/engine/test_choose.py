"""The choice of a runtime, and that it is said."""

from __future__ import annotations

import logging

import pytest

from vim_deploy.deps import trt, trt_rtx
from vim_deploy.engine.choose import choose_runtime
from vim_deploy.errors import VimDeployError


@pytest.fixture
def installed(monkeypatch):
    def pretend(*, rtx: bool, full: bool) -> None:
        monkeypatch.setattr(trt_rtx, "is_installed", lambda: rtx)
        monkeypatch.setattr(trt, "is_installed", lambda: full)

    return pretend


def test_auto_without_full_tensorrt(installed, caplog):
    installed(rtx=True, full=False)
    with caplog.at_level(logging.INFO, "vim_deploy"):
        assert choose_runtime() == "tensorrt-rtx"
    assert "full TensorRT is not installed" in caplog.text


def test_auto_beside_full_tensorrt_says_that_it_is_not_used(installed, monkeypatch, caplog):
    installed(rtx=True, full=True)
    monkeypatch.setattr(trt, "capabilities", lambda: trt.Capabilities("10.3.0"))
    with caplog.at_level(logging.INFO, "vim_deploy"):
        assert choose_runtime("auto") == "tensorrt-rtx"
    assert "10.3.0 is installed" in caplog.text


def test_auto_beside_a_broken_tensorrt(installed, monkeypatch, caplog):
    def broken():
        raise VimDeployError("VIM-301", "TensorRT does not load", why="libnvinfer.so.10")

    installed(rtx=True, full=True)
    monkeypatch.setattr(trt, "capabilities", broken)
    with caplog.at_level(logging.INFO, "vim_deploy"):
        assert choose_runtime("auto") == "tensorrt-rtx"
    assert "libnvinfer.so.10" in caplog.text


@pytest.mark.parametrize(
    ("requested", "rtx", "code"),
    [
        ("auto", False, "VIM-301"),
        ("tensorrt-rtx", False, "VIM-301"),
        ("tensorrt", True, "VIM-202"),
        ("tensorrt-rx", True, "VIM-202"),
    ],
)
def test_refused(installed, requested, rtx, code):
    installed(rtx=rtx, full=False)
    with pytest.raises(VimDeployError) as caught:
        choose_runtime(requested)
    assert caught.value.code == code
    assert caught.value.fix
