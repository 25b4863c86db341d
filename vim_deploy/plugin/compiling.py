"""What every build of a library has in common: its sources' hash, its tools, where it goes."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from vim_deploy.errors import VimDeployError
from vim_deploy.files import atomic_output, output_errors, sha256_of
from vim_deploy.helpers import kill_helper


def hash_files(sources: Path, files: Iterable[Path]) -> str:
    """Hex SHA-256 over names below ``sources`` and contents of files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(sources).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def compiler_program(words: Sequence[str], folder: Path) -> Path:
    """One program that compiles as ``words`` do, made in ``folder`` where there are arguments.

    CMake takes a launcher apart in other ways from release to release, and nvcc takes one file.

    Raises:
        VimDeployError: VIM-304, VIM-305 of the folder.
    """
    if len(words) == 1:
        return Path(words[0])
    # Tools that look at a compiler's name for its kind find the one that is meant.
    programs = [word for word in words if not word.startswith("-") and shutil.which(word)]
    script = folder / Path((programs or words)[-1]).name
    with output_errors(script):
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return script


def run_tool(command: list[str], failure: str, fix: str) -> None:
    """Run CMake or what it starts; VIM-605 with the telling lines when it fails."""
    try:
        # In a session of its own, to be ended with all that it has started: compilers run for
        # minutes, and would go on in a folder that is gone.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise VimDeployError("VIM-605", failure, why=str(error), fix=fix) from error
    with process:
        try:
            said = "".join(process.communicate())
        except BaseException:
            kill_helper(process)
            raise
    if process.returncode != 0:
        raise VimDeployError(
            "VIM-605",
            failure,
            why=_telling_lines(said),
            fix=fix,
        )


def _telling_lines(text: str, most: int = 12) -> str:
    """The lines of a build log that speak of errors, or its end."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror\b|fatal|Error at", line)]
    return "\n".join(errors[:most] or lines[-most:])


def deliver(library: Path, output: Path, force: bool) -> Path:
    """Copy to a file or into a folder; the file. VIM-204 for another one that is there."""
    target = output / library.name if output.is_dir() else output
    if target.is_file() and sha256_of(target) == sha256_of(library):
        return target
    if target.exists() and not force:
        raise VimDeployError(
            "VIM-204",
            f"{target} exists and is another file",
            why="it differs from the library built now",
            fix="add --force to replace it, or choose another output with -o",
        )
    copy_whole(library, target)
    return target


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file, all of it or nothing."""
    with atomic_output(target) as temporary:
        shutil.copyfile(source, temporary)
