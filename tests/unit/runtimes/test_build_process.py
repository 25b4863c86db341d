"""Following, stopping and burying a build process; small scripts stand in for the worker."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building import process as build_process
from vim_deploy.runtimes.building.process import BuildProgress, run_worker
from vim_deploy.runtimes.building.request import Job

PRELUDE = """
import json, os, signal, sys, time
job = json.loads(sys.stdin.buffer.raw.readline())
def send(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)
"""


@dataclass(frozen=True)
class Marked(Job):
    mark: str


@pytest.fixture
def job(tmp_path):
    model, output = Path("model.onnx"), tmp_path / "out.plan"
    return Marked("", "tensorrt-rtx", model, "model.onnx", output, (), "ä")


def worker(script: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE + textwrap.dedent(script)]


def code_and_error(job, script: str, progress=None) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        run_worker(job, progress, worker(script))
    assert caught.value.fix
    return caught.value


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_facts_of_a_finished_build(job):
    facts = run_worker(job, None, worker('send("done", layers=3, mark=job["mark"])'))
    assert (facts["layers"], facts["mark"]) == (3, "ä")


def test_progress_follows_nested_phases(job):
    seen = []
    script = """
    send("phase", name="outer", parent=None, steps=2)
    send("step", name="outer", step=1)
    send("phase", name="inner", parent="outer", steps=5)
    send("step", name="inner", step=4)
    send("phase_end", name="inner")
    send("step", name="outer", step=2)
    send("phase_end", name="outer")
    send("phase_end", name="never opened")
    send("done")
    """
    run_worker(job, seen.append, worker(script))
    where = [(p.phase, p.step, p.steps, p.depth) for p in seen if p.phase != seen[-1].phase]
    assert list(dict.fromkeys(where)) == [
        ("outer", 0, 2, 0),
        ("outer", 1, 2, 0),
        ("inner", 0, 5, 1),
        ("inner", 4, 5, 1),
        ("outer", 2, 2, 0),
    ]
    assert [p.elapsed for p in seen] == sorted(p.elapsed for p in seen)


def test_titles_are_for_people():
    assert BuildProgress("Determining refit engines", 0, 1, 0, 0.0).title == "Compiling"
    assert BuildProgress("Building engine", 0, 1, 0, 0.0).title == "Building engine"


def test_progress_is_called_while_the_worker_is_silent(job, monkeypatch):
    monkeypatch.setattr(build_process, "HEARTBEAT_SECONDS", 0.02)
    seen = []
    run_worker(job, seen.append, worker('time.sleep(0.5); send("done")'))
    assert len(seen) > 5


def test_runtime_log_is_forwarded(job, caplog):
    script = """
    send("log", severity="warning", message="mind the gap")
    send("log", severity="warning", message="mind the gap")
    send("log", severity="warning", message="A node named node_of_x already exists, ...")
    send("log", severity="info", message="a detail")
    print("from a library", file=sys.stderr, flush=True)
    send("done")
    """
    with caplog.at_level(logging.DEBUG, "vim_deploy"):
        run_worker(job, None, worker(script))
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["TensorRT-RTX: mind the gap"]
    assert "a detail" in caplog.text
    assert "from a library" in caplog.text
    assert "already exists" in caplog.text


def test_a_failure_is_the_one_that_the_worker_tells(job):
    facts = 'code="VIM-601", title="t", message="no", why="two\\nlines", fix="this", exit_code=6'
    error = code_and_error(job, f'send("failed", {facts}); sys.exit(1)')
    assert (error.code, error.message, error.why, error.fix) == (
        "VIM-601",
        "no",
        "two\nlines",
        "this",
    )


def test_a_failed_write_is_an_oserror_for_the_caller_to_name(job):
    with pytest.raises(OSError, match="space") as caught:
        run_worker(job, None, worker(f'send("failed", errno={errno.ENOSPC})'))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "memory"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "SIGABRT"),
        ("print('Segment lost', file=sys.stderr); sys.exit(7)", "status 7\nSegment lost"),
        ("print('no event'); sys.exit(0)", "status 0\nno event"),
        ("print('[1, 2]'); sys.exit(0)", "status 0"),
    ],
)
def test_a_worker_that_dies(job, script, why):
    error = code_and_error(job, script)
    assert error.code == "VIM-604"
    assert why in error.why


def test_a_worker_that_cannot_start(job):
    with pytest.raises(VimDeployError) as caught:
        run_worker(job, None, ["/nonexistent/python"])
    assert caught.value.code == "VIM-604"


def test_a_worker_that_never_reads_its_job(job):
    big = replace(job, mark="x" * 1_000_000)
    with pytest.raises(VimDeployError) as caught:
        run_worker(big, None, [sys.executable, "-c", "raise SystemExit(5)"])
    assert caught.value.code == "VIM-604"
    assert "status 5" in caught.value.why


@pytest.mark.parametrize(
    ("obeys", "error"),
    [(True, KeyboardInterrupt()), (True, RuntimeError("callback")), (False, KeyboardInterrupt())],
)
def test_an_exception_in_the_callback_stops_the_worker(job, monkeypatch, obeys, error):
    monkeypatch.setattr(build_process, "_KILL_AFTER_SECONDS", 0.5 if not obeys else 20.0)
    pids = []

    def stop(progress):
        if progress.phase.startswith("pid"):
            pids.append(int(progress.phase[3:]))
            raise error

    waits = "sys.stdin.buffer.raw.read(1)" if obeys else "time.sleep(60)"
    script = f"""
    send("phase", name=f"pid{{os.getpid()}}", parent=None, steps=1)
    {waits}
    """
    began = time.monotonic()
    with pytest.raises(type(error)):
        run_worker(job, stop, worker(script))
    assert time.monotonic() - began < 15
    assert not is_alive(pids[0])


def test_the_job_is_one_line(job):
    facts = run_worker(replace(job, mark="two\nlines"), None, worker('send("done", **job)'))
    assert facts["mark"] == "two\nlines"
    assert json.loads(json.dumps(facts)) == facts
