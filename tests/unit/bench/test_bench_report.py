"""Reports: ratios, exponents, tables, what is said about the machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.bench import bench_report, measured, subject
from vim_deploy.bench import environment, worker
from vim_deploy.bench.environment import CpuTimes, disturbance
from vim_deploy.bench.measure import FAILED, SKIPPED, Measurement
from vim_deploy.bench.report import BenchReport, busy_notes
from vim_deploy.bench.table import result_rows
from vim_deploy.codec import encode


def scaled() -> BenchReport:
    """Vim linear, DeiT quadratic, over three sizes."""
    sizes = ((224, 197), (512, 1025), (1248, 6085))
    items = []
    for group, (side, tokens) in enumerate(sizes):
        place = {"group": group, "image": (side, side), "tokens": tokens}
        items.append(measured("vim", tokens / 10, **place))
        items.append(measured("deit", tokens**2 / 1e4, memory=tokens**2 * 12, **place))
    return bench_report(*items)


def test_ratios_refer_to_the_first_of_the_group() -> None:
    report = bench_report(measured("a", 10), measured("b", 25), measured("c", 5, group=1))
    (ratio,) = encode(report)["ratios"]
    assert (ratio["of"], ratio["to"]) == ("b", "a")
    assert ratio["time"]["value"] == pytest.approx(2.5)
    assert ratio["model_memory"] == pytest.approx(1.0)


def test_no_ratio_without_the_first() -> None:
    first = Measurement(subject("a"), 0, FAILED, "killed")
    assert bench_report(first, measured("b"), measured("c")).ratios == ()


def test_exponents() -> None:
    found = {entry["label"]: entry for entry in encode(scaled())["scaling"]}
    assert found["vim"]["exponent"] == pytest.approx(1.0)
    assert found["deit"]["exponent"] == pytest.approx(2.0)
    assert found["vim"]["tokens"] == [197, 1025, 6085]


def test_two_sizes_show_no_curve() -> None:
    assert encode(bench_report(*scaled().measurements[:4]))["scaling"] == []


def test_skipped_and_failed_measurements_are_shown_with_their_reason(tmp_path: Path) -> None:
    skipped = Measurement(subject("big"), 0, SKIPPED, "needs about 90 GB")
    report = bench_report(measured(), skipped)
    rows = list(result_rows(encode(report)))
    assert rows[1][4] == "skipped: needs about 90 GB"
    report.require_measured()  # left out on purpose is not a failure
    report.write(tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text()) == encode(report)


def test_nan_outputs_and_a_busy_machine_are_said() -> None:
    notes = list(busy_notes({"load_average": [1.8, 1, 1]}, 2, {"other_share": 0.4}))
    assert notes[0] == "the machine was busy before the run: load 1.80 on 2 processors"
    assert notes[1] == "other processes took 40 % of the processors' time during the run"
    assert list(busy_notes({"load_average": [0.3, 1, 1]}, 2, {"other_share": 0.02})) == []
    assert list(busy_notes({"load_average": None}, 2, {"other_share": None})) == []


def test_disturbance_is_what_is_left_of_the_busy_time() -> None:
    before, after = CpuTimes(100, 5, 1000), CpuTimes(250, 15, 1200)
    found = disturbance(before, after, own=110)
    assert found["other_share"] == pytest.approx(0.2)
    assert found["stolen_share"] == pytest.approx(0.05)
    assert disturbance(before, after, own=170)["other_share"] == 0
    assert disturbance(None, after, own=1)["other_share"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_what_linux_says_about_itself() -> None:
    machine, state = environment.machine(), environment.state()
    assert machine["memory_bytes"] > 1e8
    assert 1 <= machine["cpus"] <= machine["cpus_total"]
    assert state["versions"]["numpy"]
    assert 0 < (environment.available_memory() or 0) <= machine["memory_bytes"]
    times = environment.cpu_times()
    assert times is not None
    assert times.busy < times.total


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_peak_can_be_begun_anew() -> None:
    if not worker.reset_peak():
        pytest.skip("this system does not let a process set its peak back")
    small = worker.peak_bytes()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    large = worker.peak_bytes()
    del block
    assert worker.reset_peak()
    again = worker.peak_bytes()
    assert small is not None
    assert large is not None
    assert again is not None
    assert large - small > 60 << 20
    assert again < large - (50 << 20)
