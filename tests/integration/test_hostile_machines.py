"""Machines that refuse files, memory, threads and folders: a code, soon, and nothing left."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.models import save_tiny
from tests.support.packages import classifier
from tests.support.source import REPOSITORY
from vim_deploy.cli.main import run

resource = pytest.importorskip("resource")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="POSIX limits")]

COMMANDS = {
    "doctor": ["doctor"],
    "inspect": ["inspect", "{given}/m.onnx"],
    "run": ["run", "{given}/m.onnx", "{given}/a.png"],
    "verify": ["verify", "{given}/m.onnx", "--against", "{given}/m.onnx", "--random", "1",
               "--report", "{out}/report"],
    "package": ["package", "{given}/m.onnx", "--runtime", "python", "-o", "{out}/package"],
    "export": ["export", "{given}/tiny.pth", "--config", "{given}/tiny.json", "--no-check",
               "-o", "{out}/e.onnx"],
}  # fmt: skip


def limit(kind: int, most: int) -> Callable[[Path], None]:
    return lambda _: resource.setrlimit(kind, (most, most))


#: What a machine does to the process, in the working folder it is given.
MACHINES: dict[str, Callable[[Path], object]] = {
    "no right for anybody": lambda _: os.umask(0o777),
    "a folder to look at": lambda folder: folder.chmod(0o555),
    "a folder nobody may enter": lambda folder: folder.chmod(0o000),
    "a folder that is gone": lambda folder: folder.rmdir(),
    "no byte of a file": limit(resource.RLIMIT_FSIZE, 0),
    "small files": limit(resource.RLIMIT_FSIZE, 20 << 10),
    # Less than PyTorch's libraries need to be mapped. With a little more they are, and their own
    # start ends the process (std::bad_alloc), in whose place nobody can answer.
    "400 MB": limit(resource.RLIMIT_AS, 400 << 20),
    "ten open files": limit(resource.RLIMIT_NOFILE, 10),
    "no thread": limit(resource.RLIMIT_NPROC, 0),
}
#: What writes is tried by default where ``export`` ends at once, and on two machines where it ends
#: within its trace. VIM_TEST_ALL=1 tries all, and ``inspect``, which reads what ``run`` does.
WRITING = ("export", "verify", "package")
WRITTEN_ON = ("a folder that is gone", "no byte of a file", "400 MB", "ten open files")
#: Answers that carry a code and are no defect of ours.
ANSWERS = (0, 3, 4)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a picture and a checkpoint, and the first two in a folder nobody may enter."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("given")
    save_tiny(folder)
    for made in (folder, folder / "closed"):
        made.mkdir(exist_ok=True)
        classifier(made / "m.onnx")
        Image.new("L", (10, 6)).save(made / "a.png")
    (folder / "closed").chmod(0)
    return folder


def plain_user() -> list[str]:
    """What gives a command no more rights than the modes of files do, also for root."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root may do everything, and there is no setpriv")
    return [setpriv, "--bounding-set", "-dac_override,-dac_read_search"]


def told(
    name: str, given: Path, folder: Path, refuse: Callable[[Path], object] = lambda _: None
) -> subprocess.CompletedProcess[str]:
    """Run a command in the new folder ``folder``, after ``refuse`` in its process."""
    folder.mkdir()

    def prepare() -> None:
        os.chdir(folder)
        refuse(folder)

    arguments = [part.format(given=given, out=".") for part in COMMANDS[name]]
    done = subprocess.run(
        [*plain_user(), sys.executable, "-m", "vim_deploy", *arguments],
        # Python keeps what a small disk has cut off of its compiled modules, and reads it later.
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "HOME": "/nonexistent",
             "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=prepare, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert done.returncode in ANSWERS, f"{done.returncode}: {said}"
    assert done.returncode == 0 or "error VIM-" in done.stderr, said
    return done


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.timeout(180)
def test_a_machine_that_refuses(machine: str, name: str, given: Path, tmp_path: Path) -> None:
    if machine == "no thread" and os.geteuid() == 0:
        pytest.skip("the system gives root as many threads as it likes")
    is_rest = name == "inspect" or (name in WRITING and machine not in WRITTEN_ON)
    if is_rest and not os.environ.get("VIM_TEST_ALL"):
        pytest.skip("VIM_TEST_ALL=1 tries every command on every machine")
    folder = tmp_path / "work"
    told(name, given, folder, MACHINES[machine])
    if folder.exists():
        folder.chmod(stat.S_IRWXU)
        left = [path.name for path in folder.rglob("*") if path.name.endswith((".part", ".lock"))]
        assert not left


@pytest.mark.parametrize("name", ["inspect", "run", "verify", "package"])
def test_files_in_a_folder_that_nobody_may_enter(name: str, given: Path, tmp_path: Path) -> None:
    done = told(name, given / "closed", tmp_path / "work")
    assert done.returncode == 4
    assert "error VIM-401" in done.stderr
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize("name", ["verify", "package", "export"])
def test_outputs_where_nothing_may_be_made(name: str, given: Path, tmp_path: Path) -> None:
    """Said before the work, and with the option that names another place."""
    done = told(name, given, tmp_path / "work", lambda folder: folder.chmod(0o555))
    assert "error VIM-304" in done.stderr
    assert ("--report" if name == "verify" else "-o") in done.stderr
    assert "max abs" not in done.stdout


def test_no_place_for_temporary_files_but_the_working_folder(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    assert told("run", given, tmp_path / "work").returncode == 0


def test_a_mask_that_takes_every_right_leaves_nothing_hidden(given: Path, tmp_path: Path) -> None:
    """A package made under umask 777 is there, unreadable, and neither a lock nor a part is."""
    folder = tmp_path / "work"
    folder.mkdir()
    mask = os.umask(0o777)
    try:
        status = run(["-q", "package", str(given / "m.onnx"), "--runtime", "python", "-o",
                      str(folder / "p")])  # fmt: skip
    finally:
        os.umask(mask)
    assert status in (0, 3)
    assert not [path.name for path in folder.iterdir() if path.name != "p"]
