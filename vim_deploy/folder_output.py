"""Folders as outputs: whole or not at all, and nothing that somebody else put there is lost.

A folder cannot be renamed over one that holds something, so the old one is first moved to a hidden
name beside it. There it is looked at once more: what was made in it since it was allowed to go is
not lost either, the old folder is then put back. Only files that its owner names are removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from vim_deploy import interrupts
from vim_deploy.errors import VimDeployError
from vim_deploy.files import current_umask, is_part, kind_of, lock_held, output_error, output_errors

#: Name of the old folder within the hidden one.
_OLD = "old"

#: Paths, relative to a folder, of the files that go with it; raises VimDeployError where it holds
#: anything else.
MayGo = Callable[[Path], Collection[str]]


def only_empty(folder: Path) -> Collection[str]:
    """The answer of who owns no folder: one with something in it stays. VIM-304 for that."""
    if any(folder.iterdir()):
        raise VimDeployError(
            "VIM-304",
            f"cannot write {folder}",
            why="it holds files",
            fix="name another folder with -o",
        )
    return ()


@contextlib.contextmanager
def atomic_folder(path: Path, may_go: MayGo = only_empty) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; put it in place when the block ends well.

    Args:
        path: where the folder goes.
        may_go: asked about the folder that is there, before and after it was moved aside.

    Raises:
        VimDeployError: VIM-304 (place missing or read-only, or something else than a folder is
            there), VIM-305 (disk full), VIM-306 (another process writes it), and of ``may_go``.
    """
    if kind_of(path) not in (None, stat.S_IFDIR) or path.is_symlink() or not path.name:
        raise VimDeployError(
            "VIM-304",
            f"cannot write {path}",
            why="it is not a folder that another can take the place of",
            fix="name another with -o",
        )
    lock_path = path.parent / f".{path.name}.lock"
    with lock_held(lock_path, path), _own_rights() as umask:
        with output_errors(path):
            _tidy(path, may_go)
            if path.exists():
                may_go(path)
        temporary = None
        try:
            with interrupts.deferred(), output_errors(path):
                temporary = _hidden(path)
            with interrupts.scratch(temporary):
                yield temporary
                _flush(temporary)
                # mkdtemp makes 0700; an output is as readable as any folder the user makes.
                temporary.chmod(0o777 & ~umask)
                interrupts.check()
            # Between the old folder's leaving and the new one's coming there is nothing there.
            with interrupts.deferred():
                _put_in_place(temporary, path, may_go)
        except OSError as error:
            raise output_error(error, path) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _own_rights() -> Iterator[int]:
    """Within the block files and folders are made that at least their owner can use and remove.

    Yields the mask that the user has set.

    The mask of new files belongs to the process; one that takes rights from the owner himself is
    rare enough that two threads do not meet here.
    """
    umask = current_umask()
    os.umask(umask & ~stat.S_IRWXU)
    try:
        yield umask
    finally:
        os.umask(umask)


def _hidden(path: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))


def _flush(folder: Path) -> None:
    """Bring a folder's files to the disk, before a name says that they are there."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def _put_in_place(temporary: Path, path: Path, may_go: MayGo) -> None:
    """Rename a folder to ``path``."""
    if not path.exists():
        temporary.rename(path)
        return
    aside = _hidden(path)
    try:
        path.rename(aside / _OLD)
    except OSError:
        aside.rmdir()
        raise
    try:
        names = may_go(aside / _OLD)
        temporary.rename(path)
    except BaseException:
        (aside / _OLD).rename(path)
        aside.rmdir()
        raise
    _discard(aside, names)


def _discard(aside: Path, names: Collection[str]) -> None:
    """Remove an old folder's own files, and the folders that are empty then.

    Whatever else appears there by now stays, under the hidden name.
    """
    old = aside / _OLD
    for name in names:
        # A link on the way leads to files that are not the folder's.
        parents = [old, *list((old / name).relative_to(old).parents)[:-1]]
        if not any((old / parent).is_symlink() for parent in parents):
            with contextlib.suppress(OSError):
                (old / name).unlink()
    for place, _, _ in os.walk(old, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(place)
    with contextlib.suppress(OSError):
        aside.rmdir()


def _tidy(path: Path, may_go: MayGo) -> None:
    """Take care of hidden folders that a killed run left; call it under the lock of ``path``.

    One killed between the two renames left the old folder aside: it comes back.
    """
    for entry in path.parent.iterdir():
        if not is_part(entry, path) or entry.is_symlink() or not entry.is_dir():
            continue
        old = entry / _OLD
        if old.is_symlink() or not old.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif not path.exists():
            old.rename(path)
            entry.rmdir()
        else:
            # Somebody's files: they stay where they are.
            with contextlib.suppress(VimDeployError):
                _discard(entry, may_go(old))
