"""The cache of built libraries: each is compiled once, by one process, and kept for all.

A library has a folder of its own, named by the hash of sources, tools and settings, with the note
of what it was made of beside it. Whoever writes there has the lock beside that folder, so what lies
in a folder whose lock is free was left by a killed build.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from vim_deploy import interrupts
from vim_deploy.errors import NoSpaceError, OtherWriterError, OutputLocationError, VimDeployError
from vim_deploy.files import lock_held, lock_in_turn, output_errors, settings_hash, write_json
from vim_deploy.plugin.describe import cache_folder

#: Beside a library in the cache: what it was made of.
KEY_FILE = "build.json"
#: Names in the cache: the folder of a library, and the lock beside it.
_HOME_OR_LOCK = re.compile(r"\.?([0-9a-f]{16})(?:\.lock)?")

Info = TypeVar("Info")
#: Told what is done, line by line.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Compiled(Generic[Info]):
    """A library in the cache.

    Attributes:
        library: the file.
        info: what it says of itself.
        seconds: that it took to build; None when it was there, or another process was at it.
    """

    library: Path
    info: Info
    seconds: float | None


def compiled_once(
    name: str,
    key: Mapping[str, Any],
    build: Callable[[Path], None],
    describe: Callable[[Path], Info],
    say: Say,
) -> Compiled[Info]:
    """The library of that key, from the cache where it is there and of use, else built into it.

    Where another process or thread builds it, this one waits, and takes what that has made.

    Args:
        name: of the file.
        key: everything that decides what the library becomes.
        build: makes the file at the path it is given.
        describe: what the library at a path is; its errors mean that it is of no use here.
        say: told of a wait, of a library that cannot be used, and of what cannot be cleared away.

    Raises:
        VimDeployError: VIM-304, VIM-305 of the cache; what ``build`` raises, and ``describe`` of
            what was built.
    """
    home = cache_folder() / settings_hash(key)[:16]
    library = home / name
    info, _ = _kept(library, describe)
    if info is not None:
        return Compiled(library, info, None)
    with _cache_errors(), contextlib.ExitStack() as stack:
        with output_errors(home):
            home.parent.mkdir(parents=True, exist_ok=True)
        waiting = f"another process or thread is building {library}; waiting for it"
        stack.enter_context(lock_in_turn(_lock_of(home), library, lambda: say(waiting)))
        info, unfit = _kept(library, describe)
        if info is not None:
            return Compiled(library, info, None)
        if unfit:
            say(f"{library} is there and cannot be used: {unfit}; building it again")
        started = time.monotonic()
        _clear(home, say)
        _build_anew(library, key, build)
        return Compiled(library, describe(library), time.monotonic() - started)


def _kept(library: Path, describe: Callable[[Path], Info]) -> tuple[Info | None, str]:
    """What a library in the cache says of itself, or why it is of no use.

    It may be damaged, or made where the C library is newer.
    """
    if not library.is_file():
        return None, ""
    try:
        return describe(library), ""
    except VimDeployError as error:
        return None, error.why
    except FileNotFoundError:
        # Another process replaces it at this moment.
        return None, ""


def _build_anew(library: Path, key: Mapping[str, Any], build: Callable[[Path], None]) -> None:
    """Fill the library's folder; when that fails there is none, or what was there."""
    home = library.parent
    with output_errors(home):
        home.mkdir(exist_ok=True)
    try:
        # First: where there is a library, it is known what it was made of.
        write_json(home / KEY_FILE, key)
        build(library)
    except BaseException:
        if not library.is_file():
            shutil.rmtree(home, ignore_errors=True)
        raise


@contextlib.contextmanager
def build_folder(library: Path) -> Iterator[Path]:
    """An empty folder for the files that become ``library``, beside it; it goes with the block."""
    with output_errors(library):
        made = tempfile.TemporaryDirectory(prefix="build-", dir=library.parent)
    folder = Path(made.name)
    with made, interrupts.scratch(folder):
        yield folder


def _lock_of(home: Path) -> Path:
    """Beside the folder, which may go while somebody waits."""
    return home.with_name(f".{home.name}.lock")


def _clear(mine: Path, say: Say) -> None:
    """Remove what killed builds have left, in ``mine``, whose lock is ours, and elsewhere."""
    with output_errors(mine.parent):
        found = [_HOME_OR_LOCK.fullmatch(entry.name) for entry in mine.parent.iterdir()]
    for home in (mine.with_name(name) for name in sorted({match[1] for match in found if match})):
        try:
            if home == mine:
                _remove_leftovers(home)
            # The lock's file, too, goes with a build, so that one that is there is held or left.
            elif os.path.lexists(_lock_of(home)) or _leftovers(home):
                with lock_held(_lock_of(home), home):
                    _remove_leftovers(home)
        except OtherWriterError:
            # A build that goes on.
            continue
        except (OSError, OutputLocationError) as error:
            # Compilers of a build that was killed may write there yet; the next one looks again.
            say(f"{home}: what a killed build left there was not removed: {error}")


def _leftovers(home: Path) -> list[Path]:
    """What is no finished build: all but a library and its note, or the folder itself."""
    if not home.is_dir():
        return []
    entries = list(home.iterdir())
    if not any(entry.match("lib*.so") for entry in entries):
        return [home]
    return [entry for entry in entries if entry.name != KEY_FILE and not entry.match("lib*.so")]


def _remove_leftovers(home: Path) -> None:
    for entry in _leftovers(home):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


@contextlib.contextmanager
def _cache_errors() -> Iterator[None]:
    """Say of a place that cannot be written how the cache gets another."""
    try:
        yield
    except (OutputLocationError, NoSpaceError) as error:
        raise VimDeployError(
            error.code,
            error.message,
            why=error.why,
            fix="free some space there, or set XDG_CACHE_HOME to a folder that can be written",
        ) from error
