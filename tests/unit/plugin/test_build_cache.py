"""The cache of built libraries: one process builds, others wait; what killed builds left goes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.source import REPOSITORY
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin import build_cache
from vim_deploy.plugin.build_cache import KEY_FILE, Compiled, build_folder, compiled_once
from vim_deploy.plugin.describe import cache_folder

NAME = "libtry.so"
#: Builds ``argv[1]`` as its key says, for as long as ``argv[2]`` exists.
PROGRAM = """
import pathlib, sys, time
from vim_deploy import interrupts
from vim_deploy.plugin.build_cache import build_folder, compiled_once
key, gate = sys.argv[1], pathlib.Path(sys.argv[2])

def say(line):
    print(line, flush=True)

def build(library):
    with build_folder(library) as folder:
        (folder / "object.o").write_text("half")
        say("building")
        while gate.exists():
            time.sleep(0.02)
    library.write_text(key)

interrupts.install()
made = compiled_once("libtry.so", {"key": key}, build, pathlib.Path.read_text, say)
say(f"{made.info} {'taken' if made.seconds is None else 'built'}")
"""

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    path = tmp_path / "gate"
    path.touch()
    return path


@pytest.fixture
def started(cache: Path, gate: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process that builds a key, and reads its first line."""
    with contextlib.ExitStack() as stack:

        def start(key: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, key, str(gate)],
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield start


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def built(key: str, said: list[str] | None = None) -> Compiled[str]:
    def write(library: Path) -> None:
        library.write_text(key)

    lines = [] if said is None else said
    return compiled_once(NAME, {"key": key}, write, Path.read_text, lines.append)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_two_processes_build_once(
    started: Callable[[str], subprocess.Popen[str]], gate: Path, cache: Path
) -> None:
    first = started("one")
    assert line_of(first) == "building"
    second = started("one")
    assert line_of(second).startswith("another process or thread is building ")
    gate.unlink()
    assert line_of(first) == "one built"
    assert line_of(second) == "one taken"
    assert (first.wait(30), second.wait(30)) == (0, 0)
    (home,) = cache.iterdir()
    assert names(home) == [KEY_FILE, NAME]


def test_two_threads_build_once(cache: Path) -> None:
    made: list[Path] = []

    def slowly(library: Path) -> None:
        made.append(library)
        time.sleep(0.3)
        library.write_text("text")

    def one(_: int) -> Compiled[str]:
        return compiled_once(NAME, {}, slowly, Path.read_text, lambda _: None)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    assert len(made) == 1
    assert {item.info for item in found} == {"text"}
    assert sum(item.seconds is not None for item in found) == 1


@posix
def test_who_waits_goes_on_when_the_other_is_killed(
    started: Callable[[str], subprocess.Popen[str]], gate: Path, cache: Path
) -> None:
    first = started("one")
    assert line_of(first) == "building"
    second = started("one")
    assert "waiting" in line_of(second)
    first.kill()
    assert line_of(second) == "building"
    gate.unlink()
    assert line_of(second) == "one built"
    second.wait(30)
    (home,) = cache.iterdir()
    assert names(home) == [KEY_FILE, NAME]


@posix
def test_a_wait_can_be_interrupted(
    started: Callable[[str], subprocess.Popen[str]], gate: Path
) -> None:
    first = started("one")
    assert line_of(first) == "building"
    second = started("one")
    assert "waiting" in line_of(second)
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) != 0
    gate.unlink()
    assert line_of(first) == "one built"
    assert first.wait(20) == 0


