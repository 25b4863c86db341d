"""The CUDA compiler, CMake and the C++ compiler: where they are, found without importing anything.

A toolkit may be an installation (CUDA_HOME, PATH, /usr/local/cuda) or NVIDIA's packages on PyPI
(nvidia-cuda-nvcc, nvidia-cuda-crt, nvidia-nvvm, nvidia-cuda-runtime, nvidia-cuda-cccl), which
share one folder ``nvidia/cu<major>``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.errors import VimDeployError
from vim_deploy.installation import extra_command, pip_command
from vim_deploy.ranges import shown

#: Variables that name the CUDA compiler: CMake's own, and the one of many Makefiles.
_NVCC_VARIABLES = ("CUDACXX", "NVCC")
#: Variables of CMake and of nvcc that name the compiler of the host's half of CUDA files.
_HOST_VARIABLES = ("CUDAHOSTCXX", "NVCC_CCBIN")
#: Variables that CMake or nvcc itself reads, and that decide what a library becomes.
_FLAG_VARIABLES = (
    *("CXXFLAGS", "LDFLAGS", "CUDAFLAGS", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"),
    "CMAKE_TOOLCHAIN_FILE",
)
_SCHEME = sysconfig.get_default_scheme()
_DEFAULT_NVCC = Path("/usr/local/cuda/bin/nvcc")


@dataclass(frozen=True)
class Toolkit:
    """A working CUDA compiler.

    Attributes:
        nvcc: the compiler.
        version: of the toolkit, ``13.0``.
        source: how it was found.
        architectures: the GPU architectures it compiles for, ``("75", "80", ...)``.
    """

    nvcc: Path
    version: str
    source: str
    architectures: tuple[str, ...]

    @property
    def root(self) -> Path:
        """The toolkit's folder."""
        return self.nvcc.parent.parent


def find_toolkit(root: Path | None = None) -> Toolkit:
    """The first working compiler of: ``root``, CUDA_HOME, CUDA_PATH, PATH, PyPI, /usr/local/cuda.

    Without ``root`` the one that CUDACXX or NVCC names is the only one.

    Raises:
        VimDeployError: VIM-202 (CUDACXX or NVCC has arguments), VIM-307, with what was tried and
            why each was not taken.
    """
    tried = []
    for source, nvcc in _compilers(root):
        found = _ask(nvcc, source)
        if isinstance(found, Toolkit):
            return found
        tried.append(f"{source}: {found}")
    raise VimDeployError(
        "VIM-307",
        "no CUDA compiler found",
        why="; ".join(tried) or "nothing named nvcc in CUDA_HOME, PATH, PyPI packages",
        fix=f"install the CUDA toolkit and set CUDA_HOME, or: {extra_command('plugin')}",
    )


def _compilers(root: Path | None) -> Iterator[tuple[str, Path]]:
    if root is not None:
        yield f"--cuda-root {root}", root / "bin" / "nvcc"
        return
    for variable in _NVCC_VARIABLES:
        named = os.environ.get(variable, "").strip()
        if named:
            yield variable, _named_nvcc(variable, named)
            return
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield variable, Path(os.environ[variable]) / "bin" / "nvcc"
    on_path = shutil.which("nvcc")
    if on_path is not None:
        yield "PATH", Path(on_path)
    for folder in _pypi_folders():
        yield "PyPI packages", folder / "bin" / "nvcc"
    if _DEFAULT_NVCC.exists():
        yield str(_DEFAULT_NVCC), _DEFAULT_NVCC


def _named_nvcc(variable: str, named: str) -> Path:
    """The compiler that a variable names; VIM-202 when it names arguments as well."""
    found, *arguments = _command(variable, named) or (named,)
    if arguments:
        raise VimDeployError(
            "VIM-202",
            f"{variable} names more than a compiler: {shown(named)}",
            why="the toolkit is found by asking the compiler alone",
            fix=f"name the compiler alone in {variable}, options in NVCC_APPEND_FLAGS, and what "
            "starts it in CMAKE_CUDA_COMPILER_LAUNCHER",
        )
    return Path(found)


def _pypi_folders() -> list[Path]:
    """``nvidia/cu13`` and its like, newest first; ``nvidia/cuda_nvcc`` of CUDA 12 has no nvcc."""
    spec = importlib.util.find_spec("nvidia")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    folders = [folder for place in places for folder in Path(place).glob("cu[0-9]*")]
    return sorted(folders, key=lambda folder: int(re.sub(r"\D", "", folder.name)), reverse=True)


def _run(nvcc: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(nvcc), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        stdin=subprocess.DEVNULL,
    )


