"""The judge of the fuzzer sees what it is there for: each planted fault, and nothing else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import judge
from vim_deploy.errors import VimDeployError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
FREE = 100 << 20


def judged(tmp_path: Path, reader: Callable[[Path], object]) -> tuple[int, list[str]]:
    """Exit code and kinds of findings of a reader."""
    status, wrong = judge._judged((reader, "{}"), tmp_path, 10, FREE)
    return status, [kind for kind, _ in wrong]


def refuses(_: Path) -> None:
    raise VimDeployError("VIM-409", "no model")


def breaks(_: Path) -> None:
    raise KeyError("x")


def paints(_: Path) -> None:
    os.write(1, b"\x1b[2J\n")


def prints(_: Path) -> None:
    os.write(1, b"a line\nand another\n")


def works(_: Path) -> None:
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass


def fills(_: Path) -> None:
    bytearray(FREE + (50 << 20))


def test_refusals_and_results_are_right(tmp_path: Path) -> None:
    assert judged(tmp_path, refuses) == (4, [])
    assert judged(tmp_path, prints) == (0, [])


def test_planted_faults_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(tmp_path, breaks)[1][0].startswith("raised KeyError")
    assert judged(tmp_path, paints)[1] == ["control character '\\x1b' printed"]
    assert judged(tmp_path, fills)[1] == ["memory"]
    monkeypatch.setattr(judge, "CPU_SECONDS", 0.1)
    assert judged(tmp_path, works)[1] == ["more than 0.1 s of CPU time"]


def test_a_command_that_ends_as_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vim_deploy.cli import main

    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(main.LazyGroup, "get_command", broken)
    status, wrong = judge._judged(("doctor",), tmp_path, 10, FREE)
    assert status == 1
    assert [kind.partition(",")[0] for kind, _ in wrong] == ["defect: exit 1"]


def test_nan_with_exit_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vim_deploy.cli import main

    def said(_: list[str]) -> int:
        os.write(1, b"class north nan %\n")
        return 0

    monkeypatch.setattr(main, "run", said)
    assert [kind for kind, _ in judge._judged(("run", "m.onnx"), tmp_path, 10, FREE)[1]] == [
        "nan with exit 0"
    ]
    assert judge._judged(("inspect", "m.onnx"), tmp_path, 10, FREE)[1] == []
