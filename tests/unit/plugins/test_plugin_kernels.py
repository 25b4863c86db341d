"""The ctypes binding and the check behind ``plugin test``, over the kernels run on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support import plugins
from tests.support.host_device import HostDevice
from tests.support.late_driver import LateDriver
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import VimDeployError
from vim_deploy.ops import BI_CAUSAL_CONV, PLUGIN_OPS, SELECTIVE_SCAN
from vim_deploy.plugin import check as plugin_check
from vim_deploy.plugin.cases import cases, decode, encode
from vim_deploy.plugin.check import CheckReport, CheckResult, check_library
from vim_deploy.plugin.kernels import (
    PARAMS,
    DataType,
    ScanLibrary,
    selective_scan_params,
)

sys.path.insert(0, str(plugins.HOST_TESTS))
import kernel_library


@pytest.fixture(scope="module")
def library() -> ScanLibrary:
    if reason := kernel_library.missing_host_tools():
        pytest.skip(reason)
    return ScanLibrary(Path(kernel_library.host_library().c._name))


def tensor(*shape: int, dtype: str = "float32", seed: int = 0) -> SimpleNamespace:
    """A tensor as far as the binding looks, over NumPy's memory."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    size = values.nbytes + 64
    buffer = np.zeros(size, np.uint8)
    start = -buffer.ctypes.data % 64
    view = buffer[start : start + values.nbytes].view(dtype).reshape(shape)
    view[:] = values
    return SimpleNamespace(
        shape=shape,
        dtype=f"torch.{dtype}",
        values=view,
        data_ptr=lambda: view.ctypes.data,
        is_contiguous=lambda: True,
    )


SETTINGS = {"reverse": True, "delta_softplus": True, "b_off": 0, "c_off": 16, "z_off": 0}


def scan_tensors(batch: int = 2, length: int = 9, channels: int = 16) -> dict:
    rows = (batch, length)
    return {
        "u": tensor(*rows, channels, seed=1),
        "dt": tensor(*rows, channels, seed=2),
        "a": tensor(16, channels, seed=3),
        "bc": tensor(*rows, 32, seed=4),
        "d_skip": tensor(channels, seed=5),
        "dt_bias": tensor(channels, seed=6),
        "z": tensor(*rows, channels, seed=7),
        "y": tensor(*rows, channels, seed=8),
    }


def test_scan_of_tensors(library: ScanLibrary) -> None:
    given = scan_tensors()
    given["a"].values[:] = -np.abs(given["a"].values)
    params = selective_scan_params(**given, **SETTINGS)
    assert library.fault(params) is None
    assert library.tactics(params, 132)
    library.launch(params)
    exact = {name: one.values.astype(np.float64) for name, one in given.items()}
    y = exact.pop("y")
    expected = SELECTIVE_SCAN.reference(*exact.values(), **SETTINGS, has_z=1)
    assert np.linalg.norm(y - expected) / np.linalg.norm(expected) < 1e-6


