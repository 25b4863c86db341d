"""The command that adds an extra fits how this copy was installed, and names no foreign index."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.source import REPOSITORY
from vim_deploy import installation
from vim_deploy.installation import extra_command, is_checkout, pip_command

PIP = f"{sys.executable} -m pip install"
METADATA = """\
Metadata-Version: 2.4
Name: vim-deploy
Version: 0.1.0
Requires-Dist: numpy>=1.26
Requires-Dist: onnxruntime>=1.18.1; extra == "ort"
Requires-Dist: onnxruntime-gpu>=1.20; extra == "ort-gpu"
Requires-Dist: transformers==5.23.0; python_version >= "3.11" and extra == "deit"
Requires-Dist: transformers==5.20.2; python_version < "3.11" and extra == "deit"
"""


@pytest.fixture(autouse=True)
def pip_of_another_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The shell's pip is not this environment's, so the interpreter is named."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy in a folder of packages, with its metadata beside it; the folder of the metadata."""
    site = tmp_path / "site"
    package = site / "vim_deploy"
    (package / "shipped").mkdir(parents=True)
    about = site / "vim_deploy-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(METADATA)
    monkeypatch.setattr(installation, "_PACKAGE", package)
    monkeypatch.setattr(installation, "_IN_WHEEL", package / "shipped")
    monkeypatch.setattr(installation, "SHIPPED", package / "shipped")
    # A copy before it is not the one that runs.
    monkeypatch.setattr(sys, "path", [str(REPOSITORY), str(site)])
    return about


def from_address(about: Path, url: str, **others: object) -> None:
    (about / "direct_url.json").write_text(json.dumps({"url": url, **others}))


def test_a_checkout_is_named_by_its_folder() -> None:
    assert is_checkout()
    assert installation.SHIPPED == REPOSITORY
    words = shlex.split(extra_command("ort"))
    assert words == [sys.executable, "-m", "pip", "install", "-e", f"{REPOSITORY}[ort]"]


def test_a_wheel_is_named_by_its_file(installed: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "my wheels" / "vim_deploy-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    from_address(installed, wheel.as_uri(), archive_info={})
    assert not is_checkout()
    assert extra_command("ort") == f"{PIP} '{wheel}[ort]'"


def test_of_a_wheel_that_is_gone_the_requirements_are_named(installed: Path) -> None:
    from_address(installed, "file:///nowhere/vim_deploy-0.1.0-py3-none-any.whl", archive_info={})
    assert extra_command("ort") == f"{PIP} 'onnxruntime>=1.18.1'"
    assert extra_command("ort-gpu") == f"{PIP} 'onnxruntime-gpu>=1.20'"
    newer, older = shlex.split(extra_command("deit"))[-2:]
    assert newer == 'transformers==5.23.0; python_version >= "3.11"'
    assert older == 'transformers==5.20.2; python_version < "3.11"'


def test_a_folder_an_address_and_a_repository(installed: Path, tmp_path: Path) -> None:
    from_address(installed, tmp_path.as_uri(), dir_info={})
    assert extra_command("ort") == f"{PIP} '{tmp_path}[ort]'"
    from_address(installed, "https://example.com/a.whl", archive_info={})
    assert extra_command("ort") == f"{PIP} 'vim-deploy[ort] @ https://example.com/a.whl'"
    vcs = {"vcs": "git", "commit_id": "0123abc"}
    from_address(installed, "https://example.com/x.git", vcs_info=vcs)
    whole = "git+https://example.com/x.git@0123abc"
    assert extra_command("ort") == f"{PIP} 'vim-deploy[ort] @ {whole}'"
    from_address(installed, "https://example.com/x.git", vcs_info=vcs, subdirectory="sub")
    assert extra_command("ort") == f"{PIP} 'vim-deploy[ort] @ {whole}#subdirectory=sub'"


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", '{"url": ""}', '{"url": "http://["}'])
def test_a_damaged_note_names_no_index(installed: Path, damaged: str) -> None:
    (installed / "direct_url.json").write_text(damaged)
    assert extra_command("ort") == f"{PIP} 'onnxruntime>=1.18.1'"


def test_of_an_index_the_name_is_enough(installed: Path) -> None:
    assert extra_command("ort") == f"{PIP} 'vim-deploy[ort]'"


def test_a_copy_without_metadata(installed: Path) -> None:
    (installed / "METADATA").unlink()
    installed.rmdir()
    assert "pip" not in extra_command("ort")
    assert "its extra ort" in extra_command("ort")


def test_pip_is_that_of_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "environment" / "bin"
    own.mkdir(parents=True)
    for name in ("python", "pip"):
        (own / name).touch(0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    assert pip_command("install", "-U", "x>1").endswith("python -m pip install -U 'x>1'")
    monkeypatch.setenv("PATH", str(own))
    assert pip_command("install", "-U", "x>1") == "pip install -U 'x>1'"


def test_an_environment_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_has_pip", lambda: False)
    assert pip_command("install", "x").endswith("-m pip install x")
    (tmp_path / "uv").touch(0o755)
    assert pip_command("install", "x") == f"uv pip install --python {sys.executable} x"


def test_a_user_sees_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from vim_deploy.errors import missing_package

    monkeypatch.setattr("vim_deploy.errors.extra_command", lambda extra: f"add {extra}")
    assert missing_package("torch", "torch", "an export").fix == "add torch"