def _ask(nvcc: Path, source: str) -> Toolkit | str:
    """The toolkit at ``nvcc``, or why it is not one."""
    if not nvcc.is_file():
        return f"no file {nvcc}"
    try:
        version = re.search(r"release (\d+\.\d+)", _run(nvcc, "--version").stdout)
        codes = re.findall(r"^sm_(\d+)$", _run(nvcc, "--list-gpu-code").stdout, re.MULTILINE)
        # The compiler may be a script that starts the real one elsewhere: ask where its files are.
        plan = _run(nvcc, "--dryrun", "-x", "cu", "-c", "-", "-o", os.devnull).stderr
    except (OSError, subprocess.SubprocessError) as error:
        return f"{nvcc} does not run: {error}"
    top = re.search(r"^#\$ TOP=(.+)$", plan, re.MULTILINE)
    if version is None or not codes or top is None:
        return f"{nvcc} does not answer as a CUDA compiler does"
    real = Path(top.group(1).strip()).resolve()
    missing = [
        name
        for name in ("include/cuda_runtime.h", "include/crt/host_config.h", "nvvm/bin/cicc")
        if not (real / name).exists()
    ]
    if missing and not _has_target_headers(real, missing):
        return f"{real} is not complete: {', '.join(missing)} missing"
    return Toolkit(real / "bin" / "nvcc", version.group(1), source, tuple(codes))


def _has_target_headers(root: Path, missing: list[str]) -> bool:
    """Whether what is missing lies in ``targets/<machine>``, as in NVIDIA's own packages."""
    return all(
        name.startswith("include/") and any(root.glob(f"targets/*/{name}")) for name in missing
    )


@dataclass(frozen=True)
class BuildTools:
    """CMake, what it drives (``Ninja`` or ``Unix Makefiles``) and the C++ compiler.

    Attributes:
        maker: ninja or make, which need not be on PATH.
        compiler: its program, with the arguments that ``CXX`` has: ``("/usr/bin/ccache", "g++")``.
        flags: variables that are set and add to what compilers are told.
    """

    cmake: Path
    generator: str
    maker: Path
    compiler: tuple[str, ...]
    flags: dict[str, str]

    @property
    def compiler_line(self) -> str:
        """The compiler as one types it."""
        return shlex.join(self.compiler)

    def configure(self, sources: Path, folder: Path, compiler: Path) -> list[str]:
        """How CMake is told to prepare a build of ``sources`` in ``folder``."""
        return [
            *(str(self.cmake), "-S", str(sources), "-B", str(folder), "-G", self.generator),
            f"-DCMAKE_MAKE_PROGRAM={self.maker}",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_CXX_COMPILER={compiler}",
            # A compiler newer than the ones tried may warn about what these did not.
            "-DVIM_PLUGINS_WERROR=OFF",
        ]

    def require_for_nvcc(self) -> None:
        """VIM-203 where a variable names another compiler for the host's half of CUDA files."""
        for variable in _HOST_VARIABLES:
            named = os.environ.get(variable, "").strip()
            if named and _command(variable, named) != self.compiler:
                raise VimDeployError(
                    "VIM-203",
                    f"{variable} names {shown(named)}, and the C++ compiler is "
                    f"{self.compiler_line}",
                    why="one compiler makes the C++ files and the host's half of the CUDA files",
                    fix=f"set CXX to it, or unset {variable}",
                )


def find_build_tools(what: str = "the plugin library") -> BuildTools:
    """CMake and a C++ compiler: the one that ``CXX`` names, else g++, c++ or clang++.

    Args:
        what: is to be built, for the message.

    Raises:
        VimDeployError: VIM-202 (``CXX`` is no command), VIM-301 naming the one that is missing.
    """
    cmake, ninja, make = map(_program, ("cmake", "ninja", "make"))
    maker = ninja or make
    if cmake is None or maker is None:
        lacking = "cmake" if cmake is None else "ninja or make"
        raise VimDeployError(
            "VIM-301",
            f"building {what} needs {lacking}",
            why=f"neither PATH nor this Python's environment has {lacking}",
            fix=pip_command("install", "cmake", "ninja"),
        )
    named = os.environ.get("CXX", "").strip()
    places = (shutil.which(name) for name in ("g++", "c++", "clang++"))
    compiler = _command("CXX", named) if named else tuple(filter(None, places))[:1]
    if not compiler:
        raise VimDeployError(
            "VIM-301",
            f"building {what} needs a C++ compiler",
            why=f"CXX names {shown(named)}, which is no program here"
            if named
            else "PATH has no g++, c++ or clang++",
            fix="set CXX to a compiler that is here, or unset it"
            if named
            else "install g++ or clang, or set CXX",
        )
    generator = "Ninja" if ninja else "Unix Makefiles"
    flags = {name: os.environ[name] for name in _FLAG_VARIABLES if os.environ.get(name)}
    return BuildTools(cmake, generator, maker, compiler, flags)


def _program(name: str) -> Path | None:
    """A program of PATH, else of this Python's environment, which need not be activated."""
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(_scripts_folders()))
    return None if found is None else Path(found)


def _scripts_folders() -> list[str]:
    """Where pip puts programs: of the environment, and of the user."""
    return [sysconfig.get_path("scripts", scheme) for scheme in (_SCHEME, f"{os.name}_user")]


def _command(variable: str, named: str) -> tuple[str, ...]:
    """The program that a variable names and its arguments; empty when it is not here.

    In words as make's shell would have them, and nothing else of a shell. VIM-202 for a quotation
    that does not end.
    """
    whole = shutil.which(named)
    try:
        first, *others = [named] if whole else shlex.split(named)
    except ValueError as error:
        raise VimDeployError(
            "VIM-202",
            f"{variable} is no command: {shown(named)}",
            why=str(error),
            fix=f"set {variable} to a program and its arguments, or unset it",
        ) from error
    program = shutil.which(first)
    return () if program is None else (os.path.abspath(program), *others)