@posix
def test_what_killed_builds_left_goes_with_the_next_and_nothing_else_does(
    started: Callable[[str], subprocess.Popen[str]], gate: Path, cache: Path
) -> None:
    kept = built("kept").library
    killed, lives = started("killed"), started("lives")
    assert (line_of(killed), line_of(lives)) == ("building", "building")
    killed.kill()
    killed.wait(20)
    # Of a finished one somebody was killed while he replaced it.
    (kept.parent / f".{NAME}.abcdefgh.part").write_text("half")
    (kept.parent / "build-abcdefgh").mkdir()
    # What is none of ours.
    (cache / "notes").mkdir()
    assert len(list(cache.glob("*/build-*"))) == 3

    said: list[str] = []
    built("next", said)
    assert said == []
    (left,) = cache.glob("*/build-*")
    assert (left / "object.o").is_file()
    assert names(kept.parent) == [KEY_FILE, NAME]
    assert len(list(cache.glob(".*.lock"))) == 1
    gate.unlink()
    assert line_of(lives) == "lives built"
    lives.wait(20)
    assert len(list(cache.iterdir())) == 4
    assert sorted(path.read_text() for path in cache.glob(f"*/{NAME}")) == [
        *("kept", "lives", "next"),
    ]


@pytest.mark.parametrize("mine", [False, True])
def test_what_cannot_be_cleared_away_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, mine: bool
) -> None:
    """Compilers of a killed build may go on, and write into a folder while it is removed."""
    library = built("old").library
    (library.parent / "build-abcdefgh").mkdir()
    if mine:
        library.unlink()

    def refused(path: Path) -> None:
        raise OSError(39, "Directory not empty", str(path))

    monkeypatch.setattr(build_cache.shutil, "rmtree", refused)
    said: list[str] = []
    key = "old" if mine else "new"
    assert built(key, said).info == key
    assert len(said) == 1
    assert str(library.parent) in said[0]
    assert "Directory not empty" in said[0]


def test_a_failed_build_leaves_nothing(cache: Path) -> None:
    def fail(library: Path) -> None:
        with build_folder(library) as folder:
            (folder / "object.o").touch()
            raise VimDeployError("VIM-605", "it did not compile")

    with pytest.raises(VimDeployError, match="did not compile"):
        compiled_once(NAME, {}, fail, Path.read_text, lambda _: None)
    assert list(cache.iterdir()) == []


def test_what_cannot_be_used_is_built_again_and_that_is_said_once(cache: Path) -> None:
    def describe(library: Path) -> str:
        if library.read_text() == "damaged":
            raise VimDeployError("VIM-417", "not a library", why="it is cut off")
        return library.read_text()

    library = built("one").library
    library.write_text("damaged")
    said: list[str] = []
    made = compiled_once(
        NAME, {"key": "one"}, lambda path: path.write_text("whole"), describe, said.append
    )
    assert (made.info, made.library) == ("whole", library)
    assert made.seconds is not None
    assert said == [f"{library} is there and cannot be used: it is cut off; building it again"]
    library.write_text("damaged")

    def fail(_: Path) -> None:
        raise VimDeployError("VIM-605", "it did not compile")

    with pytest.raises(VimDeployError, match="did not compile"):
        compiled_once(NAME, {"key": "one"}, fail, describe, said.append)
    assert names(library.parent) == [KEY_FILE, NAME]
    with pytest.raises(VimDeployError, match="not a library"):
        compiled_once(
            NAME, {"key": "one"}, lambda path: path.write_text("damaged"), describe, said.append
        )


@pytest.mark.parametrize("taken", ["plugins", "plugins/.lock", "vim-deploy"])
def test_a_cache_that_cannot_be_written_says_how_to_get_another(cache: Path, taken: str) -> None:
    """``-o`` names where a copy goes, and is no remedy."""
    if taken == "plugins/.lock":
        lock = built("one").library.parent
        shutil.rmtree(lock)
        lock.with_name(f".{lock.name}.lock").mkdir()
    else:
        place = cache if taken == "plugins" else cache.parent
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("a file")
    with pytest.raises(VimDeployError) as caught:
        built("one")
    assert caught.value.code == "VIM-304"
    assert "XDG_CACHE_HOME" in caught.value.fix
    assert "-o" not in caught.value.fix
