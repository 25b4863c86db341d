"""An interrupt that a library swallowed still keeps an output from being put in place."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import os, signal, sys
from pathlib import Path
from vim_deploy import interrupts
from vim_deploy.files import write_bytes
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
interrupts.install()
if sys.argv[1] != "none":
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    except KeyboardInterrupt:
        pass  # as a library would
try:
    write_bytes(Path("out"), b"x")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    ("signal", "said"),
    [
        ("SIGINT", "interrupted"),
        ("SIGTERM", "interrupted"),
        ("SIGHUP", "interrupted"),
        ("SIGXCPU", "interrupted"),
        ("none", ""),
    ],
)
def test_swallowed_interrupt(tmp_path: Path, signal: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, signal],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == said
    assert [path.name for path in tmp_path.iterdir()] == ([] if said else ["out"])


ENDING = """
import os, signal, sys, time
from pathlib import Path
from vim_deploy import interrupts
interrupts.GRACE_SECONDS = 1.0
interrupts.install()
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
if sys.argv[1] == "swallowed":
    Path("scratch").write_text("")
    with interrupts.scratch(Path("scratch")):
        try:
            interrupt()
        except KeyboardInterrupt:
            pass  # as a library would
        time.sleep(60)
elif sys.argv[1] == "deferred":
    try:
        with interrupts.deferred():
            interrupt()
            print("to the end of the block", flush=True)
        print("behind it", flush=True)
    except KeyboardInterrupt:
        interrupts.finished()
        sys.exit(130)
elif sys.argv[1] == "within a text":
    try:
        exec("interrupt()")
    except KeyboardInterrupt:
        interrupts.finished()
        sys.exit(130)
elif sys.argv[1] == "twice":
    try:
        try:
            interrupt()
        finally:
            interrupt()
            interrupt()
            print("cleaned up", flush=True)
    except KeyboardInterrupt:
        interrupts.finished()
        sys.exit(130)
elif sys.argv[1] == "over":
    interrupts.finished()
    interrupt()
    sys.exit(0)
"""


@pytest.mark.parametrize(
    ("case", "status", "said"),
    [
        ("swallowed", 130, ""),
        ("deferred", 130, "to the end of the block"),
        ("within a text", 130, ""),
        ("twice", 130, "cleaned up"),
        ("over", 0, ""),
    ],
)
def test_how_an_interrupted_process_ends(tmp_path: Path, case: str, status: int, said: str) -> None:
    """Also where a library swallows the exception, or its own Python text was left by it."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING, case],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout.strip() == said
    assert list(tmp_path.iterdir()) == []


def test_a_command_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    ignored = PROGRAM.replace("SIG_DFL)", "SIG_IGN)")
    subprocess.run(
        [sys.executable, "-c", ignored, "SIGHUP"],
        cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, check=True, timeout=50,
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


THREADLESS = """
import os, signal, sys, threading
from vim_deploy.cli import main
def start(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start
def load(*_):
    os.kill(os.getpid(), signal.SIGINT)  # OpenBLAS: raise(SIGINT)
main.LazyGroup.get_command = load
main.main(["doctor"])
"""


def test_an_interrupt_that_openblas_makes_for_want_of_a_thread(tmp_path: Path) -> None:
    """openblas/driver/others/blas_server.c ends blas_thread_init so; seen under ulimit -u."""
    done = subprocess.run(
        [sys.executable, "-c", THREADLESS],
        cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "error VIM-311" in done.stderr
    assert "interrupted" not in done.stderr


IMPORTING = """
import sys
from vim_deploy import interrupts
interrupts.install()
try:
    import outer
except KeyboardInterrupt:
    print("interrupted", "outer" in sys.modules)
    try:
        import inner
    finally:
        print("cleaned up")
"""


def test_an_import_is_not_broken_off(tmp_path: Path) -> None:
    """Libraries that run Python from C while they are loaded crash when it raises."""
    (tmp_path / "inner.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('inner')\n"
    )
    (tmp_path / "outer.py").write_text("import inner\nprint('outer')\n")
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING],
        cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
        timeout=50, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:3] == ["inner", "outer", "interrupted False"]
    assert "cleaned up" in done.stdout


FULL_PIPE = """
import os, sys
from vim_deploy import interrupts
from vim_deploy.cli import main, output
interrupts.GRACE_SECONDS = 0.5
def talk(_):
    print("ready", file=sys.__stderr__ if sys.argv[1] == "1" else sys.__stdout__, flush=True)
    while True:
        (output.write_result if sys.argv[1] == "1" else output.note)("x" * 70)
main._run = talk
main.main([])
"""


@pytest.mark.parametrize("descriptor", [1, 2])
@pytest.mark.timeout(60)
def test_one_whose_reader_has_stopped_reading_ends(descriptor: int) -> None:
    """The last words go nowhere, and nothing waits for them."""
    process = subprocess.Popen(
        [sys.executable, "-c", FULL_PIPE, str(descriptor)],
        env={"PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    told = process.stderr if descriptor == 1 else process.stdout
    assert told is not None
    assert told.readline().strip() == b"ready"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
