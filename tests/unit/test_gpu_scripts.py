"""``benchmarks/gpu``: the float64, what is compared with, what is made of answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.source import REPOSITORY

torch = pytest.importorskip("torch")

CPU = torch.device("cpu")
DOUBLE = torch.float64


@pytest.fixture(scope="module", autouse=True)
def _scripts() -> Iterator[None]:
    sys.path.insert(0, str(REPOSITORY / "benchmarks" / "gpu"))
    yield
    sys.path.remove(str(REPOSITORY / "benchmarks" / "gpu"))


def every_op() -> Iterator[Any]:
    import problems

    for low_rank in (False, True):
        yield problems.bi_scan(torch.float32, 2, 7, 8, 3, low_rank=low_rank, device=CPU)
    for reverse in (False, True):
        for gated in (False, True):
            way = {"before": 3, "gated": gated, "reverse": reverse}
            yield problems.scan(torch.float32, 2, 7, 8, 5, device=CPU, **way)
    yield problems.conv(torch.float32, 2, 7, 8, device=CPU)
    yield problems.conv(torch.float32, 1, 2, 8, device=CPU)


def test_the_truth_is_that_of_the_ops() -> None:
    for problem in every_op():
        inputs = [tensor.double().numpy() for tensor in problem.inputs.values()]
        want = problem.op.reference(*inputs, **problem.attributes)
        found = problem.truth().numpy()
        assert found.shape == want.shape == problem.shape
        assert abs(found - want).max() < 1e-12 * abs(want).max(), problem.label
        assert list(problem.inputs) == list(problem.op.inputs)[: len(problem.inputs)]


def test_what_a_launch_cannot_do_without() -> None:
    import problems

    both = problems.bi_scan(torch.float16, 2, 10, 16, 3, low_rank=False, device=CPU)
    # 16 decays and a softplus in each direction, two for the gate.
    assert both.mufu == 36 * 2 * 10 * 16
    # u2, dt, the gate and y: 12 bytes an element; B and C of both directions; A.
    assert both.traffic == 12 * 320 + 2 * 2 * 2 * 10 * 32 + 4 * 2 * 16 * 16
    one = problems.scan(
        torch.float16, 2, 10, 16, 8, before=3, gated=False, reverse=False, device=CPU
    )
    assert one.mufu == 9 * 320
    conv = problems.conv(torch.float16, 2, 10, 16, device=CPU)
    assert conv.mufu == 4 * 320
    assert conv.traffic == 6 * 320 + 4 * (2 * 4 * 16 + 2 * 16)


class TheirModule:
    """``selective_scan_cuda`` by its meaning, on tensors [B,D,L]."""

    @staticmethod
    def fwd(
        u: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, z: Any, bias: Any, softplus: bool
    ) -> list[Any]:
        from problems import _recurrence

        assert softplus
        assert u.is_contiguous()
        assert dt.is_contiguous()
        turned = [tensor.transpose(-1, -2).double() for tensor in (u, dt, b[:, 0], c[:, 0])]
        step = torch.nn.functional.softplus(turned[1] + bias.double())
        scanned = _recurrence(turned[0], step, a.t().double(), *turned[2:])
        out = (scanned + turned[0] * skip.double()).transpose(1, 2)
        return [out, None, out * torch.nn.functional.silu(z.double())]


def test_mamba_is_given_the_same_work() -> None:
    import mamba
    import problems

    problem = problems.bi_scan(torch.float32, 2, 9, 8, 3, low_rank=False, device=CPU)
    problem.result.copy_(problem.truth())
    theirs = mamba.TheirScan(TheirModule, problem)
    distance = theirs.distance(problem.result)
    assert distance < 1e-6
    assert mamba.agrees(distance)
    problem.result[0, 3, 2] += 1.0
    assert not mamba.agrees(theirs.distance(problem.result))
    problem.result[0, 3, 2] = float("nan")
    assert not mamba.agrees(theirs.distance(problem.result))
    assert [tuple(out.shape) for out in theirs.scans()] == [(2, 8, 9)] * 2


def test_extensions_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mamba

    # Those that another test has made and imported.
    for name in ("selective_scan_cuda", "causal_conv1d_cuda"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = mamba.Extensions(tmp_path)
    assert found.scan is None
    assert "selective_scan_cuda" in found.missing["selective_scan_cuda"]
    assert "--ext" in mamba.Extensions(None).missing["causal_conv1d_cuda"]


def test_what_nsight_compute_prints() -> None:
    from kernels import metrics_of

    text = """==PROF== Connected to process 7
