"""Files: whole or not at all, one writer, errors that name the place."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.source import REPOSITORY
from vim_deploy import files, folder_output
from vim_deploy.errors import VimDeployError

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and signals")


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_sha256_of_a_file_larger_than_one_chunk(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    path = tmp_path / "data"
    path.write_bytes(data)
    assert files.sha256_of(path) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("change", ["replaced", "written", "removed"])
def test_a_file_that_another_takes_the_place_of_is_noticed(tmp_path: Path, change: str) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"one")
    other.write_bytes(b"two")
    sighting = files.sight(path)
    assert sighting.sha256() == hashlib.sha256(b"one").hexdigest()
    if change == "replaced":
        other.replace(path)
    elif change == "written":
        path.write_bytes(b"longer")
    else:
        path.unlink()
    with pytest.raises(VimDeployError) as caught:
        sighting.require_unchanged()
    assert caught.value.code == "VIM-439"


def test_settings_hash_ignores_order_and_sees_every_value() -> None:
    first = files.settings_hash({"a": 1, "b": {"c": [1, 2]}})
    assert first == files.settings_hash({"b": {"c": [1, 2]}, "a": 1})
    assert first != files.settings_hash({"a": 1, "b": {"c": [2, 1]}})
    with pytest.raises(ValueError, match="JSON"):
        files.settings_hash({"a": float("nan")})


def test_require_file(tmp_path: Path) -> None:
    path = tmp_path / "here"
    path.touch()
    assert files.require_file(path, "model") == path
    for missing, why in ((tmp_path, "folder"), (tmp_path / "no", "no such file")):
        with pytest.raises(VimDeployError, match=why) as caught:
            files.require_file(missing, "model")
        assert caught.value.code == "VIM-401"


def test_output_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with files.atomic_output(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path
    assert path.read_text() == "new"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("failure", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_failure_keeps_the_old_file(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "out"
    path.write_text("old")

    def write() -> None:
        with files.atomic_output(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


@posix
def test_output_has_the_permissions_of_an_ordinary_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    old = os.umask(0o027)
    try:
        files.write_bytes(path, b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_missing_folder(tmp_path: Path) -> None:
    path = tmp_path / "no" / "out"
    with pytest.raises(VimDeployError, match=str(path)) as caught:
        files.write_bytes(path, b"x")
    assert caught.value.code == "VIM-304"
    with pytest.raises(VimDeployError) as caught, files.single_writer(path):
        pass
    assert caught.value.code == "VIM-304"


def test_output_that_is_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    with pytest.raises(VimDeployError) as caught:
        files.write_bytes(path, b"x")
    assert caught.value.code == "VIM-304"
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_output_that_is_a_device_is_not_replaced() -> None:
    with pytest.raises(VimDeployError) as caught, files.single_writer(Path("/dev/full")):
        pass
    assert caught.value.code == "VIM-304"
    assert not Path("/dev/full").is_file()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc on this system")
def test_folder_that_takes_no_files() -> None:
    with pytest.raises(VimDeployError) as caught:
        files.write_bytes(Path("/proc/out"), b"x")
    assert caught.value.code == "VIM-304"


@posix
@pytest.mark.skipif(
    os.name == "posix" and os.geteuid() == 0, reason="root may write to read-only folders"
)
def test_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(VimDeployError) as caught:
        files.write_bytes(folder / "out", b"x")
    assert caught.value.code == "VIM-304"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_is_told_apart() -> None:
    with pytest.raises(VimDeployError) as caught, files.output_errors(Path("out")):
        Path("/dev/full").write_bytes(b"x")
    assert caught.value.code == "VIM-305"
    assert "out" in caught.value.message


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "VIM-305"),
        (errno.EDQUOT, "VIM-305"),
        (errno.EROFS, "VIM-304"),
        (errno.EACCES, "VIM-304"),
    ],
)
def test_errors_while_writing_keep_the_old_file(tmp_path: Path, number: int, code: str) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(VimDeployError) as caught, files.atomic_output(path):
        raise OSError(number, os.strerror(number))
    assert caught.value.code == code
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def _try_to_write(path: Path, answers: multiprocessing.Queue[str]) -> None:
    try:
        with files.single_writer(path):
            answers.put("written")
    except VimDeployError as error:
        answers.put(error.code)


def in_another_process(path: Path) -> str:
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_try_to_write, args=(path, answers))
    process.start()
    answer = answers.get(timeout=60)
    process.join(60)
    return answer


def test_second_writer_is_refused_and_a_later_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with files.single_writer(path):
        assert in_another_process(path) == "VIM-306"
    assert leftovers(tmp_path) == []
    assert in_another_process(path) == "written"


HOLD = """
import pathlib, sys, time
from vim_deploy.files import atomic_output, single_writer
path = pathlib.Path(sys.argv[1])
with single_writer(path), atomic_output(path) as temporary:
    temporary.write_text("half")
    print("holding", flush=True)
    time.sleep(60)
