"""The wheel of this checkout, made once in a run, and environments that have it and no checkout."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.locks import alone
from tests.support.packages import names_of
from tests.support.source import REPOSITORY

RECIPE = REPOSITORY / "plugins" / "cpu" / "wheel" / "build_wheels.py"
needs_setuptools = pytest.mark.skipif(
    importlib.util.find_spec("setuptools") is None,
    reason="setuptools, which builds what is installed, is not here",
)


@functools.cache
def recipe() -> SimpleNamespace:
    """The names of the program that ``make wheels`` runs."""
    return names_of(RECIPE)


def pure_wheel(factory: pytest.TempPathFactory) -> Path:
    """The wheel without a library, which the workers of a run share."""
    base = factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "wheel"
    folder.mkdir(exist_ok=True)
    with alone(folder / "lock"):
        found = next(folder.glob("*-py3-none-any.whl"), None)
        return found or recipe().build_wheel(folder, None, "")


def make_environment(place: Path, *packages: str, shared: bool = True) -> Path:
    """A fresh environment's interpreter, with packages that pip installs and nothing they ask for.

    Args:
        place: its folder.
        packages: as pip is given them.
        shared: whether it finds what the tests' own environment has, this checkout apart.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    (site,) = place.glob("lib/python*/site-packages")
    if shared:
        folders = [name for name in sys.path if name.endswith("-packages")]
        (site / "shared.pth").write_text("\n".join(folders))
    words = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    words += ["--disable-pip-version-check", "--no-deps", "--no-index", *packages]
    subprocess.run(words, check=True)
    return python


def bare_variables() -> dict[str, str]:
    """This process's variables without those that lead to the checkout or change commands."""
    left_out = ("VIM_DEPLOY_", "PYTHON", "PYTEST")
    return {name: v for name, v in os.environ.items() if not name.startswith(left_out)}
