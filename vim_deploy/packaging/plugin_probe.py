"""Whether a plugin library loads as Triton's TensorRT backend loads it: ``dlopen``, nothing else.

Run as a program in a fresh process, ``python -m vim_deploy.packaging.plugin_probe LIBRARY OP...``:
it opens the library with RTLD_NOW and RTLD_LOCAL after TensorRT, where that is installed, and
prints one JSON object: ``loaded``, ``tensorrt`` (its version, or why it is not there),
``registered`` and ``missing`` (ops, when TensorRT is there).
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.helpers import helper_command, kill_helper, start_helper
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.plugins import is_registered

_TIMEOUT_S = 120.0
#: This file as a program; ``__name__`` is another there.
_MODULE = "vim_deploy.packaging.plugin_probe"


def probe(path: Path, ops: tuple[str, ...]) -> dict[str, Any]:
    """Open the library in this process, as the backend would."""
    try:
        module = trt.load()
        version = str(module.__version__)
    except VimDeployError as error:
        module, version = None, error.message
    try:
        ctypes.CDLL(str(path.resolve()), mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        return {"loaded": False, "why": str(error), "tensorrt": version}
    found: dict[str, Any] = {"loaded": True, "why": "", "tensorrt": version, "registered": None}
    if module is not None:
        registered = [op for op in ops if is_registered(module, op)]
        found["registered"] = registered
        found["missing"] = [op for op in ops if op not in registered]
    return found


def probe_in_process(path: Path, ops: tuple[str, ...]) -> dict[str, Any]:
    """``probe`` in a fresh process.

    Raises:
        VimDeployError: VIM-903 when the library does not load, takes the process with it, or does
            not register its ops with a TensorRT that is there.
    """
    command = helper_command(_MODULE, str(path.resolve()), *ops)
    with start_helper(command, subprocess.PIPE) as process:
        try:
            out, err = process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise _refused(path, f"loading it took more than {_TIMEOUT_S:.0f} s") from error
        finally:
            # Also what the library has started, and when this process is interrupted.
            kill_helper(process)
    if process.returncode != 0:
        last = (err.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise _refused(path, f"the process that loaded it ended with {process.returncode}: {last}")
    try:
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        if not found.keys() >= {"loaded", "why", "tensorrt"}:
            raise ValueError("not what this module prints")
    except (ValueError, IndexError, AttributeError) as error:
        raise _refused(path, f"the process that loaded it printed {out[:80]!r}") from error
    if not found["loaded"]:
        raise _refused(path, found["why"])
    if found.get("missing"):
        raise _refused(
            path,
            f"TensorRT {found['tensorrt']} has no plugin for {', '.join(found['missing'])} after "
            "the library was opened",
        )
    return found


def _refused(path: Path, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-903",
        f"{path} does not load as Triton's TensorRT backend loads it",
        why=why,
        fix="build it for that TensorRT with vim-deploy plugin build, then package again",
    )


if __name__ == "__main__":
    said = json.dumps(probe(Path(sys.argv[1]), tuple(sys.argv[2:])))
    # What the library itself has printed waits in the C library's buffer, and comes first.
    ctypes.CDLL(None).fflush(None)
    print(said, flush=True)
    # Nothing comes behind it, not from the library's end either.
    os._exit(0)
