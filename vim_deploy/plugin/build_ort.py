"""Compile the native ops for ONNX Runtime, once for each state of sources, tools and settings.

For CPUs this needs a C++ compiler and CMake alone, for GPUs the CUDA compiler, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy.codec import stored
from vim_deploy.plugin import toolchain
from vim_deploy.plugin.build import NVCC_FIX, resolve_architectures
from vim_deploy.plugin.build_cache import build_folder, compiled_once
from vim_deploy.plugin.compiling import compiler_program, copy_whole, deliver, run_tool
from vim_deploy.plugin.ort_library import (
    OrtLibraryInfo,
    describe_ort_library,
    library_name,
    sources_key,
)
from vim_deploy.plugin.sources import PROJECTS, plugin_sources
from vim_deploy.plugin.toolchain import BuildTools, Toolkit
from vim_deploy.ranges import THREADS, require_all
from vim_deploy.specs import OpsProvider

_CXX_FIX = "set CXX to another compiler: g++ from 9 on, or clang from 10 on"


@dataclass(frozen=True)
class OrtBuildSettings:
    """What to build.

    Attributes:
        provider: ONNX Runtime's execution provider that the kernels are for.
        arch: GPUs, as in ``PluginSettings``; without meaning for a CPU, whose instruction set is
            chosen when the library runs.
        cuda_root: where to look for the CUDA compiler instead of the usual places.
        jobs: compiler processes at once.
    """

    provider: OpsProvider = "cpu"
    arch: str = "native"
    cuda_root: Path | None = None
    jobs: int = 2

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, jobs=THREADS)


@stored(keys=("library", "up_to_date", "seconds", "info"), decimals={"seconds": 1})
@dataclass(frozen=True)
class OrtBuild:
    """A built library: the file, what it says of itself, and what the build took.

    Attributes:
        up_to_date: it was built before, of the same sources with the same settings.
        seconds: 0 when up to date.
    """

    library: Path
    info: OrtLibraryInfo
    up_to_date: bool
    seconds: float


def build_ort_library(
    settings: OrtBuildSettings,
    output: Path | None = None,
    say: Callable[[str], None] = print,
    *,
    force: bool = False,
) -> OrtBuild:
    """Build the library, or take it from the cache; put it at ``output`` too when given.

    Args:
        settings: what to build.
        output: a file, or a folder to put the library into.
        say: told what was found and what is being done, line by line.
        force: replace another file at ``output``.

    Raises:
        VimDeployError: VIM-202 (architecture, or a variable that names no compiler), VIM-203 (two
            compilers named), VIM-204 (another file at ``output``), VIM-301 (no CMake or C++
            compiler), VIM-302 (``native`` without a GPU), VIM-304, VIM-305 (cache or output),
            VIM-307 (no nvcc), VIM-401 (no sources), VIM-605 (the compiler failed).
    """
    work = _Work.found(settings)
    say(f"native ops ({settings.provider}) with {work.tools.compiler_line}")

    def compile_it(library: Path) -> None:
        say(f"compiling with {settings.jobs} processes; about a minute")
        work.compile(library)

    name, key = library_name(settings.provider), work.key()
    built = compiled_once(name, key, compile_it, describe_ort_library, say)
    library, info, seconds = built.library, built.info, built.seconds
    if output is not None:
        library = deliver(library, output, force)
        info = describe_ort_library(library)
    return OrtBuild(library, info, seconds is None, seconds or 0.0)


@dataclass(frozen=True)
class _Work:
    """What is compiled, and with what."""

    settings: OrtBuildSettings
    sources: Path
    tools: BuildTools
    toolkit: Toolkit | None
    architectures: tuple[str, ...]

    @classmethod
    def found(cls, settings: OrtBuildSettings) -> _Work:
        sources = plugin_sources(settings.provider)
        tools = toolchain.find_build_tools("the native ops")
        if settings.provider == "cpu":
            return cls(settings, sources, tools, None, ())
        tools.require_for_nvcc()
        toolkit = toolchain.find_toolkit(settings.cuda_root)
        architectures, _ = resolve_architectures(settings.arch, toolkit)
        return cls(settings, sources, tools, toolkit, architectures)

    def key(self) -> dict[str, Any]:
        """Everything that decides what the library becomes."""
        nvcc = "" if self.toolkit is None else str(self.toolkit.nvcc)
        return {
            **sources_key(self.settings.provider),
            "provider": self.settings.provider,
            "compiler": self.tools.compiler_line,
            **self.tools.flags,
            "nvcc": nvcc,
            "architectures": list(self.architectures),
        }

    def compile(self, library: Path) -> None:
        """Configure and build in a folder beside ``library``, which it becomes."""
        project = PROJECTS[self.settings.provider]
        with build_folder(library) as folder:
            compiler = compiler_program(self.tools.compiler, folder)
            configure = self.tools.configure(self.sources / project, folder, compiler)
            configure += self._cuda_settings(compiler)
            fix = _CXX_FIX if self.toolkit is None else NVCC_FIX
            run_tool(configure, "CMake did not configure the native ops", fix)
            target = f"vim_ort_{self.settings.provider}"
            build = [str(self.tools.cmake), "--build", str(folder), "--target", target]
            build += ["--parallel", str(self.settings.jobs)]
            run_tool(build, "the native ops did not compile", fix)
            copy_whole(folder / library.name, library)

    def _cuda_settings(self, compiler: Path) -> list[str]:
        if self.toolkit is None:
            return []
        return [
            f"-DCMAKE_CUDA_COMPILER={self.toolkit.nvcc}",
            f"-DCMAKE_CUDA_HOST_COMPILER={compiler}",
            f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(self.architectures)}",
            "-DVIM_PLUGINS_INTERFACE=NONE",
            "-DVIM_PLUGINS_ORT=ON",
        ]