@pytest.mark.parametrize(
    ("name", "bad", "word"),
    [
        ("dt", tensor(2, 9, 15), "shape"),
        ("a", tensor(16, 16, dtype="float16"), "dtype"),
        ("bc", tensor(2, 9, 32, dtype="float16"), "dtype"),
        ("u", tensor(2, 9, 16, dtype="float64"), "float64"),
        ("z", tensor(1, 9, 16), "shape"),
    ],
)
def test_tensors_that_do_not_fit(name: str, bad: SimpleNamespace, word: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        selective_scan_params(**{**scan_tensors(), name: bad}, **SETTINGS)
    assert caught.value.code == "VIM-415"
    assert word in caught.value.message


def test_tensor_that_is_not_contiguous() -> None:
    given = scan_tensors()
    given["u"].is_contiguous = lambda: False
    with pytest.raises(VimDeployError, match="contiguous"):
        selective_scan_params(**given, **SETTINGS)


def test_refused_parameters(library: ScanLibrary) -> None:
    for params in (PARAMS[op.name]() for op in (SELECTIVE_SCAN, BI_CAUSAL_CONV)):
        assert library.fault(params)
        assert library.tactics(params, 132) == ()
        with pytest.raises(VimDeployError) as caught:
            library.launch(params)
        assert caught.value.code == "VIM-415"


def test_tactic_that_does_not_fit_is_a_launch_error(library: ScanLibrary) -> None:
    params = selective_scan_params(**scan_tensors(), **SETTINGS)
    with pytest.raises(VimDeployError) as caught:
        library.launch(params, tactic=999)
    assert caught.value.code == "VIM-904"


@pytest.mark.parametrize("dtype", list(DataType))
def test_encoding_rounds_to_nearest(dtype: DataType) -> None:
    values = np.random.default_rng(0).standard_normal(1000)
    values[:4] = [0.0, -1.0, 65504.0, 2.0**-14]
    back = decode(encode(values, dtype), dtype, values.shape)
    unit = {DataType.FP32: 2.0**-24, DataType.FP16: 2.0**-11, DataType.BF16: 2.0**-8}[dtype]
    # float32 comes first, so that two roundings may follow each other.
    assert np.all(np.abs(back - values) <= np.abs(values) * unit * (1 + 2.0**-10))
    assert np.array_equal(encode(back, dtype), encode(values, dtype))


def small_cases(count: int = 4) -> list:
    return list(islice(cases((7,)), count))


def test_check_passes_on_good_kernels(library: ScanLibrary) -> None:
    results = tuple(check_library(library, HostDevice(), small_cases()))
    tactics = {result.tactic for result in results if result.op == "VimSelectiveScan"}
    assert len(tactics) > 1
    assert {result.op for result in results} == set(PLUGIN_OPS)
    report = CheckReport("library", "CPU", results)
    assert report.failures == ()
    assert report.ok
    assert sum(line.cases for line in report.summary()) == len(results)
    report.require_ok()


def test_a_launch_finds_what_was_written_before_it(
    library: ScanLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = LateDriver()
    monkeypatch.setattr(cuda_driver, "_load", lambda: driver)
    with cuda_driver.Device() as device:
        results = tuple(check_library(library, device, small_cases(2)))
    assert results
    assert all(result.ok for result in results)
    assert not driver.late


class Spoiled:
    """A library whose outputs are tampered with after each launch."""

    def __init__(self, library: ScanLibrary, spoil: Callable[..., None]) -> None:
        self._library, self._spoil = library, spoil

    def __getattr__(self, name: str):
        return getattr(self._library, name)

    def launch(self, params, **options) -> None:
        self._library.launch(params, **options)
        self._spoil(params)


def write_byte(offset: int) -> Callable[..., None]:
    def spoil(params) -> None:
        output = params.u2 if params.op is BI_CAUSAL_CONV else params.y
        HostDevice().write(output + offset, b"\x01")

    return spoil


def wrong_value(params) -> None:
    output = params.u2 if params.op is BI_CAUSAL_CONV else params.y
    HostDevice().write(output, np.float32(1e3).tobytes())


def left_out_value(params) -> None:
    output = params.u2 if params.op is BI_CAUSAL_CONV else params.y
    HostDevice().write(output, b"\xff" * 4)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (write_byte(-1), "outside the output"),
        (left_out_value, "not finite"),
        (wrong_value, "relative L2"),
    ],
)
def test_check_fails_on_spoiled_outputs(
    library: ScanLibrary, spoil: Callable[..., None], word: str
) -> None:
    results = tuple(check_library(Spoiled(library, spoil), HostDevice(), small_cases(1)))
    report = CheckReport("library", "CPU", results)
    assert results
    assert len(report.failures) == len(results)
    assert not report.ok
    with pytest.raises(VimDeployError) as caught:
        report.require_ok()
    assert caught.value.code == "VIM-701"
    assert word in caught.value.why


def test_nothing_run_is_a_failure() -> None:
    report = CheckReport("library", "CPU", ())
    assert not report.ok
    with pytest.raises(VimDeployError):
        report.require_ok()


def test_error_above_the_tolerance_fails() -> None:
    result = CheckResult("op", "fp32", "case", 1, 2e-6, plugin_check.TOLERANCES[DataType.FP32], "")
    assert not result.ok


def torch_case() -> tuple[list[Any], dict[str, Any]]:
    """The tensors u to z of one scan, and its attributes."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    u, dt, z = torch.randn(3, 2, 9, 16).unbind()
    a, bc = -torch.rand(16, 16), torch.randn(2, 9, 36)
    d_skip, dt_bias = torch.randn(2, 16).unbind()
    # The kernels want 16-byte aligned tensors, as every GPU allocator gives them.
    given = [one.clone() for one in (u, dt, a, bc, d_skip, dt_bias, z)]
    return given, {**SETTINGS, "reverse": False, "c_off": 20}


def test_scan_of_torch_tensors(library: ScanLibrary) -> None:
    given, settings = torch_case()
    from vim_deploy.model import scan
    from vim_deploy.runtimes.torch.runner import launch_scan

    y = launch_scan(library, *given, **settings)
    expected = scan.selective_scan(*given, **settings)
    assert (y - expected).norm() / expected.norm() < 1e-6


@pytest.mark.parametrize("gated", [True, False])
def test_the_operator_on_the_kernels(
    library: ScanLibrary, monkeypatch: pytest.MonkeyPatch, gated: bool
) -> None:
    # What is registered for CUDA, called as PyTorch calls it, on the library's emulated device.
    given, settings = torch_case()
    import torch

    from vim_deploy.model import scan
    from vim_deploy.runtimes.torch.runner import use_scan_kernels

    registered: list[Any] = []
    monkeypatch.setattr(scan.selective_scan_op, "register_kernel", lambda device: registered.append)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))
    use_scan_kernels(library)
    order = ("reverse", "delta_softplus", "b_off", "c_off", "z_off")
    arguments = (*given, *(settings[name] for name in order), gated)
    expected = scan.selective_scan_op(*arguments)
    assert (registered[0](*arguments) - expected).norm() / expected.norm() < 1e-6
