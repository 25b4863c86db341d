"""This run against an earlier one: what is a regression, and which files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench import bench_report, measured, written
from vim_deploy.bench.compare import compared, read_baseline, require_no_regression
from vim_deploy.bench.report import BenchReport
from vim_deploy.codec import encode
from vim_deploy.errors import ExitCode, VimDeployError

SETTINGS = {"threads": 2}


def compare(old: BenchReport, new: BenchReport, folder: Path, limit: float = 0.05) -> BenchReport:
    path = written(old, folder)
    baseline = read_baseline(path, new.machine, new.settings)
    return compared(new, baseline, path.name, limit)


def test_equal_runs_are_no_regression(tmp_path: Path) -> None:
    report = compare(bench_report(measured()), bench_report(measured()), tmp_path)
    require_no_regression(report)
    assert [entry["verdict"] for entry in encode(report)["comparison"]["entries"]] == ["ok"] * 2


@pytest.mark.parametrize(
    ("new", "regression"),
    [
        (measured(milliseconds=10.4), False),
        (measured(milliseconds=10.6), True),
        (measured(milliseconds=5.0), False),
        (measured(memory=120 << 20), True),
        (measured(memory=104 << 20), False),
    ],
)
def test_the_limit(tmp_path: Path, new: Any, regression: bool) -> None:
    report = compare(bench_report(measured()), bench_report(new), tmp_path)
    if not regression:
        require_no_regression(report)
        return
    with pytest.raises(VimDeployError, match="VIM-1001") as caught:
        require_no_regression(report)
    assert caught.value.exit_code == ExitCode.PERFORMANCE_REGRESSION == 10
    assert "vim, onnxruntime, 224x224, batch 1" in str(caught.value)


def test_small_differences_of_memory_are_noise(tmp_path: Path) -> None:
    old, new = measured(memory=10 << 20), measured(memory=17 << 20)
    require_no_regression(compare(bench_report(old), bench_report(new), tmp_path))


def test_only_common_measurements_count(tmp_path: Path) -> None:
    old = bench_report(measured(), measured("gone"))
    new = bench_report(measured(), measured("new", 99.0))
    comparison = encode(compare(old, new, tmp_path))["comparison"]
    assert comparison["only_in_baseline"] == ["gone, onnxruntime, 224x224, batch 1"]
    assert comparison["only_here"] == ["new, onnxruntime, 224x224, batch 1"]


def test_nothing_in_common(tmp_path: Path) -> None:
    at = "onnxruntime, 224x224, batch 1"
    with pytest.raises(VimDeployError, match=rf"VIM-418(.|\n)*there: a, {at}; here: b, {at}"):
        compare(bench_report(measured("a")), bench_report(measured("b")), tmp_path)
    with pytest.raises(VimDeployError, match="VIM-418") as caught:
        compare(bench_report(measured()), bench_report(measured(batch=2)), tmp_path)
    assert "differ in the batch" in caught.value.why


@pytest.mark.parametrize("key", ["cpu_model", "architecture", "cpus", "gpu"])
def test_a_baseline_from_another_machine_is_refused(tmp_path: Path, key: str) -> None:
    report = bench_report(measured())
    path = written(report, tmp_path)
    value = json.loads(path.read_text())
    value["machine"][key] = "another"
    path.write_text(json.dumps(value))
    with pytest.raises(VimDeployError, match=rf"VIM-418(.|\n)*another machine.*{key}"):
        read_baseline(path, report.machine, SETTINGS)


def test_a_baseline_with_other_threads_is_refused(tmp_path: Path) -> None:
    report = bench_report(measured(), threads=1)
    path = written(report, tmp_path)
    with pytest.raises(VimDeployError, match=r"VIM-418(.|\n)*threads: 1 then, 2 now"):
        read_baseline(path, report.machine, SETTINGS)


def damaged(value: Any, *keys: Any, by: Any) -> Any:
    place = value
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = by
    return value


@pytest.mark.parametrize(
    "change",
    [
        lambda v: [],
        lambda v: {"results": []},
        lambda v: damaged(v, "schema", by=99),
        lambda v: damaged(v, "machine", by=[]),
        lambda v: damaged(v, "results", by=[3]),
        lambda v: damaged(v, "results", 0, "latency", by=None),
        lambda v: damaged(v, "results", 0, "latency", "p50_ms", "value", by=0),
        lambda v: damaged(v, "results", 0, "latency", "p50_ms", "value", by=float("nan")),
        lambda v: damaged(v, "results", 0, "latency", "p50_ms", "value", by=5e-324),
        lambda v: damaged(v, "results", 0, "latency", "p50_ms", "low", by="9"),
        lambda v: damaged(v, "results", 0, "latency", "mean_ms", by=None),
        lambda v: damaged(v, "results", 0, "memory", by={}),
        lambda v: damaged(v, "results", 0, "memory", "model_bytes", by=-1),
        lambda v: damaged(v, "results", 0, "memory", "model_bytes", by="many"),
        lambda v: damaged(v, "results", 0, "label", by=None),
        lambda v: damaged(v, "results", 0, "batch", by=1.5),
        lambda v: damaged(v, "results", 0, "batch", by=10**30),
        lambda v: damaged(v, "results", 0, "image", by=[224, "224"]),
        lambda v: damaged(v, "results", 0, "image", by=[[]]),
        lambda v: damaged(v, "results", by={"0": {}}),
        lambda v: damaged(v, "settings", by=None),
        lambda v: damaged(v, "state", by=[]),
        lambda v: damaged(v, "state", "date", by=3),
    ],
)
def test_files_that_are_no_reports(tmp_path: Path, change: Any) -> None:
    report = bench_report(measured())
    path = written(report, tmp_path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(VimDeployError, match="VIM-418"):
        read_baseline(path, report.machine, SETTINGS)


def test_files_that_are_no_json(tmp_path: Path) -> None:
    report = bench_report(measured())
    (tmp_path / "x.json").write_text('{"results": [')
    with pytest.raises(VimDeployError, match="VIM-418"):
        read_baseline(tmp_path / "x.json", report.machine, SETTINGS)
    with pytest.raises(VimDeployError, match="VIM-401"):
        read_baseline(tmp_path / "missing.json", report.machine, SETTINGS)
