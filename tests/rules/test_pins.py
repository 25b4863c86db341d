"""What ``make venv`` installs is pinned, with hashes, and is what pyproject.toml asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.pins import FOLDER, PROJECT, PYTHONS, asked, entries, machine
from tests.support.source import REPOSITORY

#: What builds the site, in an environment of its own and with newer Pythons alone.
SITE = FOLDER / "docs.lock"
LOCKS = sorted({*FOLDER.glob("*.lock")} - {SITE})
#: What tests of other runtimes install, each by itself; nothing here depends on them.
CONSUMERS = sorted((FOLDER / "consumers").glob("*.lock"))
#: What a package's server installs at its first start.
SERVED = sorted((REPOSITORY / "vim_deploy/packaging/served").glob("requirements-*.txt"))
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
#: The Pythons of pyproject.toml on the machines that this is made for.
MACHINES = [machine(python, kind) for python in PYTHONS for kind in ("x86_64", "aarch64")]


def pinned_for(surroundings: dict[str, str]) -> dict[str, Requirement]:
    """The pins that hold on a machine, by name."""
    found: dict[str, Requirement] = {}
    for lock in LOCKS:
        for requirement, _ in entries(lock):
            if requirement.marker is None or requirement.marker.evaluate(surroundings):
                name = canonicalize_name(requirement.name)
                assert name not in found or found[name].specifier == requirement.specifier, name
                found[name] = requirement
    return found


def wanted() -> list[Requirement]:
    """What pyproject.toml asks for with the extras that the Makefile names."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    extras = re.search(r"^EXTRAS := (.+)$", makefile, re.MULTILINE)
    assert extras is not None
    return asked(*extras[1].split())


@pytest.mark.parametrize("lock", [*LOCKS, SITE, *CONSUMERS, *SERVED], ids=lambda path: path.name)
def test_every_entry_is_exact_and_has_hashes(lock: Path) -> None:
    assert entries(lock)
    for requirement, hashes in entries(lock):
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, f"{requirement} has no hash"
        assert all(HASH.fullmatch(item) for item in hashes), requirement


@pytest.mark.parametrize(
    "surroundings",
    MACHINES,
    ids=lambda item: f"{item['python_version']}-{item['platform_machine']}",
)
def test_what_the_project_asks_for_is_pinned(surroundings: dict[str, str]) -> None:
    pins = pinned_for(surroundings)
    for requirement in wanted():
        if requirement.marker is not None and not requirement.marker.evaluate(surroundings):
            continue
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement} is in no lock: make pins"
        version = str(pin.specifier).removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), (requirement, pin)


def test_the_files_kept_by_hand_name_one_torch() -> None:
    locked = entries(FOLDER / "torch.lock")
    assert [str(item) for item, _ in locked] == [(FOLDER / "torch.in").read_text().strip()]
    # Hashes kept by hand are easily pasted twice.
    assert len(set(locked[0][1])) == len(locked[0][1])


@pytest.mark.parametrize("name", ["model", "server"])
def test_the_served_pins_are_those_asked_for(name: str) -> None:
    given = [
        Requirement(line)
        for line in (FOLDER / f"{name}.in").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    pins = REPOSITORY / f"vim_deploy/packaging/served/requirements-{name}.txt"
    locked = [item for item, _ in entries(pins)]
    assert sorted((item.name, str(item.specifier)) for item in given) == sorted(
        (item.name, str(item.specifier)) for item in locked
    )


def test_the_oldest_onnx_runtime_that_is_allowed_is_tested() -> None:
    (allowed,) = map(Requirement, PROJECT["optional-dependencies"]["ort"])
    tested = min(
        Version(path.stem.partition("-")[2])
        for path in CONSUMERS
        if path.stem.startswith("onnxruntime-")
    )
    assert str(allowed.specifier) == f">={tested}"


def test_every_place_names_the_same_pythons() -> None:
    first, last = PYTHONS[0], PYTHONS[-1]
    assert [f"3.{n}" for n in range(int(first[2:]), int(last[2:]) + 1)] == PYTHONS
    assert PROJECT["requires-python"] == f">={first}"
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert "({}, {}) <= v <= ({}, {})".format(*first.split("."), *last.split(".")) in makefile
    assert f"--python-version {first} " in makefile
    for name in ("Makefile", "README.md", "CONTRIBUTING.md"):
        assert f"Python {first} to {last}" in (REPOSITORY / name).read_text(encoding="utf-8"), name