"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","7","serial_bi_scan_kernel<a, b>","gpu__time_duration.sum","ns","95,104"
"0","7","serial_bi_scan_kernel<a, b>","sm__inst_executed.sum","inst","12"
"1","7","conv_vector_kernel","gpu__time_duration.sum","ns","40"
"""
    first, second = metrics_of(text)
    assert first["kernel"] == "serial_bi_scan_kernel<a, b>"
    assert first["metrics"]["gpu__time_duration.sum"] == ["95,104", "ns"]
    assert list(second["metrics"]) == ["gpu__time_duration.sum"]
    assert metrics_of("==ERROR== no permission\n") == []


def test_what_is_aimed_at_is_judged_by_the_worst() -> None:
    from timing import targets

    def row(batch: int, share: float, ratio: float, length: int = 197) -> dict[str, Any]:
        return {
            "form": "dt",
            "shape": f"B={batch}",
            "batch": batch,
            "length": length,
            "share_of_mufu_bound": share,
            "mamba_scans_ratio": ratio,
        }

    rows = [row(1, 0.1, 5.0), row(64, 0.8, 4.0), row(128, 0.75, 3.5), row(64, 0.2, 6.0, 730)]
    share, ratio, same = targets(rows)
    assert same["met"] is None
    assert share["worst"] == (0.75, "B=128")
    assert ratio["worst"] == (3.5, "B=128")
    assert share["met"] is ratio["met"] is True
    other = row(64, 0.69, 2.9) | {"mamba_agrees": False}
    share, ratio, same = targets([*rows, other])
    assert share["met"] is ratio["met"] is same["met"] is False
    assert same["differing"] == ["B=64"]
    assert [aim["met"] for aim in targets([])] == [None] * 3


def test_without_a_gpu_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import kernels

    from vim_deploy.cuda import driver
    from vim_deploy.errors import VimDeployError

    def none() -> None:
        raise VimDeployError("VIM-302", "no usable GPU")

    monkeypatch.setattr(driver, "gpu", none)
    for command in ("check", "time", "ncu"):
        assert kernels.main([command, "library.so", str(tmp_path / "out.json")]) == 3
        assert capsys.readouterr().err.startswith("VIM-302")
    monkeypatch.setattr(driver, "gpu", lambda: None)
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    assert kernels.main(["ncu", "library.so", str(tmp_path / "out.json")]) == 3
    assert "ncu is not on PATH" in capsys.readouterr().err


class TheirConv:
    """``causal_conv1d_cuda`` by its meaning, in the release whose arguments are given."""

    def __init__(self, arguments: int) -> None:
        self._arguments = arguments

    def causal_conv1d_fwd(self, x: Any, weight: Any, bias: Any, *others: Any) -> Any:
        if 3 + len(others) != self._arguments:
            raise TypeError("incompatible function arguments")
        given = torch.nn.functional.pad(x.double(), (weight.shape[1] - 1, 0))
        channels = x.shape[1]
        taps = weight.double()[:, None]
        total = torch.nn.functional.conv1d(given, taps, bias.double(), groups=channels)
        return torch.nn.functional.silu(total)


def session(scan: Any, convolution: Any) -> Any:
    """What ``timing`` measures with, where the library is the truth and the clock the host's."""
    from timing import Session

    class Library:
        def __init__(self) -> None:
            self.launched: list[int] = []

        def workspace_bytes(self, params: Any, tactic: int) -> int:
            return 0

        def tactics(self, params: Any, multiprocessors: int) -> tuple[int, ...]:
            return (2, 3) if type(params).op.name == "VimBiSelectiveScan" else (6,)

        def launch(self, params: Any, *, tactic: int, **given: Any) -> None:
            self.launched.append(tactic)

    extensions = type("Extensions", (), {"scan": scan, "conv": convolution})()
    return Session(Library(), CPU, 1, 1e9, None, extensions, float("inf"), True)


