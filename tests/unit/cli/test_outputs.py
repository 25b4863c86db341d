"""What is printed where, and what happens when it cannot be: real processes with real outputs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import onnx
import PIL.Image
import pytest

from tests.support import traces
from tests.support.source import REPOSITORY
from vim_deploy.cli.main import run

PROGRAM = [sys.executable, "-m", "vim_deploy"]
DIGITS = REPOSITORY / "tests" / "data" / "digits"
FULL = Path("/dev/full")
HOSTILE = "a\x1b]0;PWN\x07\x1b[2Jb\u202e\x9b31m"
#: What a terminal obeys, but for line ends and the tool's own colours and cursor movements.
OWN_STYLES = re.compile(rb"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\r")

needs_full = pytest.mark.skipif(not FULL.exists(), reason="/dev/full is Linux's")


@pytest.fixture(autouse=True)
def with_traces(folder_of_traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes take the traces of this run: what they print is what is looked at."""
    for name, value in traces.variables(folder_of_traces).items():
        monkeypatch.setenv(name, value)


def shell(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """A line of a POSIX shell in which VIM stands for the program."""
    return subprocess.run(
        ["sh", "-c", line.replace("VIM", " ".join(PROGRAM))],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported toy, and one with hostile labels and names beside a hostile picture."""
    place = tmp_path_factory.mktemp("outputs")
    (place / "labels.txt").write_text("\n".join([HOSTILE, *"123456789"]))
    labels, path = str(place / "labels.txt"), str(place / "d.onnx")
    assert run(["-q", "export", "vim-digits", "--labels", labels, "--no-check", "-o", path]) == 0
    model = onnx.load(place / "d.onnx")
    old = model.graph.output[0].name
    model.graph.output[0].name = HOSTILE
    for node in model.graph.node:
        node.output[:] = [HOSTILE if name == old else name for name in node.output]
    onnx.save(model, place / "h.onnx")
    PIL.Image.new("L", (32, 32), 99).save(place / "x\x1b[2Jy\n.png")
    return place


COMMANDS = ("--help", "--version", "doctor", "inspect d.onnx", "inspect d.onnx --json",
            "recipes list", "recipes list --json", f"run d.onnx {DIGITS}",
            f"run d.onnx {DIGITS} --json")  # fmt: skip


@needs_full
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_output_has_a_code(command: str, folder: Path) -> None:
    done = shell(f"VIM {command} > /dev/full", folder)
    assert done.returncode == 3, done.stderr
    assert b"VIM-305" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_output_has_a_code(command: str, folder: Path) -> None:
    done = shell(f"VIM {command} >&-", folder)
    assert done.returncode == 3, done.stderr
    assert b"standard output is closed" in done.stderr
    assert b"Traceback" not in done.stderr


@needs_full
@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
def test_a_result_does_not_need_standard_error(where: str, folder: Path) -> None:
    done = shell(f"VIM inspect d.onnx --json {where}", folder)
    assert done.returncode == 0
    assert json.loads(done.stdout)["kind"] == "onnx"
    assert shell(f"VIM inspect absent.onnx {where}", folder).returncode == 4
    line = f"VIM export vim-digits --no-check --force -o f.onnx {where}"
    assert shell(line, folder).returncode == 0


def test_errors_of_a_closed_output_keep_their_own_code(folder: Path) -> None:
    done = shell("VIM inspect absent.onnx --json >&-", folder)
    assert done.returncode == 4
    assert b"VIM-401" in done.stderr


def test_a_reader_that_leaves_is_no_failure_to_talk_about(folder: Path) -> None:
    for command in ("inspect d.onnx", "inspect d.onnx --json", "--help", "export --help"):
        # The reader has gone before anything is written.
        done = shell(f"{{ VIM {command}; echo status $? >&2; }} | true", folder)
        assert done.stderr.strip() == b"status 141"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        process = subprocess.Popen(
            [*PROGRAM, "recipes", "list"],
            stdout=gone,
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
        )
        assert process.communicate(timeout=240)[1] == b""
    assert process.returncode == 141


def test_characters_that_the_encoding_lacks_are_written_out(folder: Path) -> None:
    (folder / "ascii.txt").write_text("\n".join(["größer", *"123456789"]), encoding="utf-8")
    done = shell(
        "VIM export vim-digits --labels ascii.txt --no-check --force -o a.onnx && "
        f"VIM run a.onnx {DIGITS} --top 10",
        folder,
        LC_ALL="C",
        PYTHONIOENCODING="ascii",
    )
    assert done.returncode == 0, done.stderr
    assert b"gr\\xf6\\xdfer" in done.stdout


def on_terminal(
    arguments: list[str], folder: Path, columns: int = 80, **variables: str
) -> tuple[int, bytes]:
    """Exit status of a command in a pseudo-terminal, and the bytes it sent there."""
    # Not with pty.fork: between fork and exec it runs Python in a copy of this process, which by
    # then holds every runtime with its threads, and has died there.
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    sent = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # Linux's way of saying that the other side is closed
            break
        if not part:
            break
        sent += part
    os.close(terminal)
    return process.wait(timeout=240), sent


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["run", "d.onnx", "."], 0),
        (["run", "d.onnx", ".", "--top", "10"], 0),
        (["inspect", "d.onnx"], 0),
        (["inspect", "h.onnx"], 0),
        (["verify", "h.onnx", "--against", "h.onnx", "--random", "1"], 0),
        (["-vv", "inspect", f"absent{HOSTILE}.onnx"], 4),
        (["inspect", f"absent\n{HOSTILE}"], 4),
        (["export", HOSTILE], None),
        (["export", "vim-digits", "--model", HOSTILE], 2),
        (["export", "vim-digits", f"--{HOSTILE}"], 2),
        (["run", "d.onnx", ".", "--top", HOSTILE], 2),
        ([HOSTILE], 2),
        (["recipes", "show", HOSTILE], None),
        (["export", "vim-digits", "--no-check", "-o", f"{HOSTILE}.onnx"], 0),
        (["package", "d.onnx", "--runtime", "python", "--name", HOSTILE], 2),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_terminal_gets_nothing_to_obey(
    arguments: list[str], status: int | None, folder: Path
) -> None:
    found, sent = on_terminal(arguments, folder)
    assert found == status or (status is None and found not in (0, 1)), sent
    left = OWN_STYLES.sub(b"", sent).decode()
    assert not [char for char in left if char != "\n" and not char.isprintable()], left


def test_an_error_takes_one_line_whatever_the_name_is(folder: Path) -> None:
    done = shell("VIM inspect 'absent\nerror 000: done'", folder)
    assert done.stderr.decode().splitlines()[0].endswith("absent\\nerror 000: done")


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["plain", "dumb"])
def test_a_table_fits_its_terminal(columns: int, variables: dict[str, str], folder: Path) -> None:
    status, sent = on_terminal(["inspect", "d.onnx"], folder, columns, COLUMNS="", **variables)
    assert status == 0
    assert b"\x1b" not in sent
    lines = sent.decode().replace("\r\n", "\n").splitlines()
    assert max(len(line) for line in lines if "\u2502" in line) <= columns


def test_a_pipe_is_no_terminal_whatever_the_environment_says(folder: Path) -> None:
    plain = shell("VIM recipes list", folder)
    forced = shell("VIM recipes list | cat", folder, FORCE_COLOR="1", COLUMNS="40")
    assert forced.stdout == plain.stdout
    assert b"\x1b" not in plain.stdout


@needs_full
@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("VIM", {}),
        ("VIM help", {}),
        ("VIM recipes", {}),
        ("VIM", {"_VIM_DEPLOY_COMPLETE": "bash_source"}),
    ],
)
def test_help_and_completion_that_cannot_be_printed(
    line: str, variables: dict[str, str], folder: Path
) -> None:
    for where, code in (("> /dev/full", b"VIM-305"), (">&-", b"VIM-304")):
        done = shell(f"{line} {where}", folder, **variables)
        assert done.returncode == 3, done.stderr
        assert code in done.stderr
