"""What ``make venv`` installs is pinned, with hashes, and is what pyproject.toml asks for."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.source import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: What builds the site, in an environment of its own and with newer Pythons alone.
SITE = REPOSITORY / "requirements" / "docs.lock"
LOCKS = sorted({*(REPOSITORY / "requirements").glob("*.lock")} - {SITE})
#: What tests of other runtimes install, each by itself; nothing here depends on them.
CONSUMERS = sorted((REPOSITORY / "requirements" / "consumers").glob("*.lock"))
#: What a package's server installs at its first start.
SERVED = sorted((REPOSITORY / "vim_deploy/packaging/served").glob("requirements-*.txt"))
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
#: The Pythons of pyproject.toml on the machines that this is made for.
MACHINES = [
    {"python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux",
     "platform_machine": machine, "platform_system": "Linux", "extra": ""}
    for version in ("3.10", "3.11", "3.12") for machine in ("x86_64", "aarch64")
]  # fmt: skip


def entries(path: Path) -> list[tuple[Requirement, list[str]]]:
    """Each requirement of a lock with what follows it."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    found = []
    for line in text.splitlines():
        if line.strip() and not line.startswith(("#", "-r ")):
            words = line.split(" --hash")
            found.append((Requirement(words[0].strip()), [f"--hash{word}" for word in words[1:]]))
    return found


def pinned_for(machine: dict[str, str]) -> dict[str, Requirement]:
    """The pins that hold on a machine, by name."""
    found: dict[str, Requirement] = {}
    for lock in LOCKS:
        for requirement, _ in entries(lock):
            if requirement.marker is None or requirement.marker.evaluate(machine):
                name = canonicalize_name(requirement.name)
                assert name not in found or found[name].specifier == requirement.specifier, name
                found[name] = requirement
    return found


def wanted() -> list[Requirement]:
    """What pyproject.toml asks for with the extras that the Makefile names."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    extras = re.search(r"^EXTRAS := (.+)$", makefile, re.MULTILINE)
    assert extras is not None
    texts = list(project["dependencies"])
    for extra in extras[1].split():
        texts += project["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("lock", [*LOCKS, SITE, *CONSUMERS, *SERVED], ids=lambda path: path.name)
def test_every_entry_is_exact_and_has_hashes(lock: Path) -> None:
    assert entries(lock)
    for requirement, hashes in entries(lock):
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, f"{requirement} has no hash"
        assert all(HASH.fullmatch(item.strip()) for item in hashes), requirement


@pytest.mark.parametrize(
    "machine", MACHINES, ids=lambda item: f"{item['python_version']}-{item['platform_machine']}"
)
def test_what_the_project_asks_for_is_pinned(machine: dict[str, str]) -> None:
    pins = pinned_for(machine)
    for requirement in wanted():
        if requirement.marker is not None and not requirement.marker.evaluate(machine):
            continue
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement} is in no lock: make pins"
        version = str(pin.specifier).removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), (requirement, pin)


def test_the_files_kept_by_hand_name_one_torch() -> None:
    folder = REPOSITORY / "requirements"
    locked = entries(folder / "torch.lock")
    assert [str(item) for item, _ in locked] == [(folder / "torch.in").read_text().strip()]
    # Hashes kept by hand are easily pasted twice.
    assert len(set(locked[0][1])) == len(locked[0][1])


@pytest.mark.parametrize("name", ["model", "server"])
def test_the_served_pins_are_those_asked_for(name: str) -> None:
    asked = [
        Requirement(line)
        for line in (REPOSITORY / f"requirements/{name}.in").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    pins = REPOSITORY / f"vim_deploy/packaging/served/requirements-{name}.txt"
    locked = [item for item, _ in entries(pins)]
    assert sorted((item.name, str(item.specifier)) for item in asked) == sorted(
        (item.name, str(item.specifier)) for item in locked
    )


def test_the_oldest_onnx_runtime_that_is_allowed_is_tested() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (allowed,) = map(Requirement, project["optional-dependencies"]["ort"])
    tested = min(
        Version(path.stem.partition("-")[2])
        for path in CONSUMERS
        if path.stem.startswith("onnxruntime-")
    )
    assert str(allowed.specifier) == f">={tested}"
