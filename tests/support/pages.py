"""Running the commands of the documents' pages as a reader does, in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import traces
from tests.support.markdown import PROGRAM, Block, Command, blocks, commands

#: Where pages put what they make.
WORK = "work"
#: Seconds; an engine build for the toy takes a few.
TIMEOUT = 240


def code_of(page: Path) -> list[Block]:
    """A page's blocks of commands and Python."""
    return [block for block in blocks(page) if block.language in ("console", "python")]


def shown_files(page: Path) -> dict[str, str]:
    """Files that a page shows whole, each in a block below a line that ends in its name: texts."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found = {}
    for block in blocks(page):
        if match := re.search(rf"`({WORK}/[^`]+)`:$", lines[max(block.first_line - 3, 0)]):
            found[match[1]] = "\n".join(block.lines) + "\n"
    return found


def install(folder: Path) -> None:
    """Put the programs of this Python beside ``folder``, as an installation makes them."""
    programs = {PROGRAM: "-m vim_deploy ", "python": ""}
    for name, module in programs.items():
        program = folder.parent / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n', "utf-8")
        program.chmod(0o755)


def run(
    command: Sequence[str],
    folder: Path,
    shared: Path,
    timeout: float = TIMEOUT,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """Run one command in ``folder``, where ``install`` was; both streams come as one.

    Args:
        command: what is started.
        folder: the working folder.
        shared: the folder of this run's traces.
        timeout: in seconds.
        more: environment variables.
    """
    return subprocess.run(
        command,
        cwd=folder,
        env={**variables(folder, shared), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def variables(folder: Path, shared: Path) -> Mapping[str, str]:
    """The environment of a reader in ``folder``: its programs, and none of our variables."""
    found = {name: v for name, v in os.environ.items() if not name.startswith("VIM_DEPLOY_")}
    found |= traces.variables(shared)
    found["PATH"] = f"{folder.parent / 'bin'}:{found['PATH']}"
    return found


def steps(block: Block) -> list[tuple[list[str], Command]]:
    """What is started for a block, and the command as the page has it."""
    if block.language == "python":
        text = "\n".join(block.lines)
        return [([sys.executable, "-c", text], Command(text))]
    return [(["bash", "-c", command.text], command) for command in commands(block)]


def not_answered(said: Sequence[str], answer: str) -> list[str]:
    """Lines of a page that a command does not answer, in their order."""
    lines = iter([" ".join(line.split()) for line in answer.splitlines()])
    missing = []
    for line in said:
        parts = [re.escape(part) for part in " ".join(line.split()).split("...")]
        if line.strip() != "..." and not any(re.fullmatch(".*".join(parts), x) for x in lines):
            missing.append(line)
    return missing
