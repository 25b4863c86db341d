"""Failures of the machine that no stage expected: said with a code, and not as a defect.

Readers and writers turn what they can meet into coded errors that know the file and the remedy.
What is left comes from anywhere: a disk that fills while a library keeps a cache, a folder that
another user has closed, memory or threads that are not to be had.
"""

from __future__ import annotations

import errno

from vim_deploy.errors import VimDeployError, says_no_memory
from vim_deploy.folders import no_temporary_place

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


def of_the_machine(error: Exception) -> VimDeployError | None:
    """The coded error for a failure of the machine; None when it is none."""
    if isinstance(error, OSError):
        return _of_system(error)
    if says_no_memory(error):
        return no_memory(f"{type(error).__name__}: {error}".strip().splitlines()[0])
    return None


def no_memory(why: str) -> VimDeployError:
    """VIM-311 for a process that was refused memory or a thread."""
    return VimDeployError(
        "VIM-311",
        "not enough memory, or no more threads",
        why=why,
        fix="give the process more (ulimit -v, ulimit -u, the container's limit), or ask for less: "
        "a smaller batch, image or model",
    )


def _of_system(error: OSError) -> VimDeployError:
    place = f": {error.filename}" if error.filename is not None else ""
    if isinstance(error, FileNotFoundError) and "usable temporary directory" in str(error):
        return no_temporary_place(error)
    said = error.strerror or str(error) or type(error).__name__
    if error.errno in _FULL:
        return VimDeployError(
            "VIM-305",
            f"no space left{place}",
            why=said,
            fix="free some space; outputs are written whole or not at all",
        )
    if error.errno == errno.ENOMEM:
        return VimDeployError(
            "VIM-311", f"not enough memory{place}", why=said, fix="give the process more memory"
        )
    return VimDeployError(
        "VIM-312",
        f"the system refused an operation{place}",
        why=said,
        fix="raise the limit of open files (ulimit -n)"
        if error.errno in _TOO_MANY
        else "check that the place exists and that this user may read and write it",
    )
