"""run.sh of the python runtime: where it makes the server's environment, and what it refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vim_deploy.packaging.scripts import Surroundings, scripts, template

posix = pytest.mark.skipif(sys.platform != "linux", reason="run.sh is for Linux")
pytestmark = posix
#: In the place of Python: it passes as a good one, makes an environment of itself, and notes what
#: it is asked for. SLOW makes it stay in pip until it is killed.
PYTHON = """#!/bin/bash
case "$*" in
  "-I -c "*) exit 0 ;;
  "-I -m venv "*) if [ -n "${VENV_FAILS:-}" ]; then echo "$VENV_FAILS"; exit 1; fi
    mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  *" -m pip "*) echo "pip $TMPDIR $*" >> "$CALLS"
    if [ -n "${SLOW:-}" ]; then : > "$SLOW"; sleep 60; fi
    echo "Collecting $PIP_SAYS"; [ -z "${PIP_FAILS:-}" ] ;;
  *) echo "server $*" >> "$CALLS" ;;
esac
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the scripts of a package, and a Python of ours."""
    folder = tmp_path / "a b'c $d;e"
    folder.mkdir()
    for name, text in scripts(Surroundings("python", "", "", None)).items():
        (folder / name).write_text(text)
    (folder / "run.sh").chmod(0o755)
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    return folder


def variables(place: Path, **chosen: str) -> dict[str, str]:
    kept = {"PATH": os.environ["PATH"], "CALLS": str(place.parent / "calls")}
    return {**kept, "PYTHON": str(place / "python"), **chosen}


def start(place: Path, **chosen: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [place / "run.sh", "--model-control-mode=none"],
        env=variables(place, **chosen),
        cwd=place.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def calls(place: Path) -> list[str]:
    path = place.parent / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_the_environment_is_made_once(place: Path) -> None:
    for _ in range(2):
        done = start(place, VIM_SERVER_VENV="env x")
        assert done.returncode == 0, done.stderr
    made = place.parent / "env x"
    pip, *servers = calls(place)
    words = pip.split()
    for option in ("--require-hashes", "--no-deps", ":all:", "--only-binary"):
        assert option in words
    assert servers == [f"server -I -B {place}/server.py --model-control-mode=none"] * 2
    assert (made / ".complete").is_file()
    assert not (made / "tmp").exists()
    assert sorted(path.name for path in place.parent.glob("env*")) == ["env x", "env x.lock"]


def test_without_home_the_folder_of_the_user_is_taken(place: Path) -> None:
    done = start(place, XDG_CACHE_HOME=str(place.parent / "cache"))
    assert done.returncode == 0, done.stderr
    assert list((place.parent / "cache" / "vim-deploy").glob("triton-*/.complete"))
    # Not made there: what a shell says to its user's folder is enough.
    home = subprocess.run(
        ["bash", "-c", "printf %s ~"], env={}, capture_output=True, text=True, check=True
    ).stdout
    text = (place / "run.sh").read_text()
    program = text[: text.index("is_made()")] + 'printf "%s" "$venv"\n'
    (place / "head.sh").write_text(program)
    for chosen in ({}, {"HOME": ""}):
        found = subprocess.run(
            ["bash", place / "head.sh"], env=chosen, capture_output=True, text=True, check=True
        ).stdout
        assert found.startswith(f"{home}/.cache/vim-deploy/triton-")


def test_no_folder_for_temporary_files_is_needed(place: Path) -> None:
    done = start(place, VIM_SERVER_VENV="env", TMPDIR="/nowhere")
    assert done.returncode == 0, done.stderr
    assert calls(place)[0].startswith(f"pip {place.parent}/env.part.")


def test_a_killed_first_start_leaves_nothing_that_is_taken_for_good(
    place: Path, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    process = subprocess.Popen(
        [place / "run.sh"],
        env=variables(place, VIM_SERVER_VENV=str(tmp_path / "env"), SLOW=str(began)),
        start_new_session=True,
    )
    end = time.monotonic() + 30
    while not began.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "env").exists()
    (left,) = tmp_path.glob("env.part.*")
    foreign = tmp_path / "env.part.abcdef"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    done = start(place, VIM_SERVER_VENV=str(tmp_path / "env"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "env" / ".complete").exists()
    assert not left.exists()
    assert (foreign / "thesis.txt").exists()


@pytest.mark.parametrize("complete", [None, "of-others"])
def test_somebody_elses_folder_is_neither_used_nor_emptied(
    place: Path, tmp_path: Path, complete: str | None
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    if complete:
        (mine / ".complete").write_text(complete)
    done = start(place, VIM_SERVER_VENV="mine")
    assert done.returncode == 2
    assert "is not the environment of this server" in done.stderr
    assert (mine / "thesis.txt").exists()
    assert calls(place) == []


def test_an_empty_folder_is_taken(place: Path, tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    assert start(place, VIM_SERVER_VENV="env").returncode == 0
    assert (tmp_path / "env" / ".complete").exists()


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        pytest.param({"VIM_SERVER_VENV": "/proc/none/env"}, "cannot write", id="place"),
        pytest.param({"VIM_SERVER_VENV": "a:b"}, "with a colon", id="colon"),
        pytest.param({"PYTHON": "no-such-python"}, "no such program", id="program"),
        pytest.param({"PYTHON": "/bin/false"}, "/bin/false: it is no Python 3.10", id="false"),
    ],
)
def test_what_cannot_work_is_said_at_once(place: Path, chosen: dict[str, str], said: str) -> None:
    done = start(place, **{"VIM_SERVER_VENV": "env", **chosen})
    assert done.returncode == 2
    assert said in done.stderr
    assert calls(place) == []


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"PIP_FAILS": "1", "PIP_SAYS": "numpy"}, ["Collecting numpy", "pip could not install"]),
        ({"VENV_FAILS": "no ensurepip"}, ["no ensurepip", "cannot make an environment"]),
    ],
    ids=["pip", "venv"],
)
def test_an_environment_that_cannot_be_made_says_why(
    place: Path, chosen: dict[str, str], said: list[str]
) -> None:
    done = start(place, VIM_SERVER_VENV="env", **chosen)
    assert done.returncode == 2
    assert done.stdout == ""
    # What pip is at is shown, and the last line says what it was for.
    lines = done.stderr.splitlines()
    assert lines[-2] == said[0]
    assert said[1] in lines[-1]
    assert not list(place.parent.glob("env.part.*"))
    assert not [line for line in calls(place) if line.startswith("server")]


def programs(folder: Path, *good: str, **bad: str) -> str:
    """A folder for PATH: interpreters that will do, and some that say why they will not."""
    folder.mkdir()
    for name in good:
        (folder / name).write_text(PYTHON)
    for name, reason in bad.items():
        text = f"#!/bin/bash\necho '{reason}' >&2\nexit 1\n"
        (folder / name.replace("_", ".")).write_text(text)
    for path in folder.iterdir():
        path.chmod(0o755)
    return str(folder)


def test_a_python_that_will_do_is_looked_for(place: Path, tmp_path: Path) -> None:
    reason = "the server needs Python 3.10 to 3.12, this is 3.14"
    first = programs(tmp_path / "bin", "python3.11", python3=reason, python3_12="not this one")
    chosen = {"PYTHON": "", "PATH": f"{first}:{os.environ['PATH']}"}
    done = start(place, VIM_SERVER_VENV="env", **chosen)
    assert done.returncode == 0, done.stderr
    assert f"python3: {reason}; taking python3.11" in done.stderr.splitlines()
    # Asked for once: a second start has its environment.
    assert "taking" not in start(place, VIM_SERVER_VENV="env", **chosen).stderr


def test_without_a_python_that_will_do_the_first_reason_is_said(
    place: Path, tmp_path: Path
) -> None:
    reason = "the server needs Python 3.10 to 3.12, this is 3.14"
    names = ("python3", "python3_12", "python3_11", "python3_10")
    first = programs(tmp_path / "bin", **dict.fromkeys(names, reason))
    chosen = {"PYTHON": "", "PATH": f"{first}:{os.environ['PATH']}"}
    done = start(place, VIM_SERVER_VENV="env", **chosen)
    assert done.returncode == 2
    assert f"python3: {reason}; nor will python3.12" in done.stderr
    assert calls(place) == []


@pytest.mark.parametrize(
    ("version", "machine", "said"),
    [
        ((3, 9), "x86_64", "needs Python 3.10 to 3.12, this is 3.9"),
        ((3, 13), "x86_64", "needs Python 3.10 to 3.12, this is 3.13"),
        ((3, 14), "x86_64", "needs Python 3.10 to 3.12, this is 3.14"),
        ((3, 11), "riscv64", "for Linux on x86_64 and aarch64, not for linux on riscv64"),
        ((3, 11), "x86_64", "needs a Python with a shared library"),
    ],
)
def test_pythons_that_the_server_cannot_use(
    version: tuple[int, int], machine: str, said: str
) -> None:
    found = re.search(r"-I -c '\n(.*?)' 2>&1", template("run_local.sh"), re.DOTALL)
    assert found is not None
    faked = (
        "import platform, sys, sysconfig\n"
        f"sys.version_info, platform.machine = {(*version, 0)}, lambda: {machine!r}\n"
        "sysconfig.get_config_var = lambda name: '/nowhere'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", faked + found[1]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr


def test_the_image_gets_the_pins_without_the_server() -> None:
    files = scripts(Surroundings("python", "x/y@sha256:" + "0" * 64, "", None))
    assert "ARG IMAGE=x/y@sha256:" + "0" * 64 in files["Dockerfile"]
    assert "--require-hashes" in files["Dockerfile"]
    assert "requirements-model.txt" in files["Dockerfile"]
    assert "pytriton" not in files["requirements-model.txt"]
    assert "-r requirements-model.txt" in files["requirements-server.txt"].splitlines()
