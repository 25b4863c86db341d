"""Compile the plugin library with the CUDA compiler at hand, once for each set of settings.

The sources are CMake's project ``plugins``. A build is kept in the user's cache under the hash of
sources, tools and settings; asked for again, it is taken from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy.codec import stored
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import NoGpuError, NoHeadersError, VimDeployError
from vim_deploy.plugin import toolchain as cuda_toolkit
from vim_deploy.plugin.build_cache import build_folder, compiled_once
from vim_deploy.plugin.compiling import (
    compiler_program,
    copy_whole,
    deliver,
    hash_files,
    run_tool,
)
from vim_deploy.plugin.describe import INTERFACES, LIBRARY_NAME, PluginInfo, describe_plugin
from vim_deploy.plugin.headers import TensorRtHeaders, fetch_headers, find_tensorrt_headers
from vim_deploy.plugin.sources import plugin_sources
from vim_deploy.plugin.toolchain import BuildTools, Toolkit
from vim_deploy.ranges import THREADS, require_all, shown

#: GPUs of ``--arch all``: every family from Turing on, and the machines of Jetson Orin (87).
ALL_ARCHITECTURES = ("75", "80", "86", "87", "89", "90", "100", "120")

#: Folders and file types that make a build; tests and benchmarks do not change it.
_SOURCE_FOLDERS = ("include", "kernels", "adapters", "cmake")
#: What to do about a compiler that fails.
NVCC_FIX = "check that nvcc and the C++ compiler fit together (CXX names another compiler)"


@dataclass(frozen=True)
class PluginSettings:
    """What to build.

    Attributes:
        arch: ``native``, ``all``, or architectures joined by commas, ``80,90``.
        tensorrt: a key of ``INTERFACES``.
        tensorrt_root, cuda_root: where to look instead of the usual places.
        jobs: compiler processes at once.
    """

    arch: str = "native"
    tensorrt: str = "10"
    tensorrt_root: Path | None = None
    cuda_root: Path | None = None
    jobs: int = 2

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, jobs=THREADS)


@stored(
    keys=(
        "library", "up_to_date", "seconds", "nvcc=toolkit.nvcc", "cuda=toolkit.version",
        "tensorrt_headers=headers.include", "tensorrt=headers.version", "left_out", "info",
    ),
    decimals={"seconds": 1},
)  # fmt: skip
@dataclass(frozen=True)
class PluginBuild:
    """A built library.

    Attributes:
        library: the file.
        info: what it says of itself.
        up_to_date: it was built before, with the same sources and settings.
        seconds: what the build took; 0 when up to date.
        toolkit, headers: what was used.
        left_out: architectures of ``all`` that this compiler does not know.
    """

    library: Path
    info: PluginInfo
    up_to_date: bool
    seconds: float
    toolkit: Toolkit
    headers: TensorRtHeaders
    left_out: tuple[str, ...]


def build_plugin(
    settings: PluginSettings,
    output: Path | None = None,
    say: Callable[[str], None] = print,
    *,
    force: bool = False,
) -> PluginBuild:
    """Build the library, or take it from the cache; put it at ``output`` too when given.

    Args:
        settings: what to build.
        output: a file, or a folder to put ``libvim_plugins.so`` into.
        say: told what was found and what is being done, line by line.
        force: replace another file at ``output``.

    Raises:
        VimDeployError: VIM-202 (architecture or TensorRT release not valid, or a variable that
            names no compiler), VIM-203 (two compilers named), VIM-204 (another file at
            ``output``), VIM-301 (no CMake or C++ compiler), VIM-302 (``native`` without a GPU),
            VIM-304, VIM-305 (cache or output), VIM-307 (no nvcc), VIM-308 (no headers, or of the
            wrong release), VIM-401 (no sources), VIM-605 (the compiler failed).
    """
    work = _Work.found(settings, say)
    work.tell(say)

    def compile_it(library: Path) -> None:
        say(f"compiling with {settings.jobs} processes; some minutes for many architectures")
        work.compile(library)

    built = compiled_once(LIBRARY_NAME, work.key(), compile_it, describe_plugin, say)
    library, info, seconds = built.library, built.info, built.seconds
    if output is not None:
        library = deliver(library, output, force)
        info = describe_plugin(library)
    return PluginBuild(
        library, info, seconds is None, seconds or 0.0, work.toolkit, work.headers, work.left_out
    )


@dataclass(frozen=True)
class _Work:
    """What is compiled, and with what."""

    settings: PluginSettings
    sources: Path
    tools: BuildTools
    toolkit: Toolkit
    headers: TensorRtHeaders
    architectures: tuple[str, ...]
    left_out: tuple[str, ...]

    @classmethod
    def found(cls, settings: PluginSettings, say: Callable[[str], None]) -> _Work:
        sources = plugin_sources()
        tools = cuda_toolkit.find_build_tools()
        tools.require_for_nvcc()
        toolkit = cuda_toolkit.find_toolkit(settings.cuda_root)
        architectures, left_out = resolve_architectures(settings.arch, toolkit)
        headers = _fitting_headers(settings, say)
        return cls(settings, sources, tools, toolkit, headers, architectures, left_out)

    def tell(self, say: Callable[[str], None]) -> None:
        toolkit, headers = self.toolkit, self.headers
        say(f"nvcc {toolkit.version} ({toolkit.source}): {toolkit.nvcc}")
        say(f"TensorRT headers {headers.version} ({headers.source}): {headers.include}")
        say(f"GPU architectures: {', '.join(self.architectures)}")
        if self.left_out:
            say(f"left out, unknown to nvcc {toolkit.version}: {', '.join(self.left_out)}")

    def key(self) -> dict[str, Any]:
        """Everything that decides what the library becomes."""
        return {
            "sources": hash_sources(self.sources),
            "interface": INTERFACES[self.settings.tensorrt],
            "architectures": list(self.architectures),
            "cuda": self.toolkit.version,
            "nvcc": str(self.toolkit.nvcc),
            "compiler": self.tools.compiler_line,
            **self.tools.flags,
            "tensorrt": self.headers.version,
            "headers": str(self.headers.include),
        }

    def compile(self, library: Path) -> None:
        """Configure and build in a folder beside ``library``, which it becomes."""
        with build_folder(library) as folder:
            compiler = compiler_program(self.tools.compiler, folder)
            configure = [
                *self.tools.configure(self.sources, folder, compiler),
                f"-DCMAKE_CUDA_COMPILER={self.toolkit.nvcc}",
                f"-DCMAKE_CUDA_HOST_COMPILER={compiler}",
                f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(self.architectures)}",
                f"-DTensorRT_INCLUDE_DIR={self.headers.include}",
                f"-DVIM_PLUGINS_INTERFACE={INTERFACES[self.settings.tensorrt]}",
            ]
            run_tool(configure, "CMake did not configure the plugin library", NVCC_FIX)
            build = [str(self.tools.cmake), "--build", str(folder)]
            build += ["--parallel", str(self.settings.jobs)]
            run_tool(build, "the plugin library did not compile", NVCC_FIX)
            copy_whole(folder / LIBRARY_NAME, library)


def _fitting_headers(settings: PluginSettings, say: Callable[[str], None]) -> TensorRtHeaders:
    if settings.tensorrt not in INTERFACES:
        raise VimDeployError(
            "VIM-202",
            f"TensorRT {settings.tensorrt!r} is not a release to build for",
            fix="choose one of " + ", ".join(INTERFACES),
        )
    headers = _headers(settings, say)
    # IPluginV3 is the same in 10 and 11, so the headers of either serve both; the classes of 8.6
    # have another layout, so that its own headers are needed.
    fits = headers.version.startswith("8.6.") if settings.tensorrt == "8.6" else headers.major >= 10
    if not fits:
        raise VimDeployError(
            "VIM-308",
            f"no headers of TensorRT {settings.tensorrt} found",
            why=f"{headers.include} ({headers.source}) has those of {headers.version}",
            fix=f"name a TensorRT {settings.tensorrt} installation with --tensorrt-root",
        )
    return headers


def _headers(settings: PluginSettings, say: Callable[[str], None]) -> TensorRtHeaders:
    try:
        return find_tensorrt_headers(settings.tensorrt_root)
    except NoHeadersError:
        # No package has those of 8.6, and a folder that was named is the only one.
        if settings.tensorrt == "8.6" or settings.tensorrt_root is not None:
            raise
        return fetch_headers(say)


def resolve_architectures(arch: str, toolkit: Toolkit) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """CMake's list for ``arch``, and what of ``all`` the compiler does not know.

    ``all`` carries PTX of the newest family this compiler knows and of the one before it, so that
    GPUs to come run as well; a list carries PTX of its newest member; ``native`` carries none.

    Raises:
        VimDeployError: VIM-202 (not valid or unknown to the compiler), VIM-302 (``native`` and no
            GPU).
    """
    if arch == "native":
        return (f"{_known(_native(), toolkit)}-real",), ()
    if arch == "all":
        known = [name for name in ALL_ARCHITECTURES if name in toolkit.architectures]
        left_out = tuple(name for name in ALL_ARCHITECTURES if name not in known)
        return tuple(f"{name}-real" for name in known[:-2]) + tuple(known[-2:]), left_out
    names = sorted({_canonical(part) for part in arch.split(",")}, key=int)
    for name in names:
        _known(name, toolkit)
    return (*(f"{name}-real" for name in names[:-1]), names[-1]), ()


def default_arch(say: Callable[[str], None]) -> str:
    """What to build for where nobody says: this machine's GPU, or all where there is none."""
    try:
        cuda_driver.gpu()
    except NoGpuError as error:
        say(f"no usable GPU here ({error.why}): compiling for all, as --arch all")
        return "all"
    return "native"