def test_a_row_and_what_stands_beside_it() -> None:
    import problems
    import timing

    def both(seed: int) -> Any:
        problem = problems.bi_scan(torch.float16, 1, 5, 8, 2, low_rank=False, device=CPU, seed=seed)
        problem.result.copy_(problem.truth())
        return problem

    def conv(seed: int) -> Any:
        return problems.conv(torch.float16, 1, 5, 8, device=CPU, seed=seed)

    given = session(TheirModule, TheirConv(7))
    row, problem = timing.measure(given, "Vim-Ti", "dt", both)
    assert list(row["us"]) == ["serial", "chunked4"]
    assert row["default"] == "serial"
    assert set(given.library.launched) == {2, 3}
    timing.beside_mamba(given, row, problem, mixer=True)
    assert row["mamba_agrees"], row
    assert row["mamba_scans_ratio"] > 0
    assert row["mamba_mixer_us"] > 0
    only, _ = timing.measure(given, "Vim-Ti", "dt", both, default_only=True)
    assert list(only["us"]) == ["serial"]
    convolved, problem = timing.measure(given, "Vim-Ti", "conv", conv)
    theirs = timing.their_conv(TheirConv(7), problem)()
    # Their weights are rounded to float16.
    assert (theirs.transpose(1, 2) - problem.truth()[0]).abs().max() < 5e-3
    timing.beside_causal_conv1d(given, convolved, problem)
    assert convolved["causal_conv1d_ratio"] > 0
    given = session(None, TheirConv(5))
    timing.beside_causal_conv1d(given, convolved, problem)
    assert "incompatible" in convolved["causal_conv1d_error"]
    assert "causal_conv1d_error: incompatible" in timing.say(convolved)
    before = dict(only)
    timing.beside_mamba(given, only, problem, mixer=True)
    assert only == before


def test_replays_and_cycles_as_a_gpu_would_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls that need a GPU, in their order, on stand-ins of PyTorch's own."""
    import contextlib
    import types

    import clocks

    said: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            said.append("event")

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, other: Event) -> float:
            return 0.5  # milliseconds

    @contextlib.contextmanager
    def graph(given: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        said.append("capture")
        yield
        said.append("captured")

    replay = types.SimpleNamespace(replay=lambda: said.append("replay"))
    cuda = {
        "CUDAGraph": lambda: replay,
        "graph": graph,
        "Event": Event,
        "synchronize": lambda: said.append("synchronize"),
        "Stream": lambda: types.SimpleNamespace(cuda_stream=7),
    }
    for name, value in cuda.items():
        monkeypatch.setattr(torch.cuda, name, value)
    work = clocks.Replay([lambda: said.append("launch")] * 2, torch.device("cuda"))
    once = ["launch", "launch"]
    assert said == [*once, "synchronize", "capture", *once, "captured"]
    said.clear()
    assert work.microseconds(4) == 250.0
    assert said == ["replay"] * 3 + ["event", "replay", "event"] * 4

    def count(nanoseconds: int, counted: int, stream: int) -> int:
        assert (nanoseconds, stream) == (2_000_000, 7)
        said.append("count")
        return 0

    counted = torch.tensor([3_600_000, 2_000_000])
    library = types.SimpleNamespace(vim_count_cycles=count)
    monkeypatch.setattr(clocks.ctypes, "CDLL", lambda path: library)
    monkeypatch.setattr(torch, "zeros", lambda *size, **given: counted)
    said.clear()
    assert clocks.SmClock(Path("lib.so")).hertz(work, 10_000.0) == 1.8e9
    assert said == ["replay", "replay", "count", "replay", "replay", "synchronize"]
