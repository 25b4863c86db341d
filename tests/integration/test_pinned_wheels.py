"""Each pinned package has a wheel, of those whose hashes are in its lock, for every Python.

Asks the package index for lists of files, and fetches none of them.
"""

from __future__ import annotations

import json
import os
import urllib.request
from functools import cache
from pathlib import Path

import pytest
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from tests.support.pins import FOLDER, PYTHONS, entries, machine

pytestmark = pytest.mark.skipif(
    not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 asks the package index"
)
#: source.lock is the one list of packages that are published as source alone.
LOCKS = [FOLDER / f"{name}.lock" for name in ("dev", "cuda", "torch", "wheels")]
#: The newest C library that a wheel of x86-64 or aarch64 may ask for, as 2.N: Debian 12 has 2.36.
GLIBC = 36


@cache
def files(name: str) -> dict[str, str]:
    """By SHA-256, the names of the index's files of a package."""
    request = urllib.request.Request(
        f"https://pypi.org/simple/{name}/",
        headers={"Accept": "application/vnd.pypi.simple.v1+json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)["files"]
    except OSError as error:
        pytest.skip(f"the package index is not to be had here: {error}")
    return {item["hashes"]["sha256"]: item["filename"] for item in found}


def tags(python: str, processor: str) -> set[Tag]:
    """What a Python takes on a machine with Linux."""
    version = tuple(map(int, python.split(".")))
    old = [f"manylinux{name}_{processor}" for name in ("2014", "2010", "1")]
    platforms = [*(f"manylinux_2_{n}_{processor}" for n in range(5, GLIBC + 1)), *old]
    own = cpython_tags(version, platforms=platforms)
    return {*own, *compatible_tags(version, f"cp{version[0]}{version[1]}", platforms)}


@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_there_is_a_wheel(lock: Path, python: str, processor: str) -> None:
    taken, surroundings = tags(python, processor), machine(python, processor)
    lacking = []
    for requirement, hashes in entries(lock):
        if requirement.marker is not None and not requirement.marker.evaluate(surroundings):
            continue
        listed = files(canonicalize_name(requirement.name))
        names = [listed.get(text.rpartition(":")[2], "") for text in hashes]
        wheels = [name for name in names if name.endswith(".whl")]
        if not any(parse_wheel_filename(name)[3] & taken for name in wheels):
            lacking.append(str(requirement))
    assert lacking == []
