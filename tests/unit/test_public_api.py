"""The package's short public surface."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import vim_deploy
from vim_deploy.cli.main import COMMANDS


@pytest.mark.parametrize("name", vim_deploy.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(vim_deploy, name) is not None


def test_stages_have_the_names_of_the_commands() -> None:
    # Those about the installation itself are no stages.
    own = {"docs", "doctor", "plugin", "recipes"}
    stages = {name.replace("-", "_") for name in COMMANDS} - own
    # A sub-package is called bench, and an attribute can be only one of the two.
    stages = (stages - {"bench"}) | {"benchmark"}
    assert stages <= set(vim_deploy.__all__)


@pytest.mark.parametrize("name", [name for name in vim_deploy.__all__ if name.islower()])
def test_stages_are_plain_functions(name: str) -> None:
    assert inspect.isfunction(getattr(vim_deploy, name)) or name == "__version__"


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="exprot"):
        vim_deploy.exprot  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, vim_deploy; print([m for m in ('numpy', 'onnx', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_package_lists_its_names() -> None:
    assert {*vim_deploy.__all__} <= {*dir(vim_deploy)}
    told = pydoc.render_doc(vim_deploy, renderer=pydoc.plaintext)
    for name in {*vim_deploy.__all__} - {"__version__"}:
        assert f"\n    class {name}(" in told or f"\n    {name}(" in told


def test_star_import_and_help_load_no_framework() -> None:
    code = (
        "from vim_deploy import *; import vim_deploy, sys, pydoc; pydoc.render_doc(vim_deploy); "
        "print([name for name in vim_deploy.__all__ if name not in globals()], "
        "[name for name in ('torch', 'onnxruntime', 'tensorrt') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[] []"
