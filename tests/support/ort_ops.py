"""The library of native ops for ONNX Runtime, built from this checkout's sources.

It is compiled once for a state of the sources and kept in pytest's cache folder; tests skip with the
reason where a machine has no C++ compiler or no CMake.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.source import REPOSITORY

PLUGINS = REPOSITORY / "plugins"
CACHE = REPOSITORY / ".pytest_cache" / "d" / "vim-ort-cpu"

#: Folders under ``plugins`` that the library is made of, and the suffixes of what counts there.
_FOLDERS = ("adapters", "cpu", "cpu/kernels", "include/vim_plugins", "kernels", "onnxruntime")
_FOLDERS += ("onnxruntime/cmake",)
_SUFFIXES = (".cpp", ".h", ".txt", ".cmake", ".map")


def missing_tools() -> str | None:
    """What a machine lacks to build the library, or None."""
    if compiler() is None:
        return "no C++ compiler: g++ and clang++ are not on PATH, and CXX is not set"
    return None if shutil.which("cmake") else "cmake is not on PATH"


def compiler() -> str | None:
    """The C++ compiler: ``CXX``, g++ or clang++."""
    wanted = os.environ.get("CXX")
    return wanted or shutil.which("g++") or shutil.which("clang++")


def sources() -> list[Path]:
    """Every file that the build reads, in one order."""
    folders = [PLUGINS / folder for folder in _FOLDERS]
    return sorted(path for f in folders for path in f.iterdir() if path.suffix in _SUFFIXES)


@functools.cache
def built_library() -> Path:
    """``libvim_ort_cpu.so``; skips the test where it cannot be built."""
    reason = missing_tools()
    if reason is not None:
        pytest.skip(reason)
    state = hashlib.sha256(str(compiler()).encode())
    for path in sources():
        state.update(path.read_bytes())
    folder = CACHE / state.hexdigest()[:16]
    library = folder / "libvim_ort_cpu.so"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            for old in CACHE.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            folder.mkdir()
            _build(folder)
    return library


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="vim-ort-cpu-") as build:
        _run("cmake", "-S", str(PLUGINS / "cpu"), "-B", build, f"-DCMAKE_CXX_COMPILER={compiler()}")
        _run("cmake", "--build", build, "--parallel", "2")
        # Renamed into place, so that a build that is broken off leaves nothing.
        shutil.copy2(Path(build) / "libvim_ort_cpu.so", folder / "unfinished")
        (folder / "unfinished").rename(folder / "libvim_ort_cpu.so")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
