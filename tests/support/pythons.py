"""The Pythons of this machine, and for each an environment of the side that deploys.

Such an environment has what the locks pin for ``vim-deploy[ort]``: no PyTorch, no pytest. It is
made once, in pytest's cache folder; where that cannot be done, its tests skip and say why.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.support.locks import alone
from tests.support.pins import FOLDER, PYTHONS, asked, machine, pinned

#: What those that pyproject.toml names need themselves. ``pip check`` says when one is missing.
BEHIND = {
    "coloredlogs", "flatbuffers", "humanfriendly", "markdown-it-py", "mdurl", "ml-dtypes",
    "mpmath", "packaging", "protobuf", "pygments", "sympy", "typing-extensions",
}  # fmt: skip
#: An interpreter says its version; one without these modules, or a shim of none, fails.
_ASK = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])"
#: What pip says when it gets no wheel here: no such release for this Python, or no index.
_NO_WHEEL = ("No matching distribution", "Could not find a version", "Temporary failure", "Errno")


@cache
def interpreters() -> dict[str, str]:
    """By version, such as 3.13, an interpreter of each Python that this machine has."""
    found: dict[str, str] = {}
    for candidate in _candidates():
        done = _ran(candidate, "-I", "-c", _ASK)
        version = done.stdout.strip()
        if done.returncode == 0 and version in PYTHONS:
            found.setdefault(version, candidate)
    return found


def _candidates() -> Iterator[str]:
    """On the path, and where pyenv keeps those that it puts there by request alone."""
    for version in PYTHONS:
        for folder in os.environ["PATH"].split(os.pathsep):
            if shutil.which(f"python{version}", path=folder):
                yield os.path.join(folder, f"python{version}")
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for path in sorted(root.glob("versions/3.*/bin/python"), reverse=True):
        yield str(path)
    # Not the environment's own: a link to it is no interpreter of another.
    yield os.path.join(sys.base_prefix, "bin", "python3")


def python_to_test(version: str) -> str:
    """The interpreter of a version; skips where it is not to be had, or is one of the middle."""
    found = interpreters()
    if version not in found:
        pytest.skip(f"this machine has no Python {version}")
    here = [name for name in PYTHONS if name in found]
    if version not in (here[0], here[-1]) and not os.environ.get("VIM_TEST_ALL"):
        pytest.skip(f"VIM_TEST_ALL=1 runs it with Pythons between {here[0]} and {here[-1]}")
    return found[version]


def environment_of(config: pytest.Config, version: str) -> str:
    """The interpreter of an environment with ``vim-deploy[ort]`` of the locks; skips without."""
    assert config.cache is not None
    python = python_to_test(version)
    names = {*BEHIND, *(canonicalize_name(item.name) for item in asked("ort"))}
    pins = pinned(FOLDER / "dev.lock", names, machine(version, os.uname().machine))
    short = hashlib.sha256(f"{python}\0{pins}".encode()).hexdigest()[:12]
    base = config.cache.mkdir("pythons")
    place = base / f"{version}-{short}"
    with alone(base / f"{version}.lock"):
        if not place.exists():
            _make(python, pins, place)
    return str(place / "bin" / "python")


def _make(python: str, pins: str, place: Path) -> None:
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    # The pip of this environment installs there; to copy it into each takes seconds.
    done = _ran(python, "-I", "-m", "venv", "--without-pip", str(part))
    assert done.returncode == 0, done.stderr
    (part / "pins.txt").write_text(pins, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(part / "bin" / "python")]
    pip.append("--disable-pip-version-check")
    what = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(part / "pins.txt")]
    done = _ran(*pip, "install", "--quiet", "--no-compile", *what)
    said = done.stderr.strip()[-500:]
    if done.returncode and any(text in said for text in _NO_WHEEL):
        pytest.skip(f"its packages are not to be had here: {said}")
    assert done.returncode == 0, said
    done = _ran(*pip, "check")
    assert done.returncode == 0, done.stdout
    # Scripts name the folder in which they were made; the interpreter alone is started.
    part.rename(place)


def _ran(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)
