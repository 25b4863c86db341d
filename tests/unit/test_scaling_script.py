"""``benchmarks/scaling.py`` on scripted steps: order, time, memory, quiet, going on, the report.

And the README's figures, which are made of its results.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.bench import bench_report, measured
from tests.support.source import REPOSITORY
from vim_deploy.bench import environment
from vim_deploy.bench.environment import CpuTimes
from vim_deploy.codec import encode

MODELS = ("vim-tiny", "vim-small", "vim-base")
SIZES = (224, 512, 1248)


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script; it imports the module beside it, as it does when it is run."""
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    import scaling

    yield scaling
    sys.path.remove(str(REPOSITORY / "benchmarks"))


@pytest.fixture
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cpu_times", lambda: None)


def value_of(task: Any) -> dict[str, Any]:
    """What the step's process would print: Vim linear, DeiT quadratic in tokens."""
    if task.stage == "export":
        return {"export_seconds": 20.0, "passes_seconds": 0.25}
    if task.stage == "verify":
        output = {"max_abs": 1e-6, "relative_l2": 1e-7, "passed": True, "output": "logits"}
        return {"results": [{"outputs": [output]}]}
    if task.stage == "build":
        return {"peak_memory_bytes": 10**9, "build_seconds": 12.5}
    return dict(json.loads(_bench(task.model, task.size, task.tokens)))


@functools.cache
def _bench(model: str, size: int, tokens: int) -> str:
    place = {"image": (size, size), "tokens": tokens}
    label, native = f"{model}-{size}", {"source": {"ops": "native"}}
    items = [
        measured(label, tokens / 8, facts={"ops": "native"}, **native, **place),
        measured(label, tokens / 2, 200 << 20, facts={"ops": "function"}, **place),
        measured("DeiT-Ti eager", tokens**2 / 1e3, 1000 << 20, **place),
        measured("DeiT-Ti sdpa", tokens**2 / 8e2, **place),
        measured("DeiT-Ti flash", tokens**2 / 2e3, **place),
        measured("vim-tiny", 900.0, runner="pytorch", **place),
    ]
    return json.dumps(encode(bench_report(*items)))


def run_all(
    script: ModuleType,
    kept: tuple[dict[str, Any], ...] = (),
    step: Callable[[Any], Any] | None = None,
    threads: tuple[int, ...] = (1,),
    **changes: Any,
) -> list[dict[str, Any]]:
    """Entries of all tasks, with steps that end at once."""
    good = lambda task: script.Step("ok", seconds=30.0, peak_bytes=9, value=value_of(task))  # noqa: E731
    options = {"seconds": 1e9, "models": MODELS, "busy": False, "tell": lambda text: None}
    tasks = script.tasks_of(MODELS, SIZES, script.STAGES, threads)
    take = lambda task, seconds: lambda: (step or good)(task)  # noqa: E731
    return list(script.run_tasks(tasks, kept, take, **{**options, **changes}))


def about() -> dict[str, Any]:
    """What the results say of themselves."""
    library = {"sentence": "native ops (avx512): kernels 0123456789abcdef"}
    state = {"machine": environment.machine(), "state": environment.state()}
    return {**state, "command": ["python"], "library": library}


@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs the script")
@pytest.mark.usefixtures("_quiet")
def test_the_first_model_is_whole_before_the_others_begin(script: ModuleType) -> None:
    entries = run_all(script)
    places = list(dict.fromkeys((entry["model"], entry["size"]) for entry in entries))
    assert places[:3] == [("vim-tiny", size) for size in SIZES]
    assert places[3:5] == [("vim-small", 224), ("vim-base", 224)]
    assert len(entries) == 3 * 3 * 4
    assert {entry["status"] for entry in entries} == {"ok"}
    assert [entry["tokens"] for entry in entries[::4]][:3] == [197, 1025, 6085]


def test_more_threads_come_after_the_first_model_on_the_fewest(script: ModuleType) -> None:
    tasks = script.tasks_of(MODELS, SIZES, script.USUAL_STAGES, (1, 2))
    assert len(set(tasks)) == len(tasks) == 3 * 3 * 3
    inferences = [task for task in tasks if task.stage == "inference"]
    assert [(task.model, task.size, task.threads) for task in inferences[:6]] == [
        *(("vim-tiny", size, 1) for size in SIZES),
        *(("vim-tiny", size, 2) for size in (224, 1248)),
        ("vim-small", 224, 1),
    ]
    # A file is exported once, and before it is measured.
    exports = [task for task in tasks if task.stage == "export"]
    assert len(exports) == 3 * 3
    for task in inferences:
        (made,) = (one for one in exports if (one.model, one.size) == (task.model, task.size))
        assert tasks.index(made) < tasks.index(task)


