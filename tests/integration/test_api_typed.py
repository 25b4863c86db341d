"""Type checkers and editors find the package as it is installed, and every public name is typed."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import vim_deploy
from tests.support.source import REPOSITORY, modules

needs_setuptools = pytest.mark.skipif(
    importlib.util.find_spec("setuptools") is None,
    reason="setuptools, which builds what is installed, is not here",
)
_BUILD = "import sys; from setuptools import build_meta; build_meta.{}(sys.argv[1])"
_PARTS = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "vim_deploy", "export", "cpp")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources in a folder of their own: building leaves files among them."""
    folder = tmp_path_factory.mktemp("sources")
    for name in _PARTS:
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


def built(copy: Path, what: str, folder: Path) -> zipfile.ZipFile:
    """What the backend builds of the copy, as pip asks it to, without a network."""
    done = subprocess.run(
        [sys.executable, "-c", _BUILD.format(what), folder],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


@needs_setuptools
def test_an_editable_install_is_a_plain_path(copy: Path, tmp_path: Path) -> None:
    with built(copy, "build_editable", tmp_path) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
        # A hook would be a module, and its .pth a line that imports it.
        assert [Path(name).suffix for name in names] == [".pth"]
        (line,) = wheel.read(names[0]).decode().splitlines()
    assert Path(line).resolve() == copy.resolve()
    assert Path(line, "vim_deploy", "py.typed").is_file()


@needs_setuptools
def test_a_wheel_says_that_it_is_typed(copy: Path, tmp_path: Path) -> None:
    with built(copy, "build_wheel", tmp_path) as wheel:
        names = set(wheel.namelist())
    assert "vim_deploy/py.typed" in names
    assert {module.path.relative_to(REPOSITORY).as_posix() for module in modules()} <= names
    # What packages are made of, programs and pages, goes along.
    parts = (REPOSITORY / "vim_deploy/packaging").rglob("[!.]*.*")
    carried = {path.relative_to(REPOSITORY).as_posix() for path in parts if path.suffix != ".pyc"}
    assert carried <= names
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"vim_deploy"}


@pytest.mark.parametrize("name", [name for name in vim_deploy.__all__ if name != "__version__"])
def test_every_public_name_is_typed(name: str) -> None:
    public = getattr(vim_deploy, name)
    functions = [public] if inspect.isfunction(public) else _methods(public)
    for function in functions:
        hints = get_type_hints(function)
        parameters = [*inspect.signature(function).parameters]
        assert {*parameters} - {"self", "cls"} <= {*hints}
        assert "return" in hints
    if dataclasses.is_dataclass(public):
        assert {field.name for field in dataclasses.fields(public)} <= {*get_type_hints(public)}


def _methods(public: type) -> list[Any]:
    """What a class defines itself, without what ``dataclass`` adds."""
    own = [member for member in vars(public).values() if inspect.isfunction(member)]
    return [member for member in own if member.__code__.co_filename.startswith(str(REPOSITORY))]


_USER = """
from pathlib import Path
import numpy as np
import PIL.Image
import vim_deploy

exported = vim_deploy.export(Path("x.pth"), "x.onnx", vim_deploy.ExportOptions(dump_passes="d"))
path: Path = exported.path
held: Path | None = vim_deploy.RunOptions(output="x.npz").output
report = vim_deploy.verify("x.onnx", Path("x.pth"), vim_deploy.VerifyOptions(images="pictures"))
worst: float = report.worst.cosine
with vim_deploy.load(path, threads=1) as model:
    found = model([np.zeros((8, 8), np.uint8), "a.png", Path("b"), PIL.Image.new("L", (8, 8))])
    label: str = found.images[0].top[0].label
    model(iter(["a.png", "b.png"]), top=3)
record = vim_deploy.build_engine("x.onnx", "x.plan")
vim_deploy.benchmark("x.onnx")
"""

# What the package itself works with is not looked at, as where it is not installed: nine tenths of
# the time, and no public name may lean on it.
_SETTINGS = """
[mypy]
strict = True
[mypy-huggingface_hub.*,onnx_ir.*,onnxscript.*,safetensors.*,sklearn.*,torch.*,transformers.*]
follow_imports = skip
"""


@pytest.mark.slow
def test_mypy_reads_the_types_of_what_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not here")
    (tmp_path / "right.py").write_text(_USER, encoding="utf-8")
    wrong = 'import vim_deploy\nvim_deploy.run(3, "x")\nvim_deploy.load("x").label\n'
    (tmp_path / "wrong.py").write_text(wrong, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(_SETTINGS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "right.py", "wrong.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert [line.rpartition("[")[2] for line in done.stdout.splitlines()[:-1]] == [
        "arg-type]",
        "attr-defined]",
    ], done.stdout + done.stderr
