"""Processes of our own: started from this very package, watched while they work.

What may crash, leak or take the memory of the command line runs in a process of its own. Such a
process imports nothing from the folder the user works in, where a ``numpy.py`` or another
``vim_deploy`` may lie; and one that can neither speak nor work is noticed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import vim_deploy
from vim_deploy.errors import VimDeployError

#: Seconds in which a helper says nothing and gets no processor time before it is given up. Whatever
#: works, waits for a disk or polls a GPU gets at least a hundredth of a second in a minute, also on
#: a machine that many others use.
STALL_SECONDS = 60.0
#: The same under a limit of address space (ulimit -v): libraries that are refused memory wait for
#: each other rather than for a disk.
LIMITED_STALL_SECONDS = 10.0
#: Seconds between two looks at the processor time.
_LOOK_SECONDS = 2.0

#: Variables that may name a file from the folder the user works in.
_FILE_VARIABLES = ("VIM_DEPLOY_ORT_OPS", "VIM_DEPLOY_PLUGIN", "VIM_DEPLOY_PLUGIN_SOURCES")

_PACKAGE = Path(vim_deploy.__file__).resolve().parent
#: ``-c`` and ``-m`` put the working folder before everything else that is imported, and older
#: Pythons have no option against it. Nothing is imported before it is taken away; the package is
#: then loaded from where it lies, so that its place need not be on the path either.
_BOOTSTRAP = """\
import sys
sys.path[:] = [entry for entry in sys.path if entry]
from importlib import util
package, module = sys.argv[1:3]
spec = util.spec_from_file_location(
    "vim_deploy", package + "/__init__.py", submodule_search_locations=[package])
sys.modules["vim_deploy"] = found = util.module_from_spec(spec)
spec.loader.exec_module(found)
sys.argv[:] = sys.argv[2:]
import runpy
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def helper_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs ``module`` of this package as a program."""
    return [sys.executable, "-c", _BOOTSTRAP, str(_PACKAGE), module, *arguments]


def start_helper(command: Sequence[str], stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a helper that is spoken to through pipes.

    It has a session of its own: Ctrl-C in a terminal reaches this process alone, which ends it.

    Raises:
        VimDeployError: VIM-311 when the system has no memory or process left for it.
        OSError: anything else that keeps it from starting.
    """
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            # The user's may be gone, or not to be entered.
            cwd=_PACKAGE.parent,
            env=_environment(),
            start_new_session=True,
        )
    except BlockingIOError as error:
        raise VimDeployError(
            "VIM-311",
            "no process can be started",
            why=error.strerror or str(error),
            fix="end other processes of this user, or raise the limit (ulimit -u)",
        ) from error


def _environment() -> dict[str, str]:
    """This process's, with paths as they are meant here: a helper has another working folder.

    An empty place in PYTHONPATH means the folder the user works in, and is left out.
    """
    environment = dict(os.environ)
    try:
        here = os.getcwd()
    except OSError:
        # It is gone, and with it every place that is named from there.
        here = ""
    for name in _FILE_VARIABLES:
        if environment.get(name):
            environment[name] = os.path.join(here, environment[name])
    places = environment.pop("PYTHONPATH", "").split(os.pathsep)
    kept = [os.path.join(here, place) for place in places if place]
    if kept := [place for place in kept if os.path.isabs(place)]:
        environment["PYTHONPATH"] = os.pathsep.join(kept)
    return environment


def kill_helper(process: subprocess.Popen[Any]) -> None:
    """End a helper and everything it has started; safe on one that has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:  # pragma: no cover - Linux is what is tested
            process.kill()
    process.wait()


class StallWatch:
    """Notices that a helper has neither spoken nor worked for ``STALL_SECONDS``.

    Where the system does not tell what time its processes use, nothing is ever found stalled.
    """

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        self._process = process
        self._used = -1.0
        self._since = self._looked = time.monotonic()
        self._patience = min(STALL_SECONDS, LIMITED_STALL_SECONDS) if _limited() else STALL_SECONDS

    def spoke(self) -> None:
        """The helper has said something."""
        self._since = time.monotonic()

    def require_life(self, said: Sequence[str]) -> None:
        """VIM-310, with the helper ended, when it has stalled; call this a few times a second.

        Args:
            said: the last lines of its standard error.
        """
        now = time.monotonic()
        if now - self._looked < min(_LOOK_SECONDS, self._patience / 4):
            return
        self._looked = now
        used = session_seconds(self._process.pid)
        # It also falls: the time of a process that has ended is no longer counted.
        if used is None or used != self._used:
            self._used, self._since = used or 0.0, now
        if now - self._since > self._patience and self._process.poll() is None:
            kill_helper(self._process)
            raise VimDeployError(
                "VIM-310",
                f"a helper process did nothing for {self._patience:.0f} s and was ended",
                why="\n".join(said)
                or "it said nothing; it may have been refused memory or a thread",
                fix="run it again with more memory and threads (ulimit -v, ulimit -u)",
            )


def _limited() -> bool:
    """Whether this process, and so its helpers, may not have all the address space they ask for."""
    if os.name != "posix":
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def session_seconds(leader: int) -> float | None:
    """Processor time of all processes in the session of ``leader``; None where nobody knows.

    Fields 6, 14 and 15 of ``/proc/PID/stat``, proc_pid_stat(5), in clock ticks.
    """
    ticks, found = 0, False
    try:
        names = os.listdir("/proc")
    except OSError:
        return None
    for name in names:
        if not name.isdecimal():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[3]) == leader:
                ticks += int(fields[11]) + int(fields[12])
                found = True
    return ticks / os.sysconf("SC_CLK_TCK") if found else None
