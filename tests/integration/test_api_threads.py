"""Programs that call the package: from threads, from an event loop, and from pools of processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import vim_deploy
from tests.support.source import REPOSITORY
from vim_deploy.errors import InputNotFoundError, VimDeployError
from vim_deploy.graph import export_graph
from vim_deploy.graph.trace import trace

DIGITS = str(REPOSITORY / "tests" / "data" / "digits")
CHECKPOINT = str(REPOSITORY / "tests" / "data" / "reference" / "vim_digits.pth")
UNCHECKED = vim_deploy.ExportOptions(check=False)


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "digits.onnx"
    return vim_deploy.export("vim-digits", path, UNCHECKED).path


def test_stages_run_in_threads_at_once(
    onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # PyTorch's exporter beside the rest, and no trace that another test has left.
    monkeypatch.setattr(export_graph, "trace", trace)
    before = ([*warnings.filters], torch.get_num_threads())
    calls: dict[str, Any] = {
        "one": lambda: vim_deploy.export("vim-digits", tmp_path / "one.onnx"),
        "two": lambda: vim_deploy.export(CHECKPOINT, tmp_path / "two.onnx", UNCHECKED),
        "verify": lambda: vim_deploy.verify(onnx, CHECKPOINT),
        "inspect": lambda: vim_deploy.inspect(CHECKPOINT),
        "run": lambda: vim_deploy.run(onnx, DIGITS),
    }
    with ThreadPoolExecutor(len(calls)) as pool:
        jobs = {name: pool.submit(call) for name, call in calls.items()}
        results = {name: job.result() for name, job in jobs.items()}
    assert results["one"].parity.passed
    results["verify"].require_passed()
    assert results["inspect"]["kind"] == "checkpoint"
    assert [image.top[0].label for image in results["run"].images] == ["zero", "three", "seven"]
    assert (tmp_path / "one.onnx").read_bytes() == onnx.read_bytes()
    assert ([*warnings.filters], torch.get_num_threads()) == before


def test_two_threads_that_write_one_output(onnx: Path, tmp_path: Path) -> None:
    def export(_: int) -> str:
        try:
            return str(vim_deploy.export("vim-digits", tmp_path / "x.onnx", UNCHECKED).up_to_date)
        except VimDeployError as error:
            return error.code

    with ThreadPoolExecutor(2) as pool:
        found = [*pool.map(export, range(2))]
    # The second finds the first at work, or its file.
    assert sorted(found) in (["False", "VIM-306"], ["False", "True"])
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


_IN_A_LOOP = """
import asyncio, logging, signal, sys, threading
import vim_deploy

def state():
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return handlers, logging.getLogger().handlers, sys.stdout, sys.stderr, sys.excepthook

def work():
    assert threading.current_thread() is not threading.main_thread()
    vim_deploy.export("vim-digits", "x.onnx")
    vim_deploy.verify("x.onnx", sys.argv[1]).require_passed()
    vim_deploy.package("x.onnx", "served")
    vim_deploy.check_package("served")
    with vim_deploy.load("x.onnx") as model:
        return model(sys.argv[2]).images[0].top[0].label

async def main():
    return await asyncio.gather(asyncio.to_thread(work), asyncio.sleep(0, "awake"))

before = state()
assert asyncio.run(main()) == ["zero", "awake"]
# Also where the loop may wait.
async def here():
    return vim_deploy.run("x.onnx", sys.argv[2]).images[0].top[0].label
assert asyncio.run(here()) == "zero"
assert state() == before
"""


@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs an event loop")
def test_an_event_loop_hears_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_LOOP, CHECKPOINT, DIGITS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_POOL = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import vim_deploy

with ProcessPoolExecutor(2, get_context("fork")) as pool:
    jobs = [pool.submit(vim_deploy.run, "x.onnx", sys.argv[1]) for _ in range(2)]
    jobs.append(pool.submit(vim_deploy.run, "absent.onnx", sys.argv[1]))
    for job in jobs:
        error = job.exception()
        print(job.result().images[0].top[0].label if error is None else error.code)
"""


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"
)
def test_a_pool_of_forked_processes(onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(onnx.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", _POOL, DIGITS], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["zero", "zero", "VIM-401"]


def test_a_pool_of_spawned_processes(onnx: Path) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        report = pool.submit(vim_deploy.verify, str(onnx), CHECKPOINT).result()
        error = pool.submit(vim_deploy.run, str(onnx), "absent.png").exception()
    assert report.passed
    assert isinstance(error, InputNotFoundError)
    assert (error.code, error.why, error.fix) == (
        "VIM-401",
        "there is no such file",
        "check the path",
    )


def test_results_can_be_pickled(
    onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.png").write_bytes(b"x")
    made: list[Any] = [
        vim_deploy.export("vim-digits", "x.onnx"),
        vim_deploy.verify(onnx, CHECKPOINT, vim_deploy.VerifyOptions(per_block=True)),
        vim_deploy.run(onnx, [DIGITS, "broken.png"]),
        vim_deploy.inspect(onnx),
        vim_deploy.package(onnx, "served"),
        vim_deploy.check_package("served"),
    ]
    for result in made:
        assert pickle.loads(pickle.dumps(result)) == result
