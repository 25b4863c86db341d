"""Folders of this user: where what costs time to make is kept between runs."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from vim_deploy.errors import VimDeployError


def user_cache() -> Path:
    """``vim-deploy`` in the user's cache folder; it need not exist.

    ``XDG_CACHE_HOME``, else ``~/.cache``. A user without a home, as containers have them with
    ``--user``, gets a folder below the temporary one, with the user's number in its name. Libraries
    are loaded from here, so there it must be this user's own and nobody else's to write.

    Raises:
        VimDeployError: VIM-304 when somebody else has made that folder, VIM-313 when there is no
            place for temporary files either.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "vim-deploy"
    try:
        home = Path.home()
    except RuntimeError:
        return _below_temporary()
    # The home of a user who has none is the root folder, or a place that is not there.
    if home == Path(home.anchor) or not home.is_dir():
        return _below_temporary()
    return home / ".cache" / "vim-deploy"


def temporary_place() -> Path:
    """The folder for temporary files; VIM-313 when none of the usual ones can be written."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise no_temporary_place(error) from error


def no_temporary_place(error: FileNotFoundError) -> VimDeployError:
    """VIM-313 for what ``tempfile`` raises when it finds no folder."""
    return VimDeployError(
        "VIM-313",
        "no place for temporary files",
        why=error.strerror or str(error),
        fix="set TMPDIR to a folder that this user may write",
    )


def _below_temporary() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = temporary_place() / f"vim-deploy-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise _not_ours(folder, error.strerror or str(error)) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o022:
        raise _not_ours(folder, "it is not a folder that only this user may write")
    return folder


def _not_ours(folder: Path, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-304",
        f"no cache folder: {folder} cannot be used",
        why=f"{why}; this user has no home folder",
        fix="set XDG_CACHE_HOME to a folder of this user's",
    )
