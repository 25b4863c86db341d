"""Whether a plugin library loads as Triton's TensorRT backend loads it: ``dlopen``, nothing else.

Run as a program in a fresh process, ``python -m vim_deploy.package.plugin_probe LIBRARY OP...``:
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

from vim_deploy.deps import trt
from vim_deploy.engine.plugin_loading import is_registered
from vim_deploy.errors import VimDeployError
from vim_deploy.helpers import helper_command

_TIMEOUT_S = 120.0
#: This file as a program; ``__name__`` is another there.
_MODULE = "vim_deploy.package.plugin_probe"


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
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(path, f"loading it took more than {_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise _refused(path, f"the process that loaded it ended with {done.returncode}: {last}")
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise _refused(path, f"the process that loaded it printed {done.stdout[:80]!r}") from error
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
    print(json.dumps(probe(Path(sys.argv[1]), tuple(sys.argv[2:]))))
