"""Files on disk: hashes, atomic writes, one writer at a time.

Every output of the tool goes through ``atomic_output``: a reader sees the old file or the whole
new one, and a killed process leaves at most a hidden temporary file that the next run removes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vim_deploy import interrupts
from vim_deploy.errors import OtherWriterError, VimDeployError
from vim_deploy.text import json_text

_CHUNK = 1 << 20
_UMASK = threading.Lock()
#: Between two looks at a lock that another has.
_TURN_SECONDS = 0.2


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class Sighting:
    """A file as it was at one moment, to notice that another one has taken its place.

    A hash of a path and what is read from it later belong together only while nobody replaces the
    file; a rename gives the path another inode, and writing changes time or size.
    """

    path: Path
    identity: tuple[int, int, int, int] | None

    def require_unchanged(self) -> None:
        """VIM-439 when the path leads to another file, or the file was written meanwhile."""
        if _identity(self.path) != self.identity:
            raise changed(self.path)

    def sha256(self) -> str:
        """Hex SHA-256 of the file as it was seen; VIM-439 when it is another one by now."""
        digest = sha256_of(self.path)
        self.require_unchanged()
        return digest


def changed(path: Path) -> VimDeployError:
    """VIM-439 for a file that another took the place of while it was read."""
    return VimDeployError(
        "VIM-439",
        f"{path} was changed while it was read",
        why="what was read and its SHA-256 may belong to two different files",
        fix="run the command again when nobody writes the file any more",
    )


def sight(path: Path) -> Sighting:
    """``path`` as it is now, before it is read; that it cannot be read is for its reader to say."""
    return Sighting(path, _identity(path))


def _identity(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a JSON-able mapping, independent of key order."""
    text = json_text(settings, compact=True)
    return hashlib.sha256(text.encode()).hexdigest()


def require_file(path: Path, what: str) -> Path:
    """``path`` if it is a regular file that this user may read; VIM-401 otherwise."""
    try:
        # Without waiting for the other end of a pipe.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            kind = os.fstat(handle).st_mode
        finally:
            os.close(handle)
    except FileNotFoundError:
        found = "there is no such file"
    except (OSError, ValueError) as error:
        # ValueError: a NUL character, which no path has.
        found = getattr(error, "strerror", None) or str(error)
    else:
        if stat.S_ISREG(kind):
            return path
        found = "it is a folder" if stat.S_ISDIR(kind) else "it is not a regular file"
    raise VimDeployError("VIM-401", f"{what} not found: {path}", why=found, fix="check the path")


