"""ctypes view of the kernels' C interface, and the build of the library that runs on the CPU.

The structs mirror ``include/vim_plugins/params.h`` field by field; ``load`` compares their sizes
with the library's own. ``build_host_library`` compiles the kernel sources with g++ against the CUDA
shim beside this file, so that the very source of the GPU kernels runs here.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).resolve().parents[2]
SHIM = PLUGINS / "tests" / "host" / "shim"

DATA_TYPES = {"fp32": 0, "fp16": 1, "bf16": 2}
TACTICS = {
    "default": 0,
    "generic": 1,
    "serial": 2,
    "chunked4": 3,
    "chunked8": 4,
    "chunked16": 5,
    "vector": 6,
    "cluster4": 7,
    "cluster8": 8,
    "serial1": 9,
}

#: g++ on kernel source: type punning of float pairs is what CUDA code does everywhere.
HOST_FLAGS = (
    "-std=c++17",
    "-fno-strict-aliasing",
    "-fPIC",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
)


def _fields(pointers: str, floats: str, integers: str) -> list[tuple[str, Any]]:
    fields: list[tuple[str, Any]] = [(name, ctypes.c_void_p) for name in pointers.split()]
    fields += [(name, ctypes.c_float) for name in floats.split()]
    return fields + [(name, ctypes.c_int32) for name in integers.split()]


class SelectiveScanParams(ctypes.Structure):
    """``vim_plugins::SelectiveScanParams``."""

    _fields_ = _fields(
        "u dt A bc d_skip dt_bias z y",
        "",
        "batch length channels states bc_columns z_columns b_off c_off z_off reverse"
        " delta_softplus has_z type",
    )


class BiCausalConvParams(ctypes.Structure):
    """``vim_plugins::BiCausalConvParams``."""

    _fields_ = _fields("xz w bias u2", "", "batch length channels width xz_columns x_off type")


class BiSelectiveScanParams(ctypes.Structure):
    """``vim_plugins::BiSelectiveScanParams``."""

    _fields_ = _fields(
        "u2 dt xdbl A d_skip dt_bias xz y",
        "scale",
        "batch length channels states xdbl_columns xz_columns rank b_off c_off dt_off z_off"
        " delta_softplus low_rank type",
    )


Params = SelectiveScanParams | BiCausalConvParams | BiSelectiveScanParams

PREFIXES = {
    SelectiveScanParams: "vim_selective_scan",
    BiCausalConvParams: "vim_bi_causal_conv",
    BiSelectiveScanParams: "vim_bi_selective_scan",
}


class KernelLibrary:
    """The C interface of one loaded library."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        for params, prefix in PREFIXES.items():
            self._function(prefix, "validate").restype = ctypes.c_char_p
            self._function(prefix, "workspace_bytes").restype = ctypes.c_int64
            size = self._function(prefix, "params_size")()
            if size != ctypes.sizeof(params):
                raise RuntimeError(f"{prefix}: library {size} bytes, {ctypes.sizeof(params)} here")

    def _function(self, prefix: str, name: str) -> Any:  # noqa: ANN401 - a ctypes function
        return getattr(self.c, f"{prefix}_{name}")

    def validate(self, params: Params) -> str | None:
        """What is wrong with ``params``, or None."""
        text = self._function(PREFIXES[type(params)], "validate")(ctypes.byref(params))
        return None if text is None else text.decode()

    def tactics(self, params: Params, sm_count: int = 132) -> list[int]:
        """Tactics valid for the shape, best guess first."""
        out = (ctypes.c_int32 * 8)()
        count = self._function(PREFIXES[type(params)], "tactics")(
            ctypes.byref(params), sm_count, out, 8
        )
        return list(out[:count])

    def default_tactic(self, params: Params, sm_count: int = 132) -> int:
        """The tactic to take without timing."""
        return int(
            self._function(PREFIXES[type(params)], "default_tactic")(ctypes.byref(params), sm_count)
        )

    def workspace_bytes(self, params: Params, tactic: int) -> int:
        """Bytes of workspace the tactic needs."""
        return int(
            self._function(PREFIXES[type(params)], "workspace_bytes")(ctypes.byref(params), tactic)
        )

    def launch(
        self, params: Params, tactic: int, workspace: int | None = None, stream: int | None = None
    ) -> int:
        """Enqueue on a stream (the default one for None); the CUDA error code, 0 when good."""
        return int(
            self._function(PREFIXES[type(params)], "launch")(
                ctypes.byref(params), tactic, ctypes.c_void_p(workspace), ctypes.c_void_p(stream)
            )
        )


def kernel_sources() -> list[Path]:
    """Sources of the kernel library."""
    return sorted(path for end in ("cpp", "cu") for path in (PLUGINS / "kernels").glob(f"*.{end}"))


def compile_host(
    sources: list[Path], objects: Path, flags: tuple[str, ...], jobs: int = 2
) -> list[Path]:
    """Compile kernel or test sources against the shim, ``jobs`` at a time; their objects."""
    objects.mkdir(parents=True, exist_ok=True)
    outputs = [objects / f"{source.name}.o" for source in sources]
    waiting = list(zip(sources, outputs, strict=True))
    running: list[subprocess.Popen[bytes]] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            source, output = waiting.pop(0)
            command = ["g++", *HOST_FLAGS, *flags, f"-I{SHIM}", f"-I{PLUGINS / 'include'}"]
            command += [f"-I{PLUGINS / 'kernels'}", "-x", "c++", "-c", str(source)]
            running.append(subprocess.Popen([*command, "-o", str(output)]))
        process = running.pop(0)
        if process.wait() != 0:
            for other in running:
                other.wait()
            raise RuntimeError(f"g++ failed: {process.args!r}")
    return outputs


def build_host_library(folder: Path, flags: tuple[str, ...] = ("-O2",)) -> Path:
    """Compile the kernels for the CPU into ``folder``/libvim_kernels_host.so."""
    objects = compile_host([*kernel_sources(), SHIM / "fibers.cpp"], folder / "objects", flags)
    library = folder / "libvim_kernels_host.so"
    command = ["g++", "-shared", *flags, "-o", str(library), *map(str, objects)]
    subprocess.run(command, check=True)
    return library


@functools.cache
def host_library() -> KernelLibrary:
    """The CPU library, compiled once per process into a folder that goes with it."""
    folder = tempfile.TemporaryDirectory(prefix="vim-kernels-")
    atexit.register(folder.cleanup)
    return KernelLibrary(build_host_library(Path(folder.name)))


def missing_host_tools() -> str | None:
    """Why the kernels cannot be compiled for the CPU here, or None."""
    return None if shutil.which("g++") else "g++ is not on PATH"
