"""Native ops and function bodies as measurements of their own."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import parser

import vim_deploy
from tests.support.bench import bench_report, measured, written
from tests.support.ort_ops import built_library
from vim_deploy.bench.compare import compared, read_baseline, require_no_regression
from vim_deploy.bench.report import BenchReport
from vim_deploy.bench.subject import Subject
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.ops.functions import AskedOps
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.specs import OpsChoice
from vim_deploy.stages.bench_ops import ops_ways
from vim_deploy.stages.bench_subjects import SubjectMaker
from vim_deploy.stages.export_options import ExportOptions

QUICK = ("--warmup", "0", "--duration", "0.02", "--threads", "1")
NATIVE, FUNCTION = "onnxruntime, native ops", "onnxruntime"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, exported."""
    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    vim_deploy.export("vim-digits", path, ExportOptions(check=False))
    return path


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library of this checkout, where commands find it."""
    path = built_library()
    monkeypatch.setenv("VIM_DEPLOY_ORT_OPS", str(path))
    return path


def subjects(file: Path, ops: OpsChoice) -> tuple[list[Subject], list[str]]:
    maker = SubjectMaker(
        file.parent,
        image_sizes=(),
        batches=(1,),
        baselines=(),
        random_weights=None,
        graph="fused",
        runner=RunnerOptions(ops=ops),
        cuda_graph=False,
        progress=lambda _: None,
    )
    (group,) = maker.groups([str(file)])
    return group, maker.notes


def test_a_file_is_measured_both_ways_native_ops_first(digits: Path, library: Path) -> None:
    (native, function), notes = subjects(digits, "auto")
    assert (native.runtime, function.runtime) == (NATIVE, FUNCTION)
    assert native.label == function.label == "digits"
    assert (native.source["ops"], function.source["ops"]) == ("native", "function")
    assert native.facts["library"].startswith("native ops (")
    assert " kernels " in native.facts["library"]
    assert native.facts["bytes"] == digits.stat().st_size
    assert "library" not in function.facts
    assert (native.estimated_bytes or 0) < (function.estimated_bytes or 0)
    assert not [note for note in notes if "function bodies" in note]


def test_one_way_alone(digits: Path, library: Path) -> None:
    for ops, runtime in (("native", NATIVE), ("function", FUNCTION)):
        (only,), _ = subjects(digits, ops)  # type: ignore[arg-type]
        assert only.runtime == runtime


def test_a_file_without_our_ops_has_one_way(tmp_path: Path, library: Path) -> None:
    text = """
    < ir_version: 8, opset_import: ["" : 18] >
    other (float[N,1,4,4] image) => (float[N,16] logits) { logits = Flatten(image) }
    """
    onnx.save(parser.parse_model(text), str(tmp_path / "other.onnx"))
    (only,), _ = subjects(tmp_path / "other.onnx", "auto")
    assert only.runtime == FUNCTION
    assert "ops" not in only.facts


def test_without_a_library_the_function_bodies_are_measured_and_that_is_said(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIM_DEPLOY_ORT_OPS", "")
    (only,), notes = subjects(digits, "auto")
    assert only.runtime == FUNCTION
    assert any("no library of native ops" in note for note in notes)


def test_a_library_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("this is no library")
    monkeypatch.setenv("VIM_DEPLOY_ORT_OPS", str(tmp_path / "text.so"))
    asked = AskedOps(frozenset({"VimBiSelectiveScan"}))
    found = ops_ways(RunnerOptions(ops="auto"), asked)
    assert (found.ways, found.library) == (("function",), "")
    # Why alone: that function bodies are measured is said by whoever measures them.
    assert str(tmp_path / "text.so") in found.note
    assert "native ops not used" not in found.note
    with pytest.raises(VimDeployError, match="VIM-417"):
        ops_ways(RunnerOptions(ops="native"), asked)


def test_tensorrt_takes_no_native_ops() -> None:
    asked = AskedOps(frozenset({"VimBiSelectiveScan"}))
    assert ops_ways(RunnerOptions(provider="tensorrt"), asked).ways == ("function",)
    with pytest.raises(VimDeployError, match="VIM-203"):
        ops_ways(RunnerOptions(provider="tensorrt", ops="native"), asked)


def test_the_report_names_kernels_and_instruction_set(
    digits: Path, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jinja2", reason="pip install 'vim-deploy[report]'")
    report = ("--report", str(tmp_path / "report"))
    assert run(["bench", str(digits), *QUICK, *report, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    native, function = value["results"]
    assert (native["runner"], function["runner"]) == (NATIVE, FUNCTION)
    assert "native ops (" in native["runtime"]
    assert "native" not in function["runtime"]
    (ratio,) = value["ratios"]
    assert (ratio["to_runner"], ratio["of_runner"]) == (NATIVE, FUNCTION)
    assert ratio["cpu_time"]["value"] > 0
    assert value["settings"]["ops"] == "auto"
    for name in ("bench.md", "bench.html"):
        text = (tmp_path / "report" / name).read_text(encoding="utf-8").replace("\\_", "_")
        assert native["runtime"] in text
        assert native["facts"]["library"] in text


@pytest.mark.parametrize(("then", "now"), [("function", "native"), ("native", "function")])
def test_reports_of_two_ways_have_nothing_in_common(then: str, now: str, tmp_path: Path) -> None:
    old = bench_report(measured("d", source={"ops": then}))
    new = bench_report(measured("d", source={"ops": now}))
    baseline = read_baseline(written(old, tmp_path), new.machine, new.settings)
    with pytest.raises(VimDeployError, match="VIM-418") as caught:
        compared(new, baseline, "old.json", 0.05)
    words = {"native": "native ops", "function": "functions"}
    assert "d, onnxruntime, native ops, 224x224, batch 1" in caught.value.why
    assert "differ in the way that our ops run" in caught.value.why
    assert f"{words[then]} there, {words[now]} here" in caught.value.why
    assert caught.value.fix.startswith(f"--ops {then} ")


def test_kernels_that_are_others_by_now_are_named(tmp_path: Path) -> None:
    def run_with(library: str, milliseconds: float) -> BenchReport:
        source, facts = {"ops": "native"}, {"ops": "native", "library": library}
        return bench_report(measured("d", milliseconds, source=source, facts=facts))

    old, new = run_with("kernels 0a", 10.0), run_with("kernels 0b", 20.0)
    baseline = read_baseline(written(old, tmp_path), new.machine, new.settings)
    report = compared(new, baseline, "old.json", 0.05)
    said = "other kernels then, kernels 0a; now kernels 0b"
    assert report.notes[-1] == f"compared with old.json: {said}"
    assert encode(report)["comparison"]["kernels"] == [said]
    with pytest.raises(VimDeployError, match="VIM-1001") as caught:
        require_no_regression(report)
    assert said in caught.value.why
    path = written(old, tmp_path)
    strange = json.loads(path.read_text(encoding="utf-8"))
    strange["results"][0]["facts"]["library"] = [1]
    path.write_text(json.dumps(strange), encoding="utf-8")
    found = read_baseline(path, new.machine, new.settings)
    assert "other kernels then, [1];" in compared(new, found, "old.json", 0.05).notes[-1]
    same = compared(run_with("kernels 0a", 9.0), baseline, "old.json", 0.05)
    assert (same.notes, "kernels" in encode(same)["comparison"]) == ((), False)


def test_an_earlier_report_is_compared_with_the_function_bodies(tmp_path: Path) -> None:
    old = bench_report(measured("d", 10.0))
    value = encode(old)
    # As version 0.1.0 wrote it.
    for result in value["results"]:
        assert "cpu_ms" not in result
    path = written(old, tmp_path)
    now = bench_report(
        measured("d", 2.0, source={"ops": "native"}),
        measured("d", 10.0, source={"ops": "function"}),
    )
    report = compared(now, read_baseline(path, now.machine, now.settings), "old.json", 0.05)
    assert report.comparison is not None
    times = [entry for entry in report.comparison.entries if entry.figure == "latency"]
    assert [entry.ratio for entry in times] == [pytest.approx(1.0)]
    assert report.comparison.only_here == ("d, onnxruntime, native ops, 224x224, batch 1",)
