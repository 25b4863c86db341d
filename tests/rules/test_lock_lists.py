"""requirements/names: each list is complete, and selects what dev.lock pins."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.rules.test_pins import entries
from tests.support.source import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = REPOSITORY / "requirements" / "names"
#: List -> extras of pyproject.toml that it is for; the first one holds what every command needs.
EXTRAS = {
    "tool": ("torch", "ort", "coco", "report", "hub"),
    "rtx": ("rtx",),
    "demo": ("demo",),
    "gpu": ("trt-run",),
}
#: Pinned in locks of their own, with what torch's CUDA builds bring along.
ELSEWHERE = ("torch", "tensorrt-rtx-cu13")


def listed(name: str) -> set[str]:
    """The packages of a list."""
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def needed(extras: tuple[str, ...]) -> set[str]:
    """What extras need on this machine, through all that is installed here."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    waiting = [(Requirement(text), "") for text in texts]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                asked = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                pytest.skip(f"{name} is not installed: what it needs is not known")
            of_locks = [Requirement(text) for text in asked]
            # What builds of torch for CUDA need is in cuda.lock.
            waiting += [
                (item, extra)
                for item in of_locks
                if name != "torch" or not re.match(r"nvidia|cuda|triton", item.name)
            ]
    return {name for name, _ in seen} - set(ELSEWHERE)


@pytest.mark.parametrize("name", EXTRAS)
def test_every_list_is_complete(name: str) -> None:
    kept = listed("tool") | listed(name)
    missing = needed(EXTRAS[name]) - kept
    assert not missing, f"requirements/names/{name}.txt lacks {sorted(missing)}"


def test_no_package_stands_in_two_lists() -> None:
    names = [item for name in EXTRAS for item in listed(name)]
    assert len(set(names)) == len(names)
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(EXTRAS)


def selected(*names: str) -> subprocess.CompletedProcess[str]:
    """The script, as the Makefile and the Dockerfiles start it."""
    words = ["sh", str(FOLDER / "select.sh"), *names]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_what_is_selected_is_what_the_lock_has(tmp_path: Path) -> None:
    done = selected("tool", "demo")
    assert done.returncode == 0, done.stderr
    part = tmp_path / "part.lock"
    part.write_text(done.stdout, encoding="utf-8")
    found = [(str(item), hashes) for item, hashes in entries(part)]
    whole = [
        (str(item), hashes)
        for item, hashes in entries(REPOSITORY / "requirements" / "dev.lock")
        if canonicalize_name(item.name) in listed("tool") | listed("demo")
    ]
    assert found == whole
    assert {canonicalize_name(Requirement(item).name) for item, _ in found} == (
        listed("tool") | listed("demo")
    )


def test_a_list_that_is_not_there_or_not_pinned_is_told(tmp_path: Path) -> None:
    done = selected("tool", "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    folder = tmp_path / "names"
    folder.mkdir()
    (folder / "select.sh").write_bytes((FOLDER / "select.sh").read_bytes())
    (folder / "own.txt").write_text("click\nsomething-else\n", encoding="utf-8")
    (tmp_path / "dev.lock").write_text("click==1\n", encoding="utf-8")
    words = ["sh", str(folder / "select.sh"), "own"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "something-else is not in dev.lock" in done.stderr
