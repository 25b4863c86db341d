"""The lists of pinned packages in ``requirements``, and the Pythons that they are made for."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.source import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = REPOSITORY / "requirements"
PROJECT: dict[str, Any] = tomllib.loads(
    (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
)["project"]
#: Such as 3.10, as the classifiers name them.
PYTHONS = [
    found[1]
    for text in PROJECT["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", text))
]


def machine(python: str, processor: str = "x86_64") -> dict[str, str]:
    """What markers are held against on a machine with Linux."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": processor,
        "platform_system": "Linux",
        "platform_python_implementation": "CPython",
        "extra": "",
    }


def entries(path: Path) -> list[tuple[Requirement, list[str]]]:
    """Each requirement of a lock with its hashes, as options of pip."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    found = []
    for line in text.splitlines():
        if line.strip() and not line.startswith(("#", "-r ")):
            words = line.split(" --hash")
            hashes = [f"--hash{word}".strip() for word in words[1:]]
            found.append((Requirement(words[0].strip()), hashes))
    return found


def asked(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, with these extras."""
    texts = list(PROJECT["dependencies"])
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


def pinned(lock: Path, names: set[str], surroundings: dict[str, str]) -> str:
    """The part of a lock with these packages, as far as they hold there, for ``pip -r``."""
    lines = []
    for requirement, hashes in entries(lock):
        holds = requirement.marker is None or requirement.marker.evaluate(surroundings)
        if canonicalize_name(requirement.name) in names and holds:
            lines.append(f"{requirement.name}{requirement.specifier} {' '.join(hashes)}\n")
    return "".join(lines)
