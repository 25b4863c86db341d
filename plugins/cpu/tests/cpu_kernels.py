"""The CPU kernels for tests: their build by g++, and their C interface.

``CMakeLists.txt`` beside the kernels builds what ships; here the same sources are compiled with
other flags (sanitizers), for which the flags of each instruction set are said once more.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

PLUGINS = Path(__file__).resolve().parents[2]
KERNELS = PLUGINS / "cpu" / "kernels"
TESTS = PLUGINS / "cpu" / "tests"
sys.path.insert(0, str(PLUGINS / "tests" / "host"))

from kernel_library import PREFIXES, Params  # noqa: E402 - the same structs

WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror")
COMMON = ("-std=c++17", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
AVX2 = ("-mavx2", "-mfma", "-mf16c", "-mbmi2")
BY_SUFFIX = {
    "_avx512": (
        *AVX2,
        *("-mavx512f", "-mavx512dq", "-mavx512cd", "-mavx512bw", "-mavx512vl"),
        "-mprefer-vector-width=512",
    ),
    "_avx2": AVX2,
}


def missing_tools() -> str | None:
    """Why the kernels cannot be compiled here, or None."""
    return None if shutil.which("g++") else "g++ is not on PATH"


def kernel_sources() -> list[Path]:
    """Sources of the kernels that this processor's compiler takes."""
    sources = sorted(KERNELS.glob("*.cpp"))
    if platform.machine() in ("x86_64", "AMD64"):
        return sources
    return [path for path in sources if not path.stem.endswith(tuple(BY_SUFFIX))]


def flags_of(source: Path) -> tuple[str, ...]:
    """The instruction set a source is compiled for."""
    return next((f for end, f in BY_SUFFIX.items() if source.stem.endswith(end)), ())


def compile_objects(sources: Iterable[Path], folder: Path, flags: tuple[str, ...]) -> list[Path]:
    """Compile sources of this folder's kernels or tests one after another; their objects."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for source in sources:
        own = WARNINGS if source.is_relative_to(PLUGINS / "cpu") else ()
        output = folder / f"{source.name}.o"
        command = ["g++", *COMMON, *own, *flags, *flags_of(source), f"-I{PLUGINS / 'include'}"]
        subprocess.run([*command, "-c", str(source), "-o", str(output)], check=True)
        objects.append(output)
    return objects


def link(objects: Iterable[Path], output: Path, flags: Iterable[str] = ()) -> Path:
    """A program, or with ``-shared`` a library, of objects."""
    command = ["g++", *flags, "-pthread", "-o", str(output), *map(str, objects)]
    subprocess.run(command, check=True)
    return output


class CpuKernels:
    """The kernels of one loaded test library."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        for params, prefix in PREFIXES.items():
            self._function(params, "workspace_bytes").restype = ctypes.c_size_t
            size = self._function(params, "params_size")
            size.restype = ctypes.c_size_t
            if size() != ctypes.sizeof(params):
                raise RuntimeError(
                    f"{prefix}: library {size()} bytes, {ctypes.sizeof(params)} here"
                )
        for name in ("vim_cpu_instruction_set", "vim_cpu_instruction_sets"):
            getattr(self.c, name).restype = ctypes.c_char_p

    def _function(self, params: type[Params], name: str) -> ctypes._NamedFuncPointer:
        prefix = PREFIXES[params].replace("vim_", "vim_cpu_")
        return getattr(self.c, f"{prefix}_{name}")  # type: ignore[no-any-return]

    def instruction_set(self) -> str:
        """The one in use."""
        return bytes(self.c.vim_cpu_instruction_set()).decode()

    def compiled(self) -> list[str]:
        """The instruction sets compiled in, best first."""
        return bytes(self.c.vim_cpu_instruction_sets()).decode().split(",")

    def runnable(self) -> list[str]:
        """Those of them that this CPU runs."""
        return [name for name in self.compiled() if self.c.vim_cpu_runs(name.encode())]

    def run(self, params: Params, isa: str, threads: int = 1) -> None:
        """Compute an op; the workspace's end is checked."""
        count = self._function(type(params), "workspace_bytes")(ctypes.byref(params), threads)
        raw = np.full(count + 64 + 64, 0xFF, np.uint8)
        start = -raw.ctypes.data % 64
        status = self._function(type(params), "run")(
            isa.encode(),
            ctypes.byref(params),
            ctypes.c_void_p(raw.ctypes.data + start),
            threads,
        )
        if status != 0:
            raise RuntimeError(f"{isa} does not run here")
        if not (raw[start + count :] == 0xFF).all():
            raise RuntimeError("written past the workspace")


@functools.cache
def library() -> CpuKernels:
    """The kernels with their C interface, compiled once per process."""
    holder = tempfile.TemporaryDirectory(prefix="vim-cpu-kernels-")
    atexit.register(holder.cleanup)
    folder = Path(holder.name)
    objects = compile_objects([*kernel_sources(), TESTS / "c_api.cpp"], folder, ("-O1",))
    return CpuKernels(link(objects, folder / "libvim_cpu_kernels.so", ["-shared"]))
