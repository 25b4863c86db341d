"""Taking turns, and processes that fail, with a worker that answers by a script."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench import WORKER, bench_report, subject
from vim_deploy.bench.measure import (
    FAILED,
    Measurement,
    SubjectFailedError,
    Timing,
    WorkerProcess,
    measure_group,
)
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError

COMMAND = (sys.executable, "-c", WORKER)
TIMING = Timing(warmup=0.0, duration=1.0, threads=1)


def run(log: Path, *plans: dict[str, Any], timing: Timing = TIMING) -> list[Measurement]:
    subjects = [
        subject(
            f"model {number}",
            source={"log": str(log), "name": str(number), "call": 0.001, **plan},
        )
        for number, plan in enumerate(plans)
    ]
    return measure_group(subjects, timing, 3, command=COMMAND)


def test_subjects_take_turns_in_a_moving_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = run(log, {}, {}, {})
    lines = log.read_text().split()
    assert lines[:3] == ["0", "1", "2"]  # warm-up
    turns = [line.removesuffix("+") for line in lines[3:]]
    assert turns[:9] == ["0", "1", "2", "1", "2", "0", "2", "0", "1"]
    assert len(turns) == 30
    assert all(line.endswith("+") for line in lines[3:])  # short calls get one to settle
    assert [len(item.turns) for item in found] == [10] * 3
    assert found[0].group == 3
    assert found[0].memory == {"runtime_bytes": 10, "run_peak_bytes": 40}
    assert found[0].runtime == "fake 1.0"


def test_long_calls_get_three_rounds_without_settling(tmp_path: Path) -> None:
    found = run(tmp_path / "log", {"call": 0.9})
    assert [len(item.turns) for item in found] == [3]
    assert "+" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("killed", "killed, probably because memory ran out"),
        ("runtime", "RuntimeError: out of memory"),
        ("exit", "ended with status 7; the last words"),
    ],
)
def test_one_failure_leaves_the_others(tmp_path: Path, how: str, reason: str) -> None:
    found = run(tmp_path / "log", {}, {"fail": how})
    assert found[0].ok
    assert len(found[0].turns) == 10
    assert found[1].status == FAILED
    assert reason in found[1].reason
    with pytest.raises(VimDeployError, match="VIM-1002") as caught:
        bench_report(*found).require_measured()
    assert reason in str(caught.value)


def test_what_cannot_be_opened_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError, match="VIM-409: bad file"):
        run(tmp_path / "log", {}, {"fail": "load"})


def test_device_times_stay_apart(tmp_path: Path) -> None:
    found = run(tmp_path / "log", {"device": [0.0005, 0.0005]})
    assert found[0].device_turns is not None
    assert len(found[0].device_turns) == len(found[0].turns) == 10
    value = encode(bench_report(*found))["results"][0]
    assert value["latency"]["p50_ms"]["value"] == pytest.approx(1.0)
    assert value["device_latency"]["p50_ms"]["value"] == pytest.approx(0.5)


def test_processor_time_stays_apart(tmp_path: Path) -> None:
    # The second takes as long as the first, and works on twice as many threads.
    found = run(tmp_path / "log", {}, {"cpu": 0.002})
    value = encode(bench_report(*found))
    assert [r["cpu_ms"]["value"] for r in value["results"]] == pytest.approx([1.0, 2.0])
    assert value["ratios"][0]["time"]["value"] == pytest.approx(1.0)
    assert value["ratios"][0]["cpu_time"]["value"] == pytest.approx(2.0)


def test_an_interrupt_ends_the_process(tmp_path: Path) -> None:
    worker = WorkerProcess((sys.executable, "-c", "import time; time.sleep(60)"))

    def interrupted() -> None:
        with worker:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert worker._process.poll() is not None


def test_a_program_that_does_not_start() -> None:
    with (
        WorkerProcess((sys.executable, "-c", "import nowhere")) as worker,
        pytest.raises(SubjectFailedError, match=r"status 1; (.|\n)*No module named"),
    ):
        worker.ask({"do": "end"})
