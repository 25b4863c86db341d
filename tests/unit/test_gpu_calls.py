"""The calls of ``benchmarks/gpu``: steps with limits, what is carried, what comes back as files."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.source import REPOSITORY

SCRIPTS = REPOSITORY / "benchmarks" / "gpu"
whole = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
#: The steps of the first call.
FIRST = {
    *("unpack", "machine", "nvidia-smi", "export", "gpu_check", "plugin_test", "check"),
    *("memcheck", "racecheck", "initcheck", "synccheck", "time", "models", "ncu"),
}


@pytest.fixture(scope="module", autouse=True)
def _scripts() -> Iterator[None]:
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


def steps(text: str, folder: Path, **variables: str) -> dict[str, tuple[str, str]]:
    """Exit code and reason of each step of a call made of ``text``."""
    given = {"PATH": os.environ["PATH"], "OUT": str(folder), "DEADLINE": "20", **variables}
    command = ["bash", "-c", f". {SCRIPTS}/lib.sh\n{text}"]
    subprocess.run(command, env=given, check=True, capture_output=True, timeout=60)
    lines = (folder / "steps.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    assert all(len(row) == 4 for row in rows), lines
    return {row[0]: (row[1], row[3]) for row in rows}


def test_steps_say_why(tmp_path: Path) -> None:
    found = steps(
        """
        step good 5 true
        step bad 5 sh -c 'echo first; printf "last\\twords\\033[0m\\n\\n" >&2; exit 3'
        step coded 5 sh -c 'echo "VIM-302: no usable GPU"; echo "fix: buy one"; exit 3'
        step missing 5 no-such-program-here
        step silent 5 sh -c 'exit 4'
        step slow 1 sh -c 'echo began; sleep 30'
        start beside 5 sh -c 'exit 6'
        finish beside
        left_out other 'no TensorRT here'
        DEADLINE=0
        step late 5 true
        ended 1
        """,
        tmp_path,
    )
    assert found["good"] == ("0", "")
    assert found["bad"] == ("3", "last words[0m")
    assert found["coded"] == ("3", "VIM-302: no usable GPU")
    assert found["missing"][0] == "127"
    assert "no-such-program-here" in found["missing"][1]
    assert found["silent"] == ("4", "exit code 4, without a word")
    assert found["slow"][0] == "124"
    assert found["slow"][1].startswith("stopped after 1 s; its last words: ")
    assert found["beside"][0] == "6"
    assert found["other"] == ("left-out", "no TensorRT here")
    assert found["late"] == ("skipped", "the call's 0 s were over")
    packed = subprocess.run(
        ["tar", "tzf", str(tmp_path / "logs.tgz")], capture_output=True, text=True, check=True
    )
    assert "./bad.log" in packed.stdout.splitlines()


def call(number: int, carried: Path, tmp_path: Path, **limits: str) -> list[dict[str, Any]]:
    """A call on this machine, without the GPU that there may be."""
    import results

    out = tmp_path / "out"
    env = {
        **{name: os.environ[name] for name in ("PATH", "HOME")},
        **{"OUT": str(out), "WORK": str(tmp_path / "work"), "PYTHON": sys.executable},
        **{"CUDA_VISIBLE_DEVICES": "-1", "OMP_NUM_THREADS": "1", **limits},
    }
    command = ["bash", str(SCRIPTS / f"call{number}.sh"), str(carried)]
    done = subprocess.run(
        command, env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=True
    )
    assert done.stdout.rstrip().endswith(" s")
    return results.steps_of(out)


def test_the_first_call_ends_and_names_every_step(tmp_path: Path) -> None:
    rows = call(1, tmp_path / "nothing", tmp_path, DEADLINE="2", LONGEST="1")
    assert {row["step"] for row in rows} == FIRST
    assert len(rows) == len(FIRST)
    assert all(row["why"] for row in rows if row["status"] != 0), rows
    assert next(row for row in rows if row["step"] == "unpack")["status"] != 0


@whole
def test_the_first_call_says_why_it_could_not(tmp_path: Path) -> None:
    rows = {row["step"]: row for row in call(1, tmp_path / "nothing", tmp_path, LONGEST="60")}
    assert rows["unpack"]["why"].endswith("holds nothing to unpack: prepare.py fill makes it")
    assert rows["machine"]["status"] == 0
    for name in ("check", "time", "ncu"):
        assert "VIM-302" in rows[name]["why"]
    for name in ("gpu_check", "memcheck"):
        assert rows[name]["status"] != 0
        assert rows[name]["why"]
    known = json.loads((tmp_path / "out" / "machine.json").read_text())
    assert known["machine"]["gpu"] is None
    assert known["command"] == ["bash", "benchmarks/gpu/call1.sh"]


@pytest.fixture
def given(tmp_path: Path) -> argparse.Namespace:
    """Paths as a developer would give them."""
    for name, data in {
        "ext/selective_scan_cuda.cpython-312.so": b"\x7fELF",
        "official/vim/models.py": b"x = 1",
        "official/vim/weights.pth": bytes(100),
        "parts/part-00": b"first",
        "parts/part-01": b"second",
        "parts/unpack.py": b"print()",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "a.whl", "w") as wheel:
        wheel.writestr("package/__init__.py", "")
    with zipfile.ZipFile(tmp_path / "b.whl", "w") as wheel:
        wheel.writestr("../../outside.py", "")
    repository = tmp_path / "repository"
    repository.mkdir()
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    return argparse.Namespace(
        repository=repository,
        arch="90",
        tensorrt_root=None,
        tensorrt_libs=None,
        parts=tmp_path / "parts",
        ext=tmp_path / "ext",
        official=tmp_path / "official",
        wheel=[tmp_path / "wheels", tmp_path / "b.whl"],
        limit=64.0,
    )


def test_filled_and_unpacked(
    given: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import prepare

    def compiled(stage: Path, _options: argparse.Namespace) -> None:
        (stage / prepare.CHECK).write_bytes(b"program")
        (stage / prepare.CHECK).chmod(0o755)

    monkeypatch.setattr(prepare, "compile_all", compiled)
    monkeypatch.setattr(prepare, "strip", lambda stage: None)
    monkeypatch.setattr(prepare, "PRESET", 0)
    (given.repository / ".gpu").mkdir()
    (given.repository / ".gpu/old").write_text("of the last time")
    assert prepare.fill(given)
    first, second = (given.repository / name for name in prepare.FOLDERS)
    names = {"bin.tar.xz", "part-00", "prepared.json", "unpack.py"}
    assert {path.name for path in first.iterdir()} == names
    assert {path.name for path in second.iterdir()} == {"part-01", "prepared.json"}
    work = tmp_path / "work"
    prepare.unpack(first, work)
    prepare.unpack(second, work)
    found = {path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()}
    assert found == {
        *("gpu_check", "ext/selective_scan_cuda.cpython-312.so", "official/vim/models.py"),
        *("parts/part-00", "parts/part-01", "parts/unpack.py"),
        *("site/package/__init__.py", "site/outside.py"),
    }
    assert os.access(work / "gpu_check", os.X_OK)
    record = json.loads((first / "prepared.json").read_text())
    assert record["arch"] == "90"
    assert len(record["sha256"]["gpu_check"]) == 64
    given.limit = 0.0
    assert not prepare.fill(given)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("parts", "no part-00"),
        ("ext", "build the extensions first"),
        ("official", "holds no Python files"),
        ("wheel", "is no wheel"),
    ],
)
def test_a_path_that_holds_something_else(
    given: argparse.Namespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    words: str,
) -> None:
    import prepare

    monkeypatch.setattr(prepare, "compile_all", lambda stage, options: None)
    (tmp_path / "empty").mkdir()
    other = [tmp_path / "ext/selective_scan_cuda.cpython-312.so"]
    setattr(given, option, other if option == "wheel" else tmp_path / "empty")
    with pytest.raises(prepare.PrepareError, match=words):
        prepare.fill(given)
    assert not (given.repository / ".gpu").exists()


def came_back(folder: Path, commit: str | None = "abc1234", seen: str | None = None) -> Path:
    folder.mkdir()
    machine = {
        "command": ["bash", "benchmarks/gpu/call1.sh"],
        "machine": {"gpu": "H200 (9.0)"},
        "state": {"date": "2026-01-01T00:00:00+00:00", "commit": seen, "versions": {"torch": "2"}},
        "prepared": {"commit": commit},
    }
    (folder / "machine.json").write_text(json.dumps(machine))
    (folder / "steps.tsv").write_text("check\t0\t12\t\nncu\t127\t0\tncu is not on PATH\n")
    return folder


def test_results_become_files(tmp_path: Path) -> None:
    import results

    one, two = came_back(tmp_path / "one"), came_back(tmp_path / "two")
    (one / "check.json").write_text('{"failures": 0}')
    (two / "trt.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    into = tmp_path / "results"
    assert results.main(["join", "h200", str(one), str(two), "--into", str(into)]) == 0
    check = json.loads((into / "h200" / "check.json").read_text())
    assert check["result"] == {"failures": 0}
    assert check["command"] == ["bash", "benchmarks/gpu/call1.sh"]
    assert check["state"]["commit"] == "abc1234"
    assert check["state"]["versions"] == {"torch": "2"}
    engines = json.loads((into / "h200" / "trt.json").read_text())
    assert engines["result"] == [{"a": 1}, {"b": 2}]
    calls = json.loads((into / "h200" / "steps.json").read_text())["calls"]
    assert [len(one["steps"]) for one in calls] == [2, 2]
    assert calls[0]["steps"][1] == {
        "step": "ncu",
        "status": 127,
        "seconds": 0,
        "why": "ncu is not on PATH",
    }


@pytest.mark.parametrize(
    ("seen", "built", "written"),
    [
        (None, "abc", "abc"),
        ("abc-dirty", "abc", "abc"),
        ("abc-dirty", "abc-dirty", "abc-dirty"),
        ("def", "abc", "def"),
        ("def-dirty", "abc", "def-dirty"),
        ("def", None, "def"),
    ],
)
def test_the_commit_that_ran(tmp_path: Path, seen: str, built: str, written: str) -> None:
    import results

    known = results.about(came_back(tmp_path / "one", built, seen))
    assert known["state"]["commit"] == written


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("name", "no name of a device"),
        ("commit", "knows no commit"),
        ("machine", "holds no machine.json"),
        ("steps", "holds no steps.tsv"),
        ("twice", "give each call once"),
        ("broken", "cannot be read"),
    ],
)
def test_what_cannot_be_joined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, words: str
) -> None:
    import results

    folder = came_back(tmp_path / "one", None if what == "commit" else "abc1234")
    (folder / "check.json").write_text("{" if what == "broken" else "{}")
    for name in ("machine", "steps"):
        if what == name:
            next(folder.glob(f"{name}.*")).unlink()
    folders = [str(folder)] * (2 if what == "twice" else 1)
    device = "../x" if what == "name" else "h200"
    assert results.main(["join", device, *folders, "--into", str(tmp_path / "into")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "into").exists()
