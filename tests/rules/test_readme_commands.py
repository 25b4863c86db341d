"""The README's commands run, in order, in one folder, on the toy checkpoint.

Commands stand in ``console`` blocks on lines that begin with ``$ vim-deploy``. A block that cannot
run everywhere has a comment before it that says why: ``<!-- not run: needs the network -->``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builds import RTX_IS_INSTALLED
from tests.support.markdown import PROGRAM, Block, blocks, console_commands
from tests.support.source import REPOSITORY

README = REPOSITORY / "README.md"
#: Commands that need TensorRT-RTX, an optional package.
NEED_RTX = ("build-engine", "deploy")
#: Seconds; an engine build for the toy takes a few.
TIMEOUT = 240


def readme_blocks() -> list[Block]:
    """The README's ``console`` blocks."""
    return [block for block in blocks(README) if block.language == "console"]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one command line as the installed program would."""
    variables = {name: v for name, v in os.environ.items() if not name.startswith("VIM_DEPLOY_")}
    variables["PYTHONPATH"] = str(REPOSITORY)
    return subprocess.run(
        [sys.executable, "-m", "vim_deploy", *words[1:]],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """An empty folder in which the repository's own paths can be named."""
    for name in ("tests", "export", "examples", "docs"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.rtx
def test_readme_commands_run(checkout: Path) -> None:
    ran, left_out = [], []
    for block in readme_blocks():
        if block.not_run:
            continue
        for words in console_commands(block):
            line = f"README.md:{block.first_line}: {' '.join(words)}"
            assert words[0] == PROGRAM, f"{line}: only {PROGRAM} runs; else say why it is not run"
            if words[1] in NEED_RTX and not RTX_IS_INSTALLED:
                left_out.append(line)
                continue
            done = run(words, checkout)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            ran.append(words[1])
    assert {"export", "verify", "inspect"} <= set(ran)
    if left_out:
        pytest.skip("not run, tensorrt-rtx-cu13 is not installed: " + "; ".join(left_out))


def test_blocks_that_are_not_run_say_why_and_hold_commands() -> None:
    for block in readme_blocks():
        assert console_commands(block), f"README.md:{block.first_line} holds no command"
        if block.not_run:
            assert len(block.not_run.split()) > 1, f"README.md:{block.first_line}: no reason"


def test_a_failing_command_is_noticed(tmp_path: Path) -> None:
    done = run([PROGRAM, "export", "missing.pth", "-o", "m.onnx"], tmp_path)
    assert done.returncode == 4
    assert "VIM-401" in done.stderr
    assert list(tmp_path.iterdir()) == []