def output_error(error: OSError | ValueError, path: Path, option: str = "-o") -> VimDeployError:
    """The coded error for what kept ``path`` from being written: VIM-304 or VIM-305.

    ``option`` is the one that names another place.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return VimDeployError(
            "VIM-305",
            f"no space left while writing {path}",
            why=str(error),
            fix=f"free some space or choose another place with {option}; nothing was changed",
        )
    return VimDeployError(
        "VIM-304",
        f"cannot write {path}",
        why=getattr(error, "strerror", None) or str(error),
        fix=f"choose a folder that exists and is writable with {option}",
    )


@contextlib.contextmanager
def output_errors(path: Path, option: str = "-o") -> Iterator[None]:
    """Turn an ``OSError`` met while writing ``path`` into VIM-304 or VIM-305."""
    try:
        yield
    except OSError as error:
        raise output_error(error, path, option) from error


def prepare_folder(folder: Path, option: str) -> None:
    """Make ``folder`` where it is not there, and see that files can be made in it.

    For outputs that come after minutes of work. ``option`` names another folder.

    Raises:
        VimDeployError: VIM-304, VIM-305.
    """
    with output_errors(folder, option):
        folder.mkdir(parents=True, exist_ok=True)
    require_writable_folder(folder, option)


def require_writable_folder(folder: Path, option: str = "-o") -> None:
    """See that files can be made in ``folder``, before minutes are spent on one.

    Raises:
        VimDeployError: VIM-304 (missing, or not to be written), VIM-305.
    """
    with (
        output_errors(folder, option),
        tempfile.TemporaryFile(dir=folder, prefix=".vim-deploy-"),
    ):
        pass


def kind_of(path: Path) -> int | None:
    """``stat.S_IFMT`` of what an output would replace, links followed; None when nothing is there.

    Raises:
        VimDeployError: VIM-304 when the path cannot be one: too long, through a file, a loop of
            links, a folder that may not be entered.
    """
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise output_error(error, path) from error


def _lock_exclusively(stream: IO[bytes]) -> None:
    if os.name == "nt":  # pragma: no cover - not run on the machines that test this
        import msvcrt

        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def single_writer(path: Path) -> Iterator[None]:
    """Hold the right to write ``path``; VIM-306 when another process holds it.

    The lock belongs to the process, so a killed one leaves no stale lock behind.
    """
    require_writable_place(path)
    lock_path = path.parent / f".{path.name}.lock"
    with lock_held(lock_path, path):
        yield


@contextlib.contextmanager
def lock_held(lock_path: Path, path: Path) -> Iterator[None]:
    """Have the lock for the block, and remove its file at the end; VIM-306 when another has it."""
    stream = None
    try:
        # An interrupt between the file's making and this block's would leave it behind.
        with interrupts.deferred():
            stream = locked(lock_path, path)
        with interrupts.scratch(lock_path):
            yield
    finally:
        if stream is not None:
            lock_path.unlink(missing_ok=True)
            stream.close()


@contextlib.contextmanager
def lock_in_turn(lock_path: Path, path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """As ``lock_held``, after whoever has the lock now; ``waiting`` is called before a wait.

    By looking again and again: a wait within ``flock`` could not be interrupted here.
    """
    with contextlib.ExitStack() as stack:
        told = False
        while True:
            try:
                stack.enter_context(lock_held(lock_path, path))
                break
            except OtherWriterError:
                if not told:
                    waiting()
                told = True
            time.sleep(_TURN_SECONDS)
        yield


def require_writable_place(path: Path) -> None:
    """VIM-304 for an output that is a folder or a device, which a rename would replace."""
    kind = kind_of(path)
    if kind not in (None, stat.S_IFREG):
        raise VimDeployError(
            "VIM-304",
            f"cannot write {path}",
            why="it is a folder" if kind == stat.S_IFDIR else "it is not a regular file",
            fix="name a file with -o",
        )


def _open_lock(lock_path: Path, path: Path) -> IO[bytes]:
    """The lock file, made where there is none: never through a link, never emptied.

    By hand, though filelock locks files: it leaves its file behind, takes hard links, and where the
    file system has no locks it makes one of its own, which a killed process holds for ever.

    Whoever may write the folder may have put something else there under that name.
    """
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(lock_path, flags, 0o600)
    except OSError as error:
        # Where there is a lock that we may not open, another user's killed run has left it.
        others = error.errno == errno.EACCES and os.path.lexists(lock_path)
        if not others and error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise output_error(error, path) from error
    else:
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
            if os.name == "posix" and found.st_uid == os.geteuid():
                # A mask may have taken the owner's rights, and a killed process leaves the file.
                os.fchmod(handle, 0o600)
            return os.fdopen(handle, "r+b")
        os.close(handle)
    raise VimDeployError(
        "VIM-304",
        f"cannot write {path}",
        why=f"the place of its lock, {lock_path}, is taken by something that is no plain file, or "
        "is another user's",
        fix=f"look at {lock_path} and remove it, or choose another output with -o",
    )


def locked(lock_path: Path, path: Path) -> IO[bytes]:
    """The open lock file, locked; VIM-306 when another process has it."""
    while True:
        stream = _open_lock(lock_path, path)
        try:
            _lock_exclusively(stream)
        except OSError as error:
            stream.close()
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
                if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
                    # A file system without locks: nobody else can hold one, so the file goes.
                    with contextlib.suppress(OSError):
                        lock_path.unlink()
                raise output_error(error, path) from error
            raise VimDeployError(
                "VIM-306",
                f"another process or thread is writing {path}",
                fix="wait for it, or choose another output with -o",
            ) from error
        # The holder before us may have removed the file that we opened: then our lock is on a file
        # that nobody else will find.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), lock_path.stat()):
                return stream
        stream.close()


@contextlib.contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; put it in place when the block ends well.

    Raises:
        VimDeployError: VIM-304 (folder missing or read-only), VIM-305 (disk full).
    """
    require_writable_place(path)
    temporary = None
    try:
        with interrupts.deferred(), output_errors(path):
            handle, name = tempfile.mkstemp(
                prefix=f".{path.name}.", suffix=".part", dir=path.parent
            )
            temporary = Path(name)
            os.close(handle)
        with interrupts.scratch(temporary):
            yield temporary
            with output_errors(path):
                # mkstemp makes 0600; an output is as readable as any file the user makes.
                umask = current_umask()
                with temporary.open("r+b") as stream:
                    os.fsync(stream.fileno())
                # Last: the mask may take every right, the owner's included.
                temporary.chmod(0o666 & ~umask)
                interrupts.check()
                temporary.replace(path)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def current_umask() -> int:
    """The rights that the user keeps from new files; it can be read only by setting it.

    By one thread at a time: another would find the value that is there meanwhile, and leave it.
    """
    with _UMASK:
        umask = os.umask(0o077)
        os.umask(umask)
    return umask


def is_part(entry: Path, path: Path) -> bool:
    """Whether ``entry`` has the name of something temporary that is made for ``path``."""
    return re.fullmatch(re.escape(f".{path.name}.") + r"[a-z0-9_]{8}\.part", entry.name) is not None


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of ``path`` that a killed run left; call it under its lock."""
    with output_errors(path):
        for entry in path.parent.iterdir():
            # A folder of such a name is none of ours and in nobody's way.
            if is_part(entry, path) and (entry.is_symlink() or not entry.is_dir()):
                entry.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_output(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as indented JSON, atomically, with a final newline."""
    write_bytes(path, (json_text(value) + "\n").encode())
