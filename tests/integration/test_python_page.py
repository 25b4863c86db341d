"""docs/python.md is a program that runs, in the repository and in order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import traces
from tests.support.markdown import blocks
from tests.support.source import REPOSITORY

PAGE = REPOSITORY / "docs" / "python.md"


def program() -> str:
    """The page's blocks as one file, whose processes may be spawned."""
    lines = [line for block in blocks(PAGE) if block.language == "python" for line in block.lines]
    return (
        "def main():\n"
        + "".join(f"    {line}\n" for line in lines)
        + ("\n\nif __name__ == '__main__':\n    main()\n")
    )


def test_the_page_runs(tmp_path: Path, folder_of_traces: Path) -> None:
    for name in ("digits", "reference"):
        shutil.copytree(REPOSITORY / "tests" / "data" / name, tmp_path / "tests" / "data" / name)
    (tmp_path / "page.py").write_text(program(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={**os.environ, **traces.variables(folder_of_traces)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = done.stdout.splitlines()
    assert said[0].startswith(("work/vim-digits.onnx 86 1.0", "work/vim-digits.onnx 86 0.9999"))
    assert said[1].startswith("3 three ")
    assert said[2:5] == ["picture-0 three", "picture-1 three", "tests/data/digits/7.png seven"]
    assert said[5] == "('zero', 'one', 'two') ('batch', 1, 32, 32) ('logits',)"
    assert said[6:9] == ["VIM-401", "image not found: absent.png", "check the path"]
    digits = {0: "zero", 3: "three", 7: "seven"}
    assert said[9:12] == [f"tests/data/digits/{n}.png {name}" for n, name in digits.items()]
    assert said[12:] == ["['zero', 'seven']", "InputNotFoundError VIM-401"]
