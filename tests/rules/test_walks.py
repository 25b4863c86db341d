"""Commands walk through few files, and the architecture page says how many."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.rules.walks import LIMITS, Profiler, Walk, walk
from tests.support.source import PACKAGE, REPOSITORY

ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
#: Commands that need a package that is not everywhere.
_NEEDS = {"build-engine": "tensorrt_rtx"}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Walk, Path]:
    """The walk of ``export``, and what it wrote."""
    folder = tmp_path_factory.mktemp("walks")
    onnx = folder / "digits.onnx"
    return walk("export", onnx, folder), onnx


def section(title: str) -> str:
    """The text below a heading of the architecture page."""
    return ARCHITECTURE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("command", LIMITS)
def test_a_walk_is_short(command: str, export: tuple[Walk, Path], tmp_path: Path) -> None:
    if command in _NEEDS:
        pytest.importorskip(_NEEDS[command])
    found, onnx = export
    if command != "export":
        found = walk(command, onnx, tmp_path)
    assert len(found.files) > 5, "a profiler that sees nothing"
    assert len(found.files) <= LIMITS[command], " ".join(found.files)


def test_the_architecture_page_follows_one_export(export: tuple[Walk, Path]) -> None:
    steps = section("One export, file by file").split("\n\n`build-engine`")[0]
    named = re.findall(r"\]\(\.\./vim_deploy/([\w/]+\.py)\)", steps)
    assert named, "no files are named"
    assert set(named) <= set(export[0].files)
    assert len(named) == len(set(named)) <= LIMITS["export"]


def test_the_architecture_page_says_the_limits() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \| (\d+) \|$", section("How far a command walks"), re.MULTILINE
    )
    assert {command: int(files) for command, files in rows} == LIMITS


def test_the_profiler_sees_functions_and_not_imports(tmp_path: Path) -> None:
    profiler = Profiler()
    inside = compile("def f(): pass\nf()", str(PACKAGE / "errors.py"), "exec")
    called = compile("f()", str(tmp_path / "caller.py"), "exec").replace(co_name="caller")
    space: dict[str, object] = {}
    sys.settrace(profiler)
    exec(inside, space)  # a module body that calls a function of its own
    sys.settrace(None)
    assert not profiler.files
    sys.settrace(profiler)
    exec(called, space)
    sys.settrace(None)
    assert list(profiler.files) == ["errors.py"]
