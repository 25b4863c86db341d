"""Processes of our own: what they import, what becomes of one that stalls."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.source import REPOSITORY
from vim_deploy import helpers
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin.describe import LIBRARY_VARIABLE
from vim_deploy.plugin.ort_library import LIBRARY_VARIABLE as ORT_OPS_VARIABLE
from vim_deploy.plugin.sources import _SOURCE_VARIABLE as SOURCES_VARIABLE

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")


def test_nothing_is_imported_from_the_folder_the_user_works_in(tmp_path: Path) -> None:
    for name in ("numpy", "json", "runpy", "argparse", "dataclasses", "vim_deploy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported from here')")
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from here')")
    done = subprocess.run(
        helpers.helper_command("vim_deploy.packaging.plugin_probe", "absent.so"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert '"loaded": false' in done.stdout


def test_a_helper_is_this_very_package(tmp_path: Path) -> None:
    """Another vim_deploy that is installed or on the path is not taken instead."""
    (tmp_path / "vim_deploy").mkdir()
    (tmp_path / "vim_deploy" / "__init__.py").write_text("raise SystemExit('the other one')")
    done = subprocess.run(
        helpers.helper_command("vim_deploy.packaging.plugin_probe", "absent.so"),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]);"
        "from vim_deploy import helpers;"
        "p = helpers.start_helper([sys.executable, '-c', 'print(1)'], subprocess.DEVNULL);"
        "print(p.communicate()[0])"
    )
    place = tmp_path / "gone"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(place)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.stdout.strip() == r"b'1\n'", done.stderr


def watched(script: str, seconds: float) -> None:
    """Watch a Python program for so long, without hearing anything from it."""
    process = helpers.start_helper([sys.executable, "-c", script], subprocess.DEVNULL)
    try:
        watch = helpers.StallWatch(process)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            watch.require_life(["its last word"])
            time.sleep(0.02)
        assert process.poll() is None
    finally:
        helpers.kill_helper(process)
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


@linux
def test_one_that_neither_speaks_nor_works_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "STALL_SECONDS", 1.0)
    with pytest.raises(VimDeployError, match="its last word") as caught:
        watched("import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()", 60)
    assert caught.value.code == "VIM-310"


@linux
def test_under_a_limit_of_memory_patience_is_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that are refused memory wait for each other, and "at once" is not a minute."""
    import resource

    monkeypatch.setattr(helpers, "LIMITED_STALL_SECONDS", 1.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, hard))
    try:
        with pytest.raises(VimDeployError, match="for 1 s") as caught:
            watched("import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()", 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert caught.value.code == "VIM-310"


@linux
def test_one_that_works_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "STALL_SECONDS", 1.0)
    watched("while True: pass", 4)


@linux
def test_work_of_what_it_started_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "STALL_SECONDS", 1.0)
    watched("import subprocess, sys; subprocess.run([sys.executable, '-c', 'while 1: pass'])", 4)


@linux
def test_one_whose_own_helper_has_ended_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of an ended process is no longer in the sum, which is then smaller than before."""
    monkeypatch.setattr(helpers, "STALL_SECONDS", 1.0)
    child = "import time\nwhile time.process_time() < 2.5: pass"
    watched(
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])\n"
        "while True: pass",
        6,
    )


@pytest.mark.parametrize("place", ["here", "", "."])
def test_what_the_user_has_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Places named from the working folder are still found from there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", place + os.pathsep)
    process = helpers.start_helper(
        [sys.executable, "-c", "import sys; print(sys.path[1:])"], subprocess.DEVNULL
    )
    said = process.communicate()[0].decode()
    assert (repr(str(tmp_path / place)) in said) == bool(place)


@pytest.mark.parametrize("name", [LIBRARY_VARIABLE, ORT_OPS_VARIABLE, SOURCES_VARIABLE])
def test_files_that_variables_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for given, meant in (
        ("lib.so", str(tmp_path / "lib.so")),
        ("/a/lib.so", "/a/lib.so"),
        ("", ""),
    ):
        monkeypatch.setenv(name, given)
        script = f"import os; print(os.environ[{name!r}])"
        process = helpers.start_helper([sys.executable, "-c", script], subprocess.DEVNULL)
        assert process.communicate()[0].decode().strip() == meant


@linux
def test_processor_time_is_that_of_the_session() -> None:
    assert helpers.session_seconds(os.getsid(0)) is not None
    assert helpers.session_seconds((1 << 22) + 1) is None