@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs the script")
@pytest.mark.usefixtures("_quiet")
def test_what_is_kept_of_a_measurement(script: ModuleType) -> None:
    entry = run_all(script, threads=(1, 2))[1]
    native, function, *_ = entry["results"]
    assert (native["runner"], function["runner"]) == ("onnxruntime, native ops", "onnxruntime")
    assert native["ms"] == {"value": 24.625, "low": 24.625, "high": 24.625}
    assert native["model_bytes"] == 100 << 20
    assert [ratio["to_runner"] for ratio in entry["ratios"]] == ["onnxruntime, native ops"] * 5
    assert entry["ratios"][0]["time"]["value"] == pytest.approx(4.0)


def test_every_size_of_the_figure_has_its_tokens(script: ModuleType) -> None:
    tokens = [script.Task("vim-tiny", size, "export").tokens for size in script.SIZES]
    assert tokens == [197, 1025, 4097, 6085]


@pytest.mark.usefixtures("_quiet")
def test_what_does_not_fit_into_the_time_is_left_out_and_said(script: ModuleType) -> None:
    entries = run_all(script, seconds=100.0)
    by_place = {(e["model"], e["size"], e["stage"]): e for e in entries}
    assert by_place["vim-tiny", 224, "inference"]["status"] == "ok"
    # 30 s with 197 tokens; DeiT alone would take a minute more with 1025, and Vim some seconds.
    left = by_place["vim-tiny", 1248, "inference"]
    assert left["status"] == "left out"
    assert "of the time were left" in left["reason"]
    assert by_place["vim-small", 224, "export"]["status"] == "left out"
    assert by_place["vim-small", 224, "verify"]["reason"] == "there is no exported file"


@pytest.mark.usefixtures("_quiet")
def test_a_model_goes_no_further_where_memory_ended(script: ModuleType) -> None:
    def step(task: Any) -> Any:
        if task.model == "vim-base" and task.stage == "inference" and task.size >= 512:
            return script.Step("left out", "memory ended: 0.9 GB left")
        return script.Step("ok", seconds=1.0, value=value_of(task))

    base = {
        (e["size"], e["stage"]): e for e in run_all(script, step=step) if e["model"] == MODELS[2]
    }
    assert base[512, "inference"]["reason"] == "memory ended: 0.9 GB left"
    assert base[1248, "inference"]["reason"] == "memory ended at 512 already"
    assert base[1248, "verify"]["status"] == "ok"


def test_a_disturbed_step_is_repeated_once(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10_000))
    # Between two looks ten seconds of two processors pass, and others take half of them.
    monkeypatch.setattr(
        environment, "cpu_times", lambda: (n := next(clock)) and CpuTimes(10 * n, 0, 20 * n)
    )
    calls: list[Any] = []

    def step(task: Any) -> Any:
        calls.append(task)
        return script.Step("ok", seconds=1.0, value=value_of(task))

    next(clock)
    entries = run_all(script, step=step)
    assert len(calls) == 2 * len(entries)
    assert {entry["status"] for entry in entries} == {"disturbed"}
    assert entries[0]["reason"] == "others took 50% of the processors"
    assert {entry["status"] for entry in run_all(script, step=step, busy=True)} == {"ok"}


@pytest.mark.usefixtures("_quiet")
def test_going_on_keeps_what_is_there(script: ModuleType) -> None:
    tasks = script.tasks_of(MODELS, SIZES, script.STAGES, (1,))
    done = run_all(script)[:10]
    # The third place has no verify and no build yet, which need the exported file.
    kept = script.whole(done, tasks)
    assert [entry["stage"] for entry in kept] == [*script.STAGES * 2, "inference"]
    again = run_all(script, tuple(kept))
    assert [entry["stage"] for entry in again[:3]] == ["export", "verify", "build"]
    assert len(kept) + len(again) == len(tasks)


