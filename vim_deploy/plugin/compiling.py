"""What every build of a library has in common: its cache, its tools' errors, where it goes.

A build is kept in the user's cache under the hash of sources, tools and settings, and made once.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.files import atomic_output, settings_hash, sha256_of, single_writer, write_json
from vim_deploy.helpers import kill_helper
from vim_deploy.plugin.describe import cache_folder

#: Beside a library in the cache: what it was made of.
KEY_FILE = "build.json"


def compiled_once(
    name: str, key: Mapping[str, Any], build: Callable[[Path], None]
) -> tuple[Path, float | None]:
    """The library of that key in the cache, and the seconds it took; None when it was there.

    Args:
        name: of the file.
        key: everything that decides what the library becomes.
        build: makes the file at the path it is given.

    Raises:
        VimDeployError: VIM-304, VIM-305, VIM-306 of the cache; what ``build`` raises.
    """
    home = cache_folder() / settings_hash(key)[:16]
    library = home / name
    if library.is_file():
        return library, None
    started = time.monotonic()
    make_folder(home)
    with single_writer(library):
        # First: where there is a library, it is known what it was made of.
        write_json(home / KEY_FILE, key)
        try:
            build(library)
        except BaseException:
            (home / KEY_FILE).unlink(missing_ok=True)
            raise
    return library, time.monotonic() - started


def hash_files(sources: Path, files: Iterable[Path]) -> str:
    """Hex SHA-256 over names below ``sources`` and contents of files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(sources).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def make_folder(folder: Path) -> None:
    """A folder of the user's cache; VIM-304 where none can be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VimDeployError(
            "VIM-304",
            f"cannot write {folder}",
            why=error.strerror or str(error),
            fix="set XDG_CACHE_HOME to a folder that can be written",
        ) from error


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