"""


@posix
def test_killed_writer_leaves_no_lock_and_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holding\n"
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    assert not path.exists()
    with files.single_writer(path):
        files.remove_leftovers(path)
        files.write_bytes(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@posix
def test_ctrl_c_removes_the_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=REPOSITORY,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert list(tmp_path.iterdir()) == []


def test_json_is_written_with_a_last_newline_and_never_with_infinity(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"a": [1, "é"]})
    assert json.loads(path.read_bytes()) == {"a": [1, "é"]}
    assert path.read_bytes().endswith(b"}\n")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("inf")})


@posix
@pytest.mark.parametrize("trap", ["link", "dangling link", "pipe", "folder", "hard link"])
@pytest.mark.parametrize("writer", ["file", "folder"])
def test_a_lock_is_never_what_somebody_else_put_there(
    tmp_path: Path, trap: str, writer: str
) -> None:
    """It would be emptied, waited for, or held for somebody else's file."""
    victim, lock = tmp_path / "victim", tmp_path / ".out.lock"
    victim.write_text("precious")
    if trap == "link":
        lock.symlink_to(victim)
    elif trap == "dangling link":
        lock.symlink_to(tmp_path / "absent")
    elif trap == "pipe":
        os.mkfifo(lock)
    elif trap == "folder":
        lock.mkdir()
    else:
        lock.hardlink_to(victim)
    make = files.single_writer if writer == "file" else folder_output.atomic_folder
    with pytest.raises(VimDeployError) as caught, make(tmp_path / "out"):
        pass
    assert caught.value.code == "VIM-304"
    assert ".out.lock" in caught.value.why
    assert victim.read_text() == "precious"
    assert not (tmp_path / "absent").exists()
    assert lock.is_symlink() or lock.exists()


def test_a_lock_that_a_killed_process_left_blocks_nothing(tmp_path: Path) -> None:
    (tmp_path / ".out.lock").write_text("")
    with files.single_writer(tmp_path / "out"):
        pass
    assert leftovers(tmp_path) == []


def test_a_folder_named_like_a_temporary_file_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / ".out.abcdefgh.part"
    folder.mkdir()
    (tmp_path / ".out.ijklmnop.part").write_text("left by a killed run")
    files.remove_leftovers(tmp_path / "out")
    assert leftovers(tmp_path) == [folder.name]


@posix
@pytest.mark.parametrize(
    "name", ["x" * 250, "x" * 5000, "file/below", "loop", "", ".", "/", "a\0b", "absent/x"]
)
@pytest.mark.parametrize(
    "writer", [files.single_writer, files.atomic_output, folder_output.atomic_folder]
)
def test_places_that_no_output_can_have(tmp_path: Path, name: str, writer: Any) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to("loop")
    path = Path(name) if name in ("", ".", "/") else tmp_path / name
    with pytest.raises(VimDeployError) as caught, writer(path):
        pass
    assert caught.value.code == "VIM-304"
    assert (tmp_path / "file").read_text() == "kept"


@posix
@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "nul", "through a file", "long"])
def test_what_is_no_input_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    path = {"device": Path("/dev/null"), "nul": Path("a\0b"), "through a file": tmp_path / "file/x",
            "long": tmp_path / ("x" * 300)}.get(kind, tmp_path / kind)  # fmt: skip
    with pytest.raises(VimDeployError) as caught:
        files.require_file(path, "input")
    assert caught.value.code == "VIM-401"
    assert caught.value.why not in ("", "there is no such file")


@posix
def test_a_mask_that_takes_every_right_is_obeyed(tmp_path: Path) -> None:
    old = os.umask(0o777)
    try:
        files.write_bytes(tmp_path / "out", b"x")
        with folder_output.atomic_folder(tmp_path / "folder") as place:
            (place / "a").write_bytes(b"y")
            (place / "a").chmod(0o600)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0
    (tmp_path / "folder").chmod(0o700)


@posix
def test_a_file_system_without_locks_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    """It is no other writer, and the lock's file does not stay."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        pytest.raises(VimDeployError, match="not implemented") as caught,
        files.single_writer(tmp_path / "out"),
    ):
        pass
    assert caught.value.code == "VIM-304"
    assert not list(tmp_path.iterdir())