def _native() -> str:
    try:
        return cuda_driver.gpu().architecture
    except VimDeployError as error:
        raise VimDeployError(
            error.code,
            "--arch native asks the GPU of this machine, and there is no usable one",
            why=error.why,
            fix="name the GPUs to build for: --arch all, or a list such as --arch 80,90",
        ) from error


def _canonical(text: str) -> str:
    """``80`` from ``80``, ``8.0``, ``sm_80``."""
    found = re.fullmatch(r"\s*(?:sm_)?([0-9]{1,3})\.?([0-9])\s*", text)
    if found is None:
        raise VimDeployError(
            "VIM-202",
            f"{shown(text)} is not a GPU architecture",
            fix="give native, all, or a list such as 80,90",
        )
    return found.group(1) + found.group(2)


def _known(name: str, toolkit: Toolkit) -> str:
    if name not in toolkit.architectures:
        raise VimDeployError(
            "VIM-202",
            f"nvcc {toolkit.version} does not compile for architecture {name}",
            why="it knows " + ", ".join(toolkit.architectures),
            fix="take another architecture, or another toolkit with --cuda-root",
        )
    return name


def hash_sources(sources: Path) -> str:
    """Hex SHA-256 over names and contents of the files that make the library."""
    files = [sources / "CMakeLists.txt"]
    for name in _SOURCE_FOLDERS:
        files += [path for path in (sources / name).rglob("*") if path.is_file()]
    return hash_files(sources, files)