def test_results_of_another_machine_are_not_gone_on_with(
    script: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "scaling.json"
    about = {"machine": {"cpu_model": "here"}, "versions": {"numpy": "2"}}
    entry = {"status": "ok", "model": "vim-tiny"}
    path.write_text(json.dumps({**about, "entries": [entry, {**entry, "status": "left out"}]}))
    assert script.earlier(path, about) == [entry]
    assert script.earlier(tmp_path / "none.json", about) == []
    with pytest.raises(SystemExit, match="of another machine"):
        script.earlier(path, {**about, "machine": {"cpu_model": "there"}})
    assert script.earlier(path, {**about, "versions": {"numpy": "3"}}, force=True) == []


@pytest.mark.parametrize(
    ("code", "seconds", "free", "status", "reason"),
    [
        ("print('{\"a\": 1}')", 60, None, "ok", ""),
        ("import time; time.sleep(60)", 0.1, None, "left out", "the time is over"),
        ("import time; time.sleep(60)", 60, 5, "left out", "memory ended: 0.00 GB left"),
        ("raise SystemExit('error VIM-409: no')", 60, None, "failed", "error VIM-409: no"),
    ],
)
def test_a_step_is_a_process_that_can_be_stopped(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    seconds: float,
    free: int | None,
    status: str,
    reason: str,
) -> None:
    monkeypatch.setattr(environment, "available_memory", lambda: free)
    step = script.run_step([sys.executable, "-c", code], tmp_path, seconds)
    assert (step.status, step.reason) == (status, reason)
    assert step.seconds < 30
    assert step.value == ({"a": 1} if status == "ok" else {})


@pytest.mark.parametrize("stage", ["export", "verify", "build", "inference"])
def test_every_stage_is_a_command_that_the_tools_take(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    options = argparse.Namespace(duration=0.1, warmup=0.0)
    task = script.Task("vim-teeny", 224, stage, 1)
    step = script.run_step(script.command_of(task, tmp_path, options, 224), tmp_path, 120)
    # There is no such model, and so no file of it: the arguments have been understood.
    assert step.status == "failed"
    assert step.reason.startswith(f"error {'VIM-201' if stage == 'export' else 'VIM-401'}:")
    assert "vim-teeny" in step.reason


@pytest.mark.usefixtures("_quiet")
def test_the_report(script: ModuleType, tmp_path: Path) -> None:
    entries = run_all(script, threads=(1, 2))
    entries[-1].update(status="left out", reason="memory ended: 0.9 GB left")
    script.write_report(about(), entries, tmp_path)
    stored = json.loads((tmp_path / "scaling.json").read_text())
    fits = {(fit["what"], fit["name"]): fit["exponent"] for fit in stored["fits"]}
    assert fits["inference", "vim-tiny native ops"] == pytest.approx(1.0, abs=1e-4)
    assert fits["inference", "vim-tiny function bodies"] == pytest.approx(1.0, abs=1e-4)
    assert fits["inference", "DeiT-Ti eager"] == pytest.approx(2.0, abs=1e-4)
    text = (tmp_path / "scaling.md").read_text()
    assert "vim-base at 1248, inference on 2: left out; memory ended: 0.9 GB left" in text
    assert "| 224 | 1 | vim-tiny native ops | ONNX Runtime | 24.6 " in text
    for form in ("eager", "sdpa", "flash"):
        assert f"| 1248 | 2 | DeiT-Ti {form} | ONNX Runtime | " in text
    assert "native ops (avx512): kernels 0123456789abcdef." in text
    figure = ElementTree.parse(tmp_path / "scaling.svg").getroot()
    assert len(figure.findall("{http://www.w3.org/2000/svg}svg")) == 3
    assert not (tmp_path / "scaling.html").exists()
    drawn = [element.text for element in figure.iter() if element.text]
    for name in ("native ops", "function bodies"):
        assert f"vim-tiny {name}" in drawn
    # Where there is one DeiT, there are all.
    assert len({drawn.count(f"DeiT-Ti {form}") for form in ("eager", "sdpa", "flash")}) == 1


@pytest.mark.usefixtures("_quiet")
def test_the_readmes_figures_are_those_of_the_results(script: ModuleType, tmp_path: Path) -> None:
    import scaling_readme

    script.write_report(about(), run_all(script, threads=(1, 2)), tmp_path)
    text = scaling_readme.section(json.loads((tmp_path / "scaling.json").read_text()))
    # 1248 px: 6085 tokens, so 761 ms, four times that, and 6085^2 / 1000, / 800 and / 2000 ms.
    row = "| Vim-Ti | 1248 | 1 | 761 | 3,042 (0.25) | 37,027 (0.02) | 46,284 (0.02) |"
    assert f"{row} 18,514 (0.04) |" in text
    assert "| Vim-Ti | 1248 | 1 | 105 | 210 (0.50) | 1,049 (0.10) | 105 (1.00) |" in text
    assert (
        "Vim-Ti with native ops at 224 px on 1 thread takes 0.25 (0.25 to 0.25) of the time of the "
        "function bodies and 0.50 of the memory; 0.63 (0.63 to 0.63) of the time of DeiT with plain"
    ) in text
